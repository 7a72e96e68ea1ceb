"""How each quantisation scheme stores a linear layer, read off the libraries' sources.

bitsandbytes 0.50, torchao 0.18, optimum-quanto 0.2.7, diffusers 0.42 for GGUF. What a call allocates is in `kernels.py` and
`ggml.py`. Every scheme replaces all `nn.Linear` whose features are multiples of `multiples`; the rest stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from autotune.trace import ggml, kernels

__all__ = ["SCHEMES", "Scheme", "stored_bytes"]

_UINT8, _FLOAT32 = torch.uint8, torch.float32


class Scheme(NamedTuple):
    """How a layer is stored and called; None for a dtype is the compute dtype."""

    block: int
    """Weights that are packed together,"""
    block_bytes: int
    """and the bytes they take."""
    statistics: tuple[tuple[Callable[[int], int], torch.dtype | None], ...]
    """Scales and zero points: weights that share one, by the layer's input features, and its dtype."""
    layer_bytes: int
    """Once per layer: code books, scales of activations."""
    kernel: kernels.Kernel
    weight_dtype: torch.dtype | None
    """What `layer.weight.dtype` says to the model's code."""
    multiples: tuple[int, int] = (1, 1)
    """What input and output features have to be multiples of."""


def stored_bytes(scheme: Scheme, in_features: int, out_features: int, compute_dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the packed weights, and of everything that is needed to unpack them."""
    weights = in_features * out_features
    counts = ((-(-weights // every(in_features)), dtype or compute_dtype) for every, dtype in scheme.statistics)
    statistics_bytes = sum(count * dtype.itemsize for count, dtype in counts)
    return -(-weights // scheme.block) * scheme.block_bytes, statistics_bytes + scheme.layer_bytes


def _per(weights: int) -> Callable[[int], int]:
    return lambda _: weights


def _row(in_features: int) -> int:
    return in_features


def _bitsandbytes_4bit() -> Scheme:
    """functional.py `quantize_4bit` at blocksize 64: absmax per block; `get_4bit_type`: a code book of 16."""
    return Scheme(2, 1, ((_per(64), _FLOAT32),), 16 * 4, kernels.bitsandbytes_4bit, _UINT8)


def _bitsandbytes_4bit_double() -> Scheme:
    """The same with `compress_statistics`: absmax in 8 bits, in blocks of 256 with a code book of 256 and one offset."""
    statistics = ((_per(64), _UINT8), (_per(64 * 256), _FLOAT32))
    return Scheme(2, 1, statistics, 16 * 4 + 256 * 4 + 4, kernels.bitsandbytes_4bit_double, _UINT8)


def _torchao_int8(kernel: kernels.Kernel) -> Scheme:
    """int8_tensor.py `from_hp` per row: scale float32, zero point int8."""
    return Scheme(1, 1, ((_row, _FLOAT32), (_row, torch.int8)), 0, kernel, None)


def _quanto_bits(bits: int, kernel: kernels.Kernel) -> Scheme:
    """tensor/weights/qbits.py: scale and shift per group; nn/qmodule.py: `input_scale` and `output_scale`."""
    return Scheme(8 // bits, 1, ((kernels.quanto_group, None), (kernels.quanto_group, None)), 2 * 2, kernel, None)


def _gguf(block: int, block_bytes: int, dequantize: ggml.Dequantize) -> Scheme:
    """GGML_QUANT_SIZES: a block holds its scales. Rows that blocks do not fill, llama.cpp leaves unquantised."""
    return Scheme(block, block_bytes, (), 0, ggml.linear(block_bytes, dequantize), _UINT8, (block, 1))


SCHEMES: dict[str, Scheme] = {
    "bitsandbytes-nf4": _bitsandbytes_4bit(),
    "bitsandbytes-fp4": _bitsandbytes_4bit(),
    "bitsandbytes-nf4-double": _bitsandbytes_4bit_double(),
    "bitsandbytes-fp4-double": _bitsandbytes_4bit_double(),
    # nn/modules.py Int8Params._quantize: CB int8, SCB float32 per row
    "bitsandbytes-int8": Scheme(1, 1, ((_row, _FLOAT32),), 0, kernels.bitsandbytes_int8, torch.int8),
    "torchao-int8wo": _torchao_int8(kernels.torchao_int8),
    "torchao-int8dq": _torchao_int8(kernels.torchao_int8_dynamic),
    # quant_api.py Int4WeightOnlyConfig: groups of 128, scale and zero point bfloat16; other layers are skipped
    "torchao-int4wo": Scheme(2, 1, ((_per(128), None), (_per(128), None)), 0, kernels.torchao_int4, None, (128, 1)),
    # quant_api.py Float8WeightOnlyConfig: scale float32 per row
    "torchao-float8wo": Scheme(1, 1, ((_row, _FLOAT32),), 0, kernels.torchao_float8, None),
    # quant_api.py Float8DynamicActivationFloat8WeightConfig: one scale; `_fp8_mm_compat`: multiples of 16
    "torchao-float8dq": Scheme(1, 1, (), 4, kernels.torchao_float8_dynamic, None, (16, 16)),
    # tensor/weights/qbytes.py: scale per row; marlin/fp8/qbits.py: 16 int32 of workspace per 64 rows
    "quanto-int8": Scheme(1, 1, ((_row, None),), 2 * 2, kernels.quanto_int8, None),
    "quanto-float8": Scheme(1, 1, ((_row, None), (_row, _UINT8)), 2 * 2, kernels.quanto_float8, None),
    "quanto-int4": _quanto_bits(4, kernels.quanto_int4),
    "quanto-int2": _quanto_bits(2, kernels.quanto_int2),
    "gguf-q2_k": _gguf(256, 84, ggml.q2_k),
    "gguf-q3_k": _gguf(256, 110, ggml.q3_k),
    "gguf-q4_0": _gguf(32, 18, ggml.q4_0),
    "gguf-q4_1": _gguf(32, 20, ggml.q4_1),
    "gguf-q4_k": _gguf(256, 144, ggml.q4_k),
    "gguf-q5_0": _gguf(32, 22, ggml.q5_0),
    "gguf-q5_1": _gguf(32, 24, ggml.q5_1),
    "gguf-q5_k": _gguf(256, 176, ggml.q5_k),
    "gguf-q6_k": _gguf(256, 210, ggml.q6_k),
    "gguf-q8_0": _gguf(32, 34, ggml.q8_0),
    "gguf-bf16": _gguf(1, 2, ggml.bf16),
}
