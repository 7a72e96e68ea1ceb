"""What `GGUFLinear` allocates to de-quantise its weight: diffusers/quantizers/gguf/utils.py, storage by storage.

Each function takes blocks of bytes, `(blocks, bytes per block)`, and leaves the weight in float16 as `dequantize_blocks_*` of
the same name does, in the same steps: of most types several bytes per weight live at once. The CUDA kernels that diffusers
offers behind DIFFUSERS_GGUF_CUDA_KERNELS are not followed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere

from autotune.trace.kernels import Kernel, Layer

__all__ = ["Dequantize", "linear"]

Dequantize = Callable[[torch.Tensor], torch.Tensor]

_INT8, _INT32 = torch.int8, torch.int32


def linear(block_bytes: int, dequantize: Dequantize) -> Kernel:
    """`GGUFLinear.forward_native` for a block format."""

    def forward(layer: Layer, x: torch.Tensor) -> torch.Tensor:
        weight = dequantize(layer.packed.view(-1, block_bytes)).reshape(layer.out_features, layer.in_features)
        weight = weight.to(layer.compute_dtype)
        bias = None if layer.bias is None else layer.bias.to(layer.compute_dtype)
        return F.linear(x, weight, bias)

    return forward


def _halves(blocks: torch.Tensor, start: int) -> torch.Tensor:
    """The float16 that each block holds there."""
    return blocks[:, start : start + 2].view(torch.float16)


def _shifted(packed: torch.Tensor, width: int, shifts: int) -> torch.Tensor:
    """The bytes shifted by each of so many shifts, in groups of `width`: a new byte per value."""
    by = torch.empty(shifts, dtype=torch.uint8, device=packed.device).reshape(1, 1, shifts, 1)
    return packed.reshape((len(packed), -1, 1, width)) >> by


def q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return _halves(blocks, 0) * blocks[:, 2:].view(_INT8)


def q4_0(blocks: torch.Tensor) -> torch.Tensor:
    q = _shifted(blocks[:, 2:], 16, 2)
    q = (q & 15).reshape((len(blocks), -1)).to(_INT8) - 8
    return _halves(blocks, 0) * q


def q4_1(blocks: torch.Tensor) -> torch.Tensor:
    q = _shifted(blocks[:, 4:], 16, 2)
    q = (q & 15).reshape((len(blocks), -1))
    return (_halves(blocks, 0) * q) + _halves(blocks, 2)


def _fifth_bits(words: torch.Tensor) -> torch.Tensor:
    """`to_uint32`, then each of its bits as an int32."""
    wide = words.to(_INT32)
    wide = (wide[:, 0] | wide[:, 1] << 8 | wide[:, 2] << 16 | wide[:, 3] << 24).unsqueeze(1)
    return wide.reshape((len(words), 1)) >> torch.empty(32, dtype=_INT32, device=words.device).reshape(1, 32)


def q5_0(blocks: torch.Tensor) -> torch.Tensor:
    high = _fifth_bits(blocks[:, 2:6])
    low = _shifted(blocks[:, 6:], 16, 2)
    high = (high & 1).to(torch.uint8)
    low = (low & 15).reshape(len(blocks), -1)
    q = (low | (high << 4)).to(_INT8) - 16
    return _halves(blocks, 0) * q


def q5_1(blocks: torch.Tensor) -> torch.Tensor:
    high = _fifth_bits(blocks[:, 4:8])
    low = _shifted(blocks[:, 8:], 16, 2)
    high = (high & 1).to(torch.uint8)
    low = (low & 15).reshape(len(blocks), -1)
    q = low | (high << 4)
    return (_halves(blocks, 0) * q) + _halves(blocks, 2)


def q2_k(blocks: torch.Tensor) -> torch.Tensor:
    count, scales = len(blocks), blocks[:, :16]
    d = (_halves(blocks, 80) * (scales & 15)).reshape((count, 16, 1))
    m = (_halves(blocks, 82) * (scales >> 4)).reshape((count, 16, 1))
    q = _shifted(blocks[:, 16:80], 32, 4) & 3
    q = q.reshape((count, 16, 16))
    return (d * q - m).reshape((count, -1))


def q3_k(blocks: torch.Tensor) -> torch.Tensor:
    count, scales = len(blocks), blocks[:, 96:108]
    low_scales = _shifted(scales[:, :8], 8, 2).reshape((count, 16))
    high_scales = _shifted(scales[:, 8:], 4, 4).reshape((count, 16))
    scales = (low_scales & 15) | ((high_scales & 3) << 4)
    scales = scales.to(_INT8) - 32
    d = (_halves(blocks, 108) * scales).reshape((count, 16, 1))
    low = _shifted(blocks[:, 32:96], 32, 4)
    high = _shifted(blocks[:, :32], 32, 8)
    low = low.reshape((count, 16, 16)) & 3
    high = (high.reshape((count, 16, 16)) & 1) ^ 1
    q = low.to(_INT8) - (high << 2).to(_INT8)
    return (d * q).reshape((count, 256))


def _scale_min(scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`get_scale_min`: eight scales and eight minima of 6 bits."""
    count = len(scales)
    d, m, both = torch.split(scales.reshape((count, 3, 4)), 1, dim=-2)
    sc = torch.cat([d & 63, (both & 15) | ((d >> 2) & 48)], dim=-1)
    minima = torch.cat([m & 63, (both >> 4) | ((m >> 2) & 48)], dim=-1)
    return sc.reshape((count, 8)), minima.reshape((count, 8))


def q4_k(blocks: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    scales, minima = _scale_min(blocks[:, 4:16])
    d = (_halves(blocks, 0) * scales).reshape((count, -1, 1))
    m = (_halves(blocks, 2) * minima).reshape((count, -1, 1))
    q = _shifted(blocks[:, 16:], 32, 2)
    q = (q & 15).reshape((count, -1, 32))
    return (d * q - m).reshape((count, 256))


def q5_k(blocks: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    scales, minima = _scale_min(blocks[:, 4:16])
    d = (_halves(blocks, 0) * scales).reshape((count, -1, 1))
    m = (_halves(blocks, 2) * minima).reshape((count, -1, 1))
    low = _shifted(blocks[:, 48:], 32, 2)
    high = _shifted(blocks[:, 16:48], 32, 8)
    low = (low & 15).reshape((count, -1, 32))
    high = (high & 1).reshape((count, -1, 32))
    q = low | (high << 4)
    return (d * q - m).reshape((count, 256))


def q6_k(blocks: torch.Tensor) -> torch.Tensor:
    count = len(blocks)
    d = (_halves(blocks, 208) * blocks[:, 192:208].view(_INT8)).reshape((count, 16, 1))
    low = _shifted(blocks[:, :128], 64, 2)
    low = (low & 15).reshape((count, -1, 32))
    high = _shifted(blocks[:, 128:192], 32, 4)
    high = (high & 3).reshape((count, -1, 32))
    q = (low | (high << 4)).to(_INT8) - 32
    q = q.reshape((count, 16, -1))
    return (d * q).reshape((count, 256))


def bf16(blocks: torch.Tensor) -> torch.Tensor:
    return (blocks.view(torch.int16).to(_INT32) << 16).view(torch.float32)
