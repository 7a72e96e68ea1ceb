"""What the operators that networks are made of give for fakes, without torch's way through Python.

torch's fakes answer for every operator there is, in 0.5 to 7 ms where they have not met its arguments before. Views and
operators by element are their meta kernels' to answer, in C++; convolutions, norms and a matrix product with a bias have none,
and give what their names say. Only plain cases are answered; for all others, and for operators that are not named, it is None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from autotune.upstream.fakes import by_meta_kernel, made, no_dispatch

__all__ = ["given"]

_aten = torch.ops.aten
_BY_KERNEL = {
    _aten.view.default, _aten._unsafe_view.default, _aten.t.default, _aten.transpose.int, _aten.permute.default,
    _aten.slice.Tensor, _aten.select.int, _aten.expand.default, _aten.unsqueeze.default, _aten.split.Tensor,
    _aten.silu.default, _aten.gelu.default, _aten.mm.default, _aten.bmm.default,
    _aten.neg.default, _aten.sigmoid.default, _aten.cos.default, _aten.sin.default, _aten.tanh.default,
    _aten.clone.default, _aten.upsample_nearest2d.default, _aten.unbind.int, _aten.split_with_sizes.default,
    _aten.pow.Tensor_Scalar, _aten.rsqrt.default, _aten.mean.dim, _aten.exp.default, _aten._softmax.default,
}  # fmt: skip
_OF_SEVERAL = {_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor, _aten.cat.default}


def given(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], fakes: Sequence[FakeTensor]) -> Any:
    """What the operator gives; None where that is not known here.

    Args:
        func: an aten operator.
        args: its arguments.
        kwargs: those by name.
        fakes: all fakes among them, on the CPU.
    """
    if func in _BY_KERNEL or (func in _OF_SEVERAL and _same(fakes)):
        return by_meta_kernel(func, args, kwargs, fakes[0].fake_mode)
    rule = _RULES.get(func)
    return rule(*args) if rule is not None and not kwargs else None


def _same(fakes: Sequence[FakeTensor]) -> bool:
    """Whether no type has to be promoted: a tensor of no dimension is a number to some kernels."""
    return all(fake.dtype == fakes[0].dtype and fake.dim() for fake in fakes)


def _addmm(bias: FakeTensor, left: FakeTensor, right: FakeTensor) -> Any:
    if not (bias.dtype == left.dtype == right.dtype and bias.dim() == 1 and left.dim() == right.dim() == 2):
        return None
    rows, columns = left.shape[0], right.shape[1]
    if bias.shape[0] != columns or left.shape[1] != right.shape[0]:
        return None
    return _new(left, (rows, columns))


def _layer_norm(image: FakeTensor, shape: Sequence[int], weight: Any, bias: Any, _: float) -> Any:
    if not _alike(image, weight, bias) or image.shape[-1:] != tuple(shape) or not _fitting(shape, weight, bias):
        return None
    statistics = (*image.shape[:-1], 1)
    return _new(image, image.shape), *(_new(image, statistics) for _ in range(2))


def _group_norm(
    image: FakeTensor, weight: Any, bias: Any, samples: int, channels: int, _: int, groups: int, __: float
) -> Any:
    last = _order(image) is _LAST and weight is not None and samples > 1
    if not _alike(image, weight, bias) or not (image.is_contiguous() or last):
        return None
    if channels % groups or image.shape[:2] != (samples, channels) or not _fitting([channels], weight, bias):
        return None
    statistics = (_new(image, (samples, groups)) for _ in range(2))
    return _new(image, image.shape, last=last), *statistics


def _convolution(
    image: FakeTensor,
    weight: FakeTensor,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _: Sequence[int],
    groups: int,
) -> Any:
    dims = image.dim() - 2
    orders = {_order(image), _order(weight)}
    if not _alike(image, weight, bias) or None in orders or dims not in {2, 3} or transposed:
        return None
    if not _fitting(weight.shape[:1], bias):
        return None
    if weight.dim() != image.dim() or image.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        return None
    ways = (_spread(one, dims) for one in (stride, padding, dilation))
    shape = [
        (size + 2 * pad - step * (kernel - 1) - 1) // jump + 1
        for size, kernel, jump, pad, step in zip(image.shape[2:], weight.shape[2:], *ways, strict=True)
    ]
    if min(shape) <= 0:
        return None
    return _new(image, (image.shape[0], weight.shape[0], *shape), last=_LAST in orders)


def _spread(values: Sequence[int], dims: int) -> Sequence[int]:
    """One for each axis: a single value is for all."""
    return values if len(values) == dims else [*values] * dims


def _fitting(shape: Sequence[int], *parameters: FakeTensor | None) -> bool:
    return all(one is None or tuple(one.shape) == tuple(shape) for one in parameters)


def _alike(image: FakeTensor, *parameters: FakeTensor | None) -> bool:
    """Whether all have one type, and there is something to compute."""
    same = all(one is None or one.dtype == image.dtype for one in parameters)
    return same and image.dtype.is_floating_point and image.numel() > 0


_FIRST, _LAST = torch.contiguous_format, torch.channels_last


def _order(tensor: FakeTensor) -> torch.memory_format | None:
    """How its axes lie in memory, where that is one order and no other: an axis of one element may be in two at once."""
    stride, shape = tensor.stride(), tensor.shape
    if stride == _strides(shape):
        return _FIRST
    plain = tensor.dim() == 4 and min(shape[1:]) > 1 and stride == _last_strides(shape)
    return _LAST if plain else None


def _new(like: FakeTensor, shape: Sequence[int], *, last: bool = False) -> torch.Tensor:
    with no_dispatch():
        return made(like.fake_mode, tuple(shape), _last_strides(shape) if last else _strides(shape), like.dtype)


def _last_strides(shape: Sequence[int]) -> tuple[int, ...]:
    _, channels, height, width = shape
    return (channels * height * width, 1, channels * width, channels)


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    steps = [1]
    for size in reversed(shape[1:]):
        steps.append(steps[-1] * max(size, 1))
    return tuple(reversed(steps))


_RULES: dict[Any, Callable[..., Any]] = {
    _aten.addmm.default: _addmm,
    _aten.convolution.default: _convolution,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.native_group_norm.default: _group_norm,
}
