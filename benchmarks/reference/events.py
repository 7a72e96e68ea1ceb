"""A segment as what a card's memory sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from autotune.records.device import Device
from autotune.records.trace import EventKind, OpClass, Segment
from autotune.simulate.program import inside_attention, temporaries
from autotune.simulate.quirks import Quirk

__all__ = ["Instruction", "Program", "program"]


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
