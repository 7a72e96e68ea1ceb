"""Operators on fakes, answered from memory.

What an operator makes of fakes is decided by their shapes, strides and types alone. torch works it out anew each time, in
Python and in up to half a millisecond; here the first answer is kept, and tensors like those that it gave are made at once.
Not kept is what depends on values, what changes the shape of what it is given, and whatever was given a real tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autotune.upstream.fakes import is_plain, made, no_dispatch, viewed

__all__ = ["Answer", "Answers"]

_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format})
_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view}
_RESIZING = {"aten::_resize_output_", "aten::resize_as_sparse_"}


class _Output(NamedTuple):
    """A tensor that an operator gives: an argument itself, a view of one's storage, or a new one."""

    argument: int | None
    """Place of the argument among the fakes that it was given."""
    itself: bool
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    """In elements."""
    dtype: torch.dtype | None = None


class Answer:
    """What an operator gives for arguments of one kind."""

    __slots__ = ("outputs", "several", "told")

    def __init__(self, outputs: Sequence[_Output], several: type[Any] | None) -> None:
        self.outputs = outputs
        self.several = several
        """Of what kind the sequence of outputs is; None for a single tensor."""
        self.told: Any = None
        """What the recorder has made of it."""

    @property
    def is_new(self) -> bool:
        """Whether all that it gives is new."""
        return all(one.argument is None for one in self.outputs)

    def again(self, fakes: Sequence[FakeTensor]) -> list[torch.Tensor]:
        """The outputs for these fakes."""
        mode = fakes[0].fake_mode
        with no_dispatch():
            return [_made(one, fakes, mode) for one in self.outputs]

    def returned(self, outputs: list[torch.Tensor]) -> Any:
        """The outputs as the operator returns them."""
        return outputs[0] if self.several is None else self.several(outputs)


class Answers:
    """The memory of one mode's operators."""

    def __init__(self) -> None:
        self._kept: dict[Any, Answer | None] = {}

    def key_of(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], fakes: list[FakeTensor]) -> Any:
        """The key of a call, None if it has none; the fakes among its arguments are put into `fakes`."""
        if torch.is_grad_enabled() or not _is_told_by_shapes(func):
            return None
        described: list[Any] = [func, torch.get_default_dtype()]
        for value in args:
            if not _describe(value, described, fakes):
                return None
        for name, value in kwargs.items():
            described.append(name)
            if not _describe(value, described, fakes):
                return None
        return tuple(described) if fakes else None

    def get(self, key: Any) -> Answer | None:
        """What was kept."""
        return self._kept.get(key)

    def keep(self, key: Any, fakes: Sequence[FakeTensor], out: Any) -> Answer | None:
        """Keeps what an operator has given, if it can be given again."""
        if key not in self._kept:
            self._kept[key] = _answer(fakes, out)
        return self._kept[key]


@cache
def _is_told_by_shapes(func: Any) -> bool:
    """Whether the operator leaves the shapes of what it is given alone: tensors that are passed as `out` may be resized."""
    resizes = func._schema.name in _RESIZING or any(argument.is_out for argument in func._schema.arguments)
    return _TAGS.isdisjoint(func.tags) and not resizes


def _describe(value: Any, described: list[Any], fakes: list[FakeTensor]) -> bool:
    """Appends what decides the answer; whether it is known."""
    kind = type(value)
    if kind is FakeTensor:
        if value.constant is not None or not is_plain(value) or value.is_conj():
            return False
        fakes.append(value)
        size = value.untyped_storage().nbytes()
        described += (value.shape, value.stride(), value.storage_offset(), value.dtype, size)
        return True
    if kind in _PLAIN:
        described += (kind, value)
        return True
    if kind is list or kind is tuple or kind is torch.Size:
        described.append(len(value))
        return all(_describe(item, described, fakes) for item in value)
    return False


def _answer(fakes: Sequence[FakeTensor], out: Any) -> Answer | None:
    several = None if isinstance(out, torch.Tensor) else type(out)
    outputs = [out] if several is None else out
    if several not in {None, tuple, list} or not all(type(one) is FakeTensor for one in outputs):
        return None
    storages = [fake.untyped_storage()._cdata for fake in fakes]
    found = [_output(one, fakes, storages) for one in outputs]
    new = [
        one.untyped_storage()._cdata for one, how in zip(outputs, found, strict=True) if how and how.argument is None
    ]
    if None in found or len(set(new)) < len(new):
        return None
    return Answer([how for how in found if how], several)


def _output(tensor: Any, fakes: Sequence[FakeTensor], storages: Sequence[int]) -> _Output | None:
    if tensor.constant is not None or not is_plain(tensor) or tensor.is_conj() or tensor.is_neg():
        return None
    for place, fake in enumerate(fakes):
        if fake is tensor:
            return _Output(place, itself=True)
    storage = tensor.untyped_storage()
    shape, stride, offset = tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())
    if storage._cdata in storages:
        return _Output(storages.index(storage._cdata), False, shape, stride, offset, tensor.dtype)
    span = sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) + 1 if 0 not in shape else 0
    if offset or storage.nbytes() != span * tensor.itemsize:
        return None
    return _Output(None, False, shape, stride, 0, tensor.dtype)


def _made(output: _Output, fakes: Sequence[FakeTensor], mode: FakeTensorMode) -> torch.Tensor:
    if output.argument is None:
        return made(mode, output.shape, output.stride, output.dtype)
    if output.itself:
        return fakes[output.argument]
    return viewed(mode, fakes[output.argument], output.shape, output.stride, output.offset, output.dtype)
