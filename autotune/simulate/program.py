"""A segment as what a card's memory sees of it: tensors, kernels' temporaries, and where weights may come and go.

What the CPU did inside a fused attention is left out; what the device's own kernels hold while they run is put in.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.trace import DTYPES, EventKind, OpClass, Segment
from autotune.simulate.attention import kernel_of, temporary_bytes
from autotune.simulate.heap import Code, Rows
from autotune.simulate.quirks import Quirk, columns_bytes
from autotune.simulate.workspace import conv_workspace_bytes, cublas_bytes

__all__ = ["Border", "inside_attention", "program", "temporaries"]


class Border(IntEnum):
    """Codes that the heap does not know: between them weights may come and go."""

    ENTER = 6
    """A module is called: the slot is its row in the segment's `modules`, the bytes are those of its own weights."""
    EXIT = 7
    """It returns."""


def program(segment: Segment, device: Device, attention: str, quirks: Sequence[Quirk] = ()) -> Rows:
    """The segment's rows on that device under the plan's choice of attention: tensors by their numbers, in bytes that were
    asked for, with borders of modules."""
    kind = segment.kind
    held = temporaries(segment, device, attention, quirks)
    code = np.full(len(kind), -1, dtype=np.int64)
    code[kind == EventKind.ALLOC] = Code.MALLOC
    code[kind == EventKind.FREE] = Code.FREE
    code[inside_attention(segment)] = -1
    code[kind == EventKind.ENTER] = Border.ENTER
    code[kind == EventKind.EXIT] = Border.EXIT
    size = segment.size.copy()
    ops = np.flatnonzero(kind == EventKind.OP)
    products = ops[segment.op_class[segment.ref[ops]] == OpClass.GEMM]
    if device.kind == "cuda":  # the first one takes cuBLAS's workspace for good
        code[products], size[products] = Code.ONCE, cublas_bytes(device)
    code[held > 0], size[held > 0] = Code.HOLD, held[held > 0]
    kept = np.flatnonzero(code >= 0)
    return np.stack([code[kept], segment.ref[kept].astype(np.int64), size[kept]], axis=1)


def temporaries(segment: Segment, device: Device, attention: str, quirks: Sequence[Quirk] = ()) -> NDArray[np.int64]:
    """Bytes that kernels hold while they run, at the event that ends each: inputs and outputs are alive there."""
    temporary = np.zeros(len(segment.kind), dtype=np.int64)
    if device.kind == "cuda":
        ops = np.flatnonzero(segment.kind == EventKind.OP)
        rows = segment.ref[ops]
        for code in np.unique(segment.op_dtype[rows]):
            mine = segment.op_dtype[rows] == code
            temporary[ops[mine]] = conv_workspace_bytes(device, DTYPES[code], segment.op_conv_bytes[rows[mine]])
        for quirk in quirks:
            slow = quirk.touches(segment)[rows]
            temporary[ops[slow]] = columns_bytes(segment, rows[slow])
        held = [temporary_bytes(one, kernel_of(one, device, attention)) for one in segment.attentions]
        ends = np.flatnonzero(segment.kind == EventKind.ATTENTION_END)
        temporary[ends] = np.array(held, dtype=np.int64)[segment.ref[ends]] if held else 0
    return temporary


def inside_attention(segment: Segment) -> NDArray[np.bool_]:
    """Events of storages that come and go within one attention: the CPU's way of doing it."""
    kind = segment.kind
    depth = np.cumsum((kind == EventKind.ATTENTION).astype(np.int64) - (kind == EventKind.ATTENTION_END))
    inside = depth > 0
    born = np.unique(segment.ref[inside & (kind == EventKind.ALLOC)])
    gone = np.unique(segment.ref[inside & (kind == EventKind.FREE)])
    passing = np.intersect1d(born, gone)
    result: NDArray[np.bool_] = inside & ((kind == EventKind.ALLOC) | (kind == EventKind.FREE))
    return result & np.isin(segment.ref, passing)
