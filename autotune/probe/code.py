"""What a pipeline's call does with what it is not told, read from its code: diffusers declares it nowhere else.

Only expressions of constants, arguments and the pipeline's own attributes are worked out, and none that calls anything.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["assigned", "fallbacks", "worked_out"]

_PLAIN = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Attribute, ast.BinOp, ast.operator, ast.BoolOp, ast.boolop,
    ast.Compare, ast.cmpop, ast.UnaryOp, ast.unaryop, ast.IfExp, ast.Subscript, ast.Tuple,
)  # fmt: skip


def assigned(pipeline_class: type, name: str) -> Iterator[ast.expr]:
    """The expressions that the call assigns to a local name, in the order of the code."""
    for statement in _assignments(pipeline_class):
        targets = [each for target in statement.targets for each in getattr(target, "elts", [target])]
        if any(_is_named(target, name) for target in targets):
            yield statement.value


def fallbacks(pipeline_class: type, name: str) -> Iterator[ast.expr]:
    """What the call takes for an argument that is None: the rest of `name = name or ...`, or a picture's own shape."""
    for value in assigned(pipeline_class, name):
        if isinstance(value, ast.BoolOp) and isinstance(value.op, ast.Or) and _is_named(value.values[0], name):
            yield value.values[1]
        elif _reads_a_picture(value):
            yield value


def worked_out(expression: ast.expr, pipe: Any, arguments: Mapping[str, Any]) -> Any:
    """The expression's value for this pipeline and these arguments; None where it needs more than those."""
    if not all(isinstance(node, _PLAIN) for node in ast.walk(expression)):
        return None
    code = compile(ast.fix_missing_locations(ast.Expression(expression)), "<call>", "eval")
    try:
        return eval(code, {"__builtins__": {}}, {**arguments, "self": pipe})
    except (NameError, AttributeError, TypeError, ValueError, LookupError, ZeroDivisionError):
        return None


@lru_cache(maxsize=64)
def _assignments(pipeline_class: type) -> tuple[ast.Assign, ...]:
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(pipeline_class.__call__)))
    except (OSError, TypeError):  # made at run time, or compiled
        return ()
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    return tuple(sorted(found, key=lambda statement: statement.lineno))


def _is_named(expression: ast.expr, name: str) -> bool:
    return isinstance(expression, ast.Name) and expression.id == name


def _reads_a_picture(value: ast.expr) -> bool:
    names = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(value) if isinstance(node, ast.Attribute)}
    shaped = {"shape", "size", "height", "width", "get_default_height_width"} & attributes
    return bool(shaped) and any("image" in name or "frame" in name for name in names)
