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
from autotune.simulate.quirks import Quirk, columns_bytes
from autotune.simulate.workspace import conv_workspace_bytes

__all__ = ["Instruction", "Program", "inside_attention", "program", "temporaries"]


class Instruction(IntEnum):
    """What happens; `ref` and `size` of the instruction mean what is said here."""

    MALLOC = 0
    """A tensor comes into being: its number and bytes."""
    FREE = 1
    """It goes."""
    HOLD = 2
    """A kernel takes this many bytes and gives them back: conv workspace, attention temporaries."""
    MULTIPLY = 3
    """A matrix product: the first one takes cuBLAS's workspace."""
    ENTER = 4
    """A module is called: ref is its row in the segment's `modules`, size the bytes of its own weights."""
    EXIT = 5
    """It returns."""


Program = list[tuple[int, int, int]]
"""(instruction, ref, size), in order."""


def program(segment: Segment, device: Device, attention: str, quirks: Sequence[Quirk] = ()) -> Program:
    """The segment's instructions on that device under the plan's choice of attention."""
    kind = segment.kind
    held = temporaries(segment, device, attention, quirks)
    code = np.full(len(kind), -1, dtype=np.int64)
    code[kind == EventKind.ALLOC] = Instruction.MALLOC
    code[kind == EventKind.FREE] = Instruction.FREE
    code[inside_attention(segment)] = -1
    code[kind == EventKind.ENTER] = Instruction.ENTER
    code[kind == EventKind.EXIT] = Instruction.EXIT
    ops = np.flatnonzero(kind == EventKind.OP)
    code[ops[segment.op_class[segment.ref[ops]] == OpClass.GEMM]] = Instruction.MULTIPLY
    code[held > 0] = Instruction.HOLD
    size = np.where(held > 0, held, segment.size)
    kept = np.flatnonzero(code >= 0)
    return list(zip(code[kept].tolist(), segment.ref[kept].tolist(), size[kept].tolist(), strict=True))


def temporaries(segment: Segment, device: Device, attention: str, quirks: Sequence[Quirk] = ()) -> NDArray[np.int64]:
    """Bytes that kernels hold while they run, at the event that ends each: inputs and outputs are alive there."""
    temporary = np.zeros(len(segment.kind), dtype=np.int64)
    if device.kind == "cuda":
        ops = np.flatnonzero(segment.kind == EventKind.OP)
        rows = segment.ref[ops]
        for code in np.unique(segment.op_dtype[rows]):
            mine = segment.op_dtype[rows] == code
            kinds = segment.op_class[rows[mine]]
            temporary[ops[mine]] = conv_workspace_bytes(
                device, DTYPES[code], segment.op_conv_bytes[rows[mine]], is_3d=kinds == OpClass.CONV_3D
            )
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
