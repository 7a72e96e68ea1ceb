"""Fake tensors made without torch's dispatcher, a fifth of the time that it takes (torch/_subclasses/fake_tensor.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["born", "by_meta_kernel", "cast", "is_plain", "laid", "made", "no_dispatch", "undispatched", "viewed"]

undispatched = _disable_current_modes
"""A context in which no mode sees what is done."""
no_dispatch = torch._C._DisableTorchDispatch
"""The same for the inside of a mode, in a twentieth of the time."""
_CPU = torch.device("cpu")


def made(mode: FakeTensorMode, shape: Sequence[int], stride: Sequence[int], dtype: torch.dtype | None) -> FakeTensor:
    """A fake on the CPU. Where no mode sees it."""
    return FakeTensor(mode, torch.empty_strided(shape, stride, dtype=dtype, device="meta"), _CPU)


def viewed(
    mode: FakeTensorMode,
    base: torch.Tensor,
    shape: Sequence[int],
    stride: Sequence[int],
    offset: int,
    dtype: torch.dtype | None,
) -> FakeTensor:
    """A fake that shares the storage of another. Where no mode sees it."""
    empty = torch.empty(0, dtype=dtype, device="meta")
    return FakeTensor(mode, empty.set_(base.untyped_storage(), offset, shape, stride), _CPU)


def by_meta_kernel(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], mode: FakeTensorMode) -> Any:
    """What the operator's meta kernel makes of fakes on the CPU, as fakes. For operators that have one and write nothing."""
    with in_kernel_invocation_manager(mode):
        out = func(*args, **kwargs)
        if isinstance(out, torch.Tensor):
            return FakeTensor(mode, out, _CPU)
        return type(out)(FakeTensor(mode, one, _CPU) for one in out)


def born(mode: FakeTensorMode, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A fake on the CPU with the shape and strides of `tensor`."""
    with undispatched():
        fake = made(mode, tensor.shape, tensor.stride(), dtype or tensor.dtype)
    if isinstance(tensor, torch.nn.Parameter):
        fake._is_param = True  # what torch.nn.Parameter.__new__ does for subclasses
    return fake


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """A fake in that type; None for what is no plain fake on the CPU."""
    return born(tensor.fake_mode, tensor, dtype) if is_plain(tensor) else None


def laid(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor | None:
    """A fake in that order; None for what is no plain fake on the CPU."""
    if not is_plain(tensor):
        return None
    with undispatched():
        return made(tensor.fake_mode, tensor.shape, strides, tensor.dtype)


def is_plain(tensor: torch.Tensor) -> TypeGuard[FakeTensor]:
    """Whether it is a fake on the CPU and nothing more."""
    return type(tensor) is FakeTensor and tensor.fake_device == _CPU
