"""What a call of a quantised linear layer allocates on CUDA, storage by storage, and which products it makes.

Each function follows its library's code in eager mode. `launch` is one kernel that writes a new tensor, `_product` one that
multiplies by weights which stay packed; it counts at the rate of what it is given, activations or what they were quantised to.

Left out, because they depend on values: columns of outliers in LLM.int8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch.utils.flop_counter import register_flop_formula

__all__ = ["Kernel", "Layer", "launch", "quanto_group"]


class Layer(torch.nn.Module):
    """What a kernel needs of the layer."""

    packed: torch.nn.Parameter
    statistics: torch.nn.Parameter
    bias: torch.nn.Parameter | None
    in_features: int
    out_features: int
    compute_dtype: torch.dtype


Kernel = Callable[[Layer, torch.Tensor], torch.Tensor]

_LIBRARY = torch.library.Library("autotune", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("launch(Tensor[] reads, SymInt[] shape, ScalarType dtype) -> Tensor")  # type: ignore[no-untyped-call]
for _name in ("matmul", "matmul_int4"):
    _LIBRARY.define(  # type: ignore[no-untyped-call]
        f"{_name}(Tensor x, Tensor[] reads, SymInt out_features, ScalarType dtype) -> Tensor"
    )


@torch.library.register_fake("autotune::launch", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _launch(reads: Sequence[torch.Tensor], shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    return reads[0].new_empty(shape, dtype=dtype)


@torch.library.register_fake("autotune::matmul", lib=_LIBRARY)  # type: ignore[untyped-decorator]
@torch.library.register_fake("autotune::matmul_int4", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _matmul(x: torch.Tensor, _: Sequence[torch.Tensor], out_features: int, dtype: torch.dtype) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], out_features), dtype=dtype)


@register_flop_formula([torch.ops.autotune.matmul, torch.ops.autotune.matmul_int4])
def _matmul_flops(x: Sequence[int], _: Any, out_features: int, *__: Any, **___: Any) -> int:
    return 2 * prod(x) * out_features


def launch(reads: Sequence[torch.Tensor], shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A kernel that reads these tensors and writes a new one."""
    made: torch.Tensor = torch.ops.autotune.launch(reads, shape, dtype)
    return made


def _product(
    layer: Layer, x: torch.Tensor, also: Sequence[torch.Tensor] = (), dtype: torch.dtype | None = None
) -> torch.Tensor:
    """A kernel that multiplies activations, or what they were quantised to, by the packed weights; it may read more."""
    reads = (*also, layer.packed, layer.statistics)
    made: torch.Tensor = torch.ops.autotune.matmul(x, reads, layer.out_features, dtype or x.dtype)
    return made


def _tinygemm(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """`_weight_int4pack_mm`: weights are unpacked again for every 16 rows of the activations."""
    made: torch.Tensor = torch.ops.autotune.matmul_int4(
        x, (layer.packed, layer.statistics), layer.out_features, x.dtype
    )
    return made


def bitsandbytes_4bit(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """nn/modules.py Linear4bit.forward, backends/cuda/ops.py `_dequant_linear_fallback`. A single row goes to the fused
    kernel in every version; from 0.50 some more rows do, how many depends on the card."""
    inputs = x.to(layer.compute_dtype)
    if _rows(x) == 1:
        return _product(layer, inputs).to(x.dtype)
    weight = launch((layer.packed, layer.statistics), _shape(layer), inputs.dtype)
    return F.linear(inputs, weight, _bias(layer)).to(x.dtype)


def bitsandbytes_4bit_double(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """The same after absmax has been de-quantised and its offset been added: one float32 per 64 weights, twice."""
    if _rows(x) == 1:
        return bitsandbytes_4bit(layer, x)
    blocks = (-(-layer.in_features * layer.out_features // 64),)
    absmax = launch((layer.statistics,), blocks, torch.float32)
    absmax = launch((absmax,), blocks, torch.float32)
    return bitsandbytes_4bit(layer, x)


def bitsandbytes_int8(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """autograd/_functions.py MatMul8bitLt.forward; backends/cuda/ops.py `int8_vectorwise_quant` at a threshold above 0,
    `int8_linear_matmul`, `int8_mm_dequant`, whose output is float16 whatever comes in. The product counts at half precision's
    rate, which the one published timing is nearer to than to int8's."""
    rows = x.reshape(-1, layer.in_features)
    quantized = _int8_rows(rows.to(torch.float16))
    sums = _product(layer, rows, (quantized,), torch.int32)
    out = launch((sums, layer.statistics), sums.shape, torch.float16)
    del sums
    if layer.bias is not None:
        out.add_(layer.bias)
    return out.to(x.dtype).reshape(*x.shape[:-1], layer.out_features)


def _int8_rows(rows: torch.Tensor) -> torch.Tensor:
    quantized = launch((rows,), rows.shape, torch.int8)
    outliers = rows.abs() >= 6.0  # `llm_int8_threshold`
    outliers.any()
    return quantized


def torchao_int8(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """int8_tensor.py, weight only: the weight is cast and not scaled, the product is."""
    weight = launch((layer.packed,), _shape(layer), x.dtype)
    product = F.linear(x, weight)
    del weight
    scaled = launch((product, layer.statistics), product.shape, x.dtype)
    return scaled if layer.bias is None else scaled.add_(layer.bias)


def torchao_int8_dynamic(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """int8_tensor.py with `act_quant_kwargs`: quant_primitives.py `_quantize_affine_no_dtype_cast` scales, rounds, shifts and
    clamps in float32; kernel/intmm.py `int_scaled_matmul`; the second scale makes float32 of it once more."""
    quantized = x
    for _ in ("scale", "round", "shift", "clamp"):
        quantized = launch((quantized,), x.shape, torch.float32)
    quantized = launch((quantized,), x.shape, torch.int8)
    scaled = _product(layer, quantized, dtype=torch.int32)
    scaled = launch((scaled,), scaled.shape, torch.float32)
    scaled = launch((scaled,), scaled.shape, x.dtype)
    out = launch((scaled, layer.statistics), scaled.shape, torch.float32)
    if layer.bias is not None:
        out.add_(layer.bias)
    return out.to(x.dtype)


def torchao_int4(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """int4_tensor.py and int4_tile_packed_to_4d_tensor.py: one fused kernel, the bias is added in place."""
    out = _tinygemm(layer, x)
    return out if layer.bias is None else out.add_(layer.bias)


def torchao_float8(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """float8_tensor.py `_float8_addmm_impl`, quant_primitives.py `_dequantize_affine_float8`: the whole weight in float32,
    times its scale, then in the compute dtype; up to 10 bytes per weight at once."""
    out = F.linear(x, _float8_weight(layer))
    return out if layer.bias is None else out + layer.bias


def _float8_weight(layer: Layer) -> torch.Tensor:
    cast = launch((layer.packed,), _shape(layer), torch.float32)
    scaled = launch((cast, layer.statistics), _shape(layer), torch.float32)
    return scaled.to(layer.compute_dtype)


def torchao_float8_dynamic(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """float8_tensor.py with `act_quant_kwargs`, then `torch._scaled_mm`, which adds the bias."""
    return _product(layer, _float8_activations(x), dtype=x.dtype)


def _float8_activations(x: torch.Tensor) -> torch.Tensor:
    """quant_primitives.py `_choose_scale_float8`, `_quantize_affine_float8`: its locals live until it returns."""
    x.abs().amax()
    cast = x.to(torch.float32)
    scaled = launch((cast,), x.shape, torch.float32)
    clamped = launch((scaled,), x.shape, torch.float32)
    return launch((clamped,), x.shape, torch.float8_e4m3fn)


def quanto_int8(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """library/qbytes_mm.py `qbytes_mm`: int8 times scale is the weight."""
    return _quanto_product(
        layer, x, lambda: launch((layer.packed, layer.statistics), _shape(layer), layer.compute_dtype)
    )


def quanto_float8(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """tensor/weights/qbytes.py `WeightQBytesTensor.create`: Marlin's fused kernel on cards from compute capability 8.0 where
    the features allow; it adds no bias. Else `qbytes_mm`, which casts the weight before it scales it."""
    sizes = layer.in_features, layer.out_features
    half = layer.compute_dtype in {torch.float16, torch.bfloat16}
    if half and min(sizes) >= 64 and all(size % 64 == 0 for size in sizes) and any(size % 128 == 0 for size in sizes):
        return _product(layer, x)
    return _quanto_product(layer, x, lambda: _quanto_float8_weight(layer))


def _quanto_float8_weight(layer: Layer) -> torch.Tensor:
    cast = launch((layer.packed,), _shape(layer), layer.compute_dtype)
    return launch((cast, layer.statistics), _shape(layer), layer.compute_dtype)


def quanto_group(in_features: int) -> int:
    """nn/qmodule.py `QModuleMixin.__init__`: weights that share a scale in qint4 and qint2; a row where no group fits."""
    sizes = (size for size in (128, 96, 64, 32) if in_features > 128 and in_features % size == 0)
    return next(sizes, in_features)


def quanto_int4(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """tensor/weights/qbits.py `WeightQBitsTensor.create`: tinygemm's fused kernel on cards from compute capability 8.0 for
    bfloat16 in groups of 128."""
    if layer.compute_dtype != torch.bfloat16 or quanto_group(layer.in_features) != 128:
        return _quanto_product(layer, x, lambda: _quanto_unpacked(layer, 2))
    out = _tinygemm(layer, x)
    return out if layer.bias is None else out + layer.bias


def quanto_int2(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """No fused kernel."""
    return _quanto_product(layer, x, lambda: _quanto_unpacked(layer, 4))


def _quanto_unpacked(layer: Layer, values_per_byte: int) -> torch.Tensor:
    """library/unpack.py makes a byte of each weight, in pieces and then in one; tensor/qbits.py `QBitsDequantizer` scales."""
    pieces = [layer.packed.bitwise_and(15) >> 2 for _ in range(values_per_byte)]
    values = torch.cat(pieces)
    del pieces
    return launch((values, layer.statistics), _shape(layer), layer.compute_dtype)


def _quanto_product(layer: Layer, x: torch.Tensor, weight: Callable[[], torch.Tensor]) -> torch.Tensor:
    """The weight is gone before the bias makes a second output."""
    out = F.linear(x.to(layer.compute_dtype), weight())
    return out if layer.bias is None else out + layer.bias


def _shape(layer: Layer) -> tuple[int, int]:
    return layer.out_features, layer.in_features


def _rows(x: torch.Tensor) -> int:
    return x.numel() // x.shape[-1]


def _bias(layer: Layer) -> torch.Tensor | None:
    return None if layer.bias is None else layer.bias.to(layer.compute_dtype)
