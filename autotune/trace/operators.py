"""What a kernel is: its class, its FLOPs, the bytes it moves. Decided once per operator, applied per call."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry

from autotune.records.trace import DTYPES, OpClass

__all__ = ["OpKind", "dtype_code", "op_kind"]

_DTYPES = {
    torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64",
    torch.float8_e4m3fn: "float8", torch.int8: "int8",
}  # fmt: skip

_FORMATS = {"matmul_int4": "int4"}

_GEMM = {"mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "addmv", "mv", "dot", "_scaled_mm", "_int_mm", *_FORMATS}
_NORM = {
    "native_layer_norm", "native_group_norm", "_fused_rms_norm", "rms_norm", "_softmax", "_log_softmax", "mean", "var",
    "var_mean", "std", "sum", "amax", "amin", "linalg_vector_norm", "norm", "_safe_softmax", "native_batch_norm",
}  # fmt: skip
_COPY = {
    "copy_", "clone", "cat", "stack", "_to_copy", "index", "index_select", "embedding", "constant_pad_nd", "fill_",
    "zero_", "zeros", "ones", "full", "arange", "repeat", "gather", "scatter", "upsample_nearest2d",
    "upsample_nearest1d", "upsample_nearest3d", "pixel_shuffle", "pixel_unshuffle", "roll", "flip", "pad",
    "reflection_pad2d", "replication_pad2d", "replication_pad3d", "unfold_copy", "index_put_", "split_with_sizes_copy",
}  # fmt: skip


class OpKind(NamedTuple):
    """What is known of an operator before it is called."""

    op_class: OpClass
    mutates: bool
    flops: Callable[..., int] | None
    format: int | None
    """Index into `records.trace.DTYPES` where the operator, and not its input, decides how it is computed."""


@cache
def op_kind(func: Any) -> OpKind:
    """Class, mutability and FLOP formula of an aten operator overload."""
    packet = func._overloadpacket
    name = packet.__name__
    if "convolution" in name or name.startswith("conv"):
        op_class = OpClass.CONV
    elif "scaled_dot_product" in name:
        op_class = OpClass.ATTENTION
    elif name in _GEMM:
        op_class = OpClass.GEMM
    elif name in _NORM:
        op_class = OpClass.NORM
    elif name in _COPY:
        op_class = OpClass.COPY
    else:
        op_class = OpClass.POINTWISE
    decided = DTYPES.index(_FORMATS[name]) if name in _FORMATS else None
    return OpKind(op_class, bool(func._schema.is_mutable), flop_registry.get(packet), decided)


def dtype_code(dtype: torch.dtype) -> int:
    """Index into `records.trace.DTYPES`."""
    return DTYPES.index(_DTYPES.get(dtype, "other"))
