"""Options that several commands share as one value: a dataclass whose fields are options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from typing import Any, get_type_hints

__all__ = ["with_groups"]


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command for typer: each parameter that is a dataclass is replaced by its fields, and made of them in a call.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Size:
    ...     height: int = 512
    ...     width: int = 512
    >>> def area(name: str, *, size: Size) -> None:
    ...     print(name, size.height * size.width)
    >>> with_groups(area)("square", height=2, width=2)
    square 4
    >>> list(signature(with_groups(area)).parameters)
    ['name', 'height', 'width']
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters: list[Parameter] = []
    for name, parameter in signature(command).parameters.items():
        group = groups.get(name)
        if group is None:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        its_hints = get_type_hints(group, include_extras=True)
        parameters += [
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=its_hints[field.name])
            for field in fields(group)
        ]

    def run(*args: Any, **named: Any) -> None:
        made = {
            name: group(**{field.name: named.pop(field.name) for field in fields(group) if field.name in named})
            for name, group in groups.items()
        }
        command(*args, **named, **made)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = signature(command).replace(parameters=parameters)  # type: ignore[attr-defined] # typer reads it
    return run
