"""Whose error it is that stopped a trace: the call's own, which the real pipeline raises too, or the twin's.

A twin has the pipeline's classes and code, and tensors of the same shapes and types: what is decided by these is decided as
on the real pipeline. It has no values. So, in this order:

1. What torch's own code for fakes raises (shapes that depend on data, operators without a fake kernel), what comes of there
   being no card here, and a component that the twin refuses to show are the twin's.
2. A torch function that raised is called again, with ordinary tensors of the same shapes and types: if these it takes, the
   error was the twin's.
3. A RuntimeError that neither a torch function nor a `raise` statement raised comes out of a compiled extension that looked
   for the tensors' memory: the twin's.
4. Everything else was decided by Python code, on arguments, types and shapes: the call's. If numbers had been made up by then
   (`borders.py`), it may have been decided on these: the session calls again with other numbers, and only the same error
   is the call's.
"""

from __future__ import annotations

import dis
from types import TracebackType
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from autotune.trace.borders import Refused
from autotune.trace.twin import UntraceableError

__all__ = ["is_the_calls", "words_of"]

_TWINS_ERRORS = (UntraceableError, MemoryError, RecursionError)
# Fakes, what torch traces with, and what refuses to read a storage on "meta".
_FAKES = ("torch._subclasses", "torch._dynamo", "torch._library", "torch.fx", "torch.storage")
_CARDS = ("torch.cuda", "triton")
_TRIED_BYTES = 256 * 2**20  # a function that takes its arguments after all computes: a second or so
_WORDS = 200


def is_the_calls(error: Exception, refused: Refused | None) -> bool:
    """Whether the real pipeline would raise this error as well, unless made-up numbers led to it.

    Args:
        error: what stopped the trace.
        refused: the last torch function that raised, if any did.
    """
    origin = _origin(error)
    module = "" if origin is None else str(origin.tb_frame.f_globals.get("__name__"))
    if isinstance(error, _TWINS_ERRORS) or _is_within(type(error).__module__, _FAKES) or _is_within(module, _CARDS):
        return False
    if refused is not None and refused.error is error:
        return _refuses_real_tensors(refused)
    if _is_within(module, _FAKES):
        return False
    return not isinstance(error, RuntimeError) or _is_raise_statement(origin)


def words_of(error: Exception) -> str:
    """The error in a line: its class, and the first line of what it says."""
    said = (str(error) or "no message").splitlines()[0][:_WORDS]
    return said if isinstance(error, UntraceableError) else f"{type(error).__name__}: {said}"


def _origin(error: Exception) -> TracebackType | None:
    """Where the error was raised: the innermost frame."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place


def _is_raise_statement(place: TracebackType | None) -> bool:
    return place is not None and dis.opname[place.tb_frame.f_code.co_code[place.tb_lasti]] == "RAISE_VARARGS"


def _is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _refuses_real_tensors(refused: Refused) -> bool:
    """What is too large to be tried is taken at its word: no operator is known whose fake kernel alone refuses types or
    shapes."""
    tensors = [leaf for leaf in tree_leaves((refused.args, refused.kwargs)) if isinstance(leaf, torch.Tensor)]
    if sum(tensor.numel() * tensor.itemsize for tensor in tensors) > _TRIED_BYTES:
        return True
    args, kwargs = tree_map_only(torch.Tensor, _real, (refused.args, refused.kwargs))
    try:
        refused.function(*args, **kwargs)
    except Exception as error:  # whatever it raises: the question is whether it does
        return isinstance(error, type(refused.error))
    return False


def _real(tensor: torch.Tensor) -> Any:
    """Zeros with the tensor's outside: an index must point somewhere."""
    elements = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return torch.zeros(max(1, elements), dtype=tensor.dtype).as_strided(tensor.shape, tensor.stride())
