"""Pieces of work of the sizes that diffusion models have, from small to large, made where they are measured.

Operands are random: a card that multiplies zeros draws less power and runs faster than it ever will. It does not know how
long anything takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

__all__ = ["Work", "attentions", "convolutions", "copies", "moves", "norms", "pointwise", "products"]

# Rows, inner and outer edge: one that only costs its call, an attention's projections in SD 1.5's deeper blocks, the
# feed-forward of SDXL's largest (4096 tokens of 1280 channels), and that of FLUX.
_PRODUCTS = ((64, 64, 64), (256, 320, 320), (1024, 640, 640), (4096, 1280, 5120), (8192, 3072, 12288))
# Batch, channels and edge: two small ones, SD 1.5's UNet at 512 pixels with guidance, SDXL's at 1024.
_CONVOLUTIONS = ((1, 64, 16), (1, 320, 16), (2, 320, 64), (2, 640, 64))
_KERNEL = 3
# Batch, heads, tokens and head size: a small one, SDXL's second block, FLUX's with fewer heads. No kernel fills up these sizes.
_ATTENTIONS = ((2, 8, 1024, 64), (2, 10, 4096, 64), (1, 10, 4096, 128))
_WRITTEN_OUT = _ATTENTIONS[:1]  # scores of 4096 tokens would take gigabytes
_CPU_SOFTMAX = 9  # elements of a head that a softmax takes as long as, counted alike in simulate/attention.py
# Edges of activations with a batch of 2 and 320 channels: the outermost block of SD 1.5 at 512 pixels, of SDXL at 1024. The
# CPU has the first alone: in fp32 the second is beyond 32 MiB, glibc's largest block that is not given back to the system
# (M_MMAP_THRESHOLD in mallopt(3)), and what would be timed is the kernel clearing pages.
_BATCH, _CHANNELS, _EDGES = 2, 320, (64, 128)
_GROUPS = 32
_MOVED_BYTES = (
    64 * 2**20
)  # a layer of a large model: beyond 32 MiB, glibc gives a block back to the system and gets a new one
_REUSED = 16  # tensors of so many bytes together, each of which gets memory that another has left
_ITEM_BYTES = {"float8": 1, "float16": 2, "bfloat16": 2}  # float32 and TF32: 4

Call = Callable[[], object]


class Work(NamedTuple):
    """One call that can be made, and how much it does."""

    amount: float
    """FLOP, or bytes read and written."""
    needed_bytes: int
    """What its operands and results take."""
    make: Callable[[], Call]
    """Makes the operands and gives the call."""


def products(device: str, mode: str) -> Iterator[Work]:
    """Linear layers with a bias. `mode` is a dtype, "tf32" (a setting, which is not made here) or "float8".

    >>> next(products("cpu", "float32")).amount
    524288.0
    """
    for rows, inner, outer in _PRODUCTS:
        numbers = rows * inner + outer * inner + rows * outer
        make = partial(_scaled if mode == "float8" else _linear, device, mode, rows, inner, outer)
        yield Work(2.0 * rows * inner * outer, numbers * _item_bytes(mode), make)


def convolutions(device: str, mode: str, *, channels_last: bool) -> Iterator[Work]:
    """3x3 convolutions that keep the size, in either order."""
    for batch, channels, edge in _CONVOLUTIONS:
        numbers = 2 * batch * channels * edge**2 + (channels * _KERNEL) ** 2
        make = partial(_convolution, device, mode, batch, channels, edge, channels_last)
        yield Work(2.0 * batch * (channels * edge * _KERNEL) ** 2, numbers * _item_bytes(mode), make)


def attentions(device: str, mode: str, kernel: str) -> Iterator[Work]:
    """Attention of a sequence to itself by "flash", "efficient" or "math"; "cpu" is the CPU's only one."""
    for batch, heads, tokens, head_dim in _WRITTEN_OUT if kernel == "math" else _ATTENTIONS:
        numbers = 4 * batch * heads * tokens * head_dim
        numbers += 4 * batch * heads * tokens**2 if kernel == "math" else 0  # scores in fp32, and their softmax
        make = partial(_attention, device, mode, kernel, (batch, heads, tokens, head_dim))
        counted = head_dim + (_CPU_SOFTMAX if kernel == "cpu" else 0)
        yield Work(4.0 * batch * heads * tokens**2 * counted, numbers * _item_bytes(mode), make)


def pointwise(device: str, mode: str) -> Iterator[Work]:
    """An activation, and a sum of two."""
    import torch

    yield from _streams(
        device,
        mode,
        (2, lambda image: partial(torch.nn.functional.silu, image)),
        (3, lambda image: partial(torch.add, image, image.clone())),
    )


def norms(device: str, mode: str) -> Iterator[Work]:
    """Over groups of channels, over the channels of a token, and a softmax."""
    import torch

    yield from _streams(
        device,
        mode,
        (2, lambda image: partial(torch.nn.functional.group_norm, image, _GROUPS)),
        (2, lambda image: partial(torch.nn.functional.layer_norm, _tokens(image), (_CHANNELS,))),
        (2, lambda image: partial(torch.softmax, _tokens(image), -1)),
    )


def copies(device: str, mode: str) -> Iterator[Work]:
    """Pixels to tokens, and channels put together."""
    import torch

    yield from _streams(
        device,
        mode,
        (2, lambda image: image.flatten(2).mT.contiguous),
        (4, lambda image: partial(torch.cat, (image, image.clone()), 1)),
    )


def moves(device: str, way: str) -> Iterator[Work]:
    """A block of weights: to the card from "pinned" or "pageable" memory, or "back" to new memory or "reused"."""
    yield Work(float(_MOVED_BYTES), _MOVED_BYTES, partial(_move, device, way))


def _move(device: str, way: str) -> Call:
    import torch

    here = torch.ones(_MOVED_BYTES, dtype=torch.uint8)
    if way == "pageable":
        return partial(here.to, device)
    there = here.to(device)
    if way == "reused":
        return lambda: [part.to("cpu") for part in there.chunk(_REUSED)]
    return partial(there.to, "cpu") if way == "back" else partial(there.copy_, here.pin_memory(), non_blocking=True)


def _streams(device: str, mode: str, *kinds: tuple[int, Callable[[torch.Tensor], Call]]) -> Iterator[Work]:
    """Calls that read and write an image so many times, for each size."""
    for edge in _EDGES[:1] if device == "cpu" else _EDGES:
        shape = (_BATCH, _CHANNELS, edge, edge)
        image_bytes = _BATCH * _CHANNELS * edge**2 * _item_bytes(mode)
        for passes, call in kinds:
            make = partial(lambda call, shape: call(_random(device, mode, *shape)), call, shape)
            yield Work(float(passes * image_bytes), passes * image_bytes, make)


def _linear(device: str, mode: str, rows: int, inner: int, outer: int) -> Call:
    import torch

    tokens, weight = _random(device, mode, rows, inner), _random(device, mode, outer, inner)
    return partial(torch.nn.functional.linear, tokens, weight, _random(device, mode, outer))


def _scaled(device: str, _mode: str, rows: int, inner: int, outer: int) -> Call:
    import torch

    half = (_random(device, "bfloat16", *shape) for shape in ((rows, inner), (outer, inner)))
    tokens, weight = (matrix.to(torch.float8_e4m3fn) for matrix in half)
    one = torch.ones((), device=device)
    return partial(torch._scaled_mm, tokens, weight.t(), one, one, out_dtype=torch.bfloat16)


def _convolution(device: str, mode: str, batch: int, channels: int, edge: int, channels_last: bool) -> Call:
    import torch

    order = torch.channels_last if channels_last else torch.contiguous_format
    image, weight = (
        _random(device, mode, *shape).contiguous(memory_format=order)
        for shape in ((batch, channels, edge, edge), (channels, channels, _KERNEL, _KERNEL))
    )
    bias = _random(device, mode, channels)
    return partial(torch.nn.functional.conv2d, image, weight, bias, padding=_KERNEL // 2)


def _attention(device: str, mode: str, kernel: str, shape: tuple[int, int, int, int]) -> Call:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    batch, heads, tokens, head_dim = shape
    query, key, value = (_random(device, mode, batch, tokens, heads, head_dim).transpose(1, 2) for _ in range(3))
    attend = partial(torch.nn.functional.scaled_dot_product_attention, query, key, value)
    if kernel == "cpu":
        return attend
    backends: dict[str, Any] = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "math": SDPBackend.MATH,
    }

    def by_that_kernel() -> object:
        with sdpa_kernel(backends[kernel]):
            return attend()

    return by_that_kernel


def _tokens(image: torch.Tensor) -> torch.Tensor:
    return image.flatten(2).mT.contiguous()


def _random(device: str, mode: str, *shape: int) -> torch.Tensor:
    import torch

    return torch.randn(shape, dtype=getattr(torch, "float32" if mode == "tf32" else mode), device=device)


def _item_bytes(mode: str) -> int:
    return _ITEM_BYTES.get(mode, 4)
