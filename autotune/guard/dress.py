"""The generated class of an optimised pipeline.

`__call__` and properties are looked up on the class, so what an optimised pipeline does differently lives in a subclass with the
same name, module and signature, made once for each class. `pipe.__class__` is exchanged and put back by `restore`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.engine import Handle, handle_of

__all__ = ["dress", "is_dressed"]


def dress(pipe: Any, handle: Handle) -> None:
    """Gives the pipeline the generated class; the handle takes it off again."""
    if is_dressed(pipe):
        return
    plain = type(pipe)

    def undress() -> None:
        pipe.__class__ = plain

    pipe.__class__ = _dressed(plain)
    handle.did("the pipeline's class", undress)


def is_dressed(pipe: Any) -> bool:
    """Whether the pipeline has a generated class now."""
    return isinstance(pipe, _Dressed)


class _Dressed:
    """What the generated classes have in common."""

    @property
    def _execution_device(self) -> torch.device:
        """The device of the plan: diffusers would ask the hooks, and some placements have none (pipeline_utils.py)."""
        handle = handle_of(self)
        return super()._execution_device if handle is None else torch.device(handle.device.torch_device)  # type: ignore[misc, no-any-return]

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Moving the pipeline by hand would undo the placement, so it is answered with a sentence.

        Raises:
            PlanError: the pipeline is not there already.
        """
        handle = handle_of(self)
        if handle is None or "silence_dtype_warnings" in kwargs:  # diffusers itself, when it enables offload again
            return super().to(*args, **kwargs)  # type: ignore[misc]
        given = [value for value in (*args, *kwargs.values()) if value is not None]
        devices = [torch.device(value) for value in given if not isinstance(value, torch.dtype)]
        dtypes = [value for value in given if isinstance(value, torch.dtype)]
        planned = torch.device(handle.device.torch_device)
        resident = handle.plan.offload == "none" and handle.plan.text_encoders == "resident"
        if resident and not dtypes and all(_same(device, planned) for device in devices):
            return self
        asked = ", ".join(str(value) for value in given)
        raise PlanError(
            f"pipe.to({asked}) would undo what was planned for {planned}: {handle.plan.changes or 'everything resident'}; "
            "call autotune.restore(pipe) first, or autotune.optimize(pipe, ...) for another plan"
        )

    def __copy__(self) -> Any:
        """A pipeline of the plain class with the same networks, as `from_pipe` would make it."""
        twin = object.__new__(_plain(type(self)))
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if handle_of(self) is not value})
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise PlanError(
            "an optimised pipeline cannot be pickled or copied in depth: hooks and originals belong to this one; "
            "call autotune.restore(pipe) first"
        )


@cache
def _dressed(plain: type) -> type:
    body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    return type(plain.__name__, (_Dressed, plain), body)


def _plain(dressed: type) -> type:
    return next(base for base in _bases(dressed) if not issubclass(base, _Dressed))


def _bases(dressed: type) -> Iterator[type]:
    return (base for base in dressed.__mro__ if base is not _Dressed and base is not dressed)


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)
