"""Live bytes of one segment on one device: a cumulative sum over events, with the device's own temporaries.

What it does not know: which free block the allocator picks; `workspace.slack_bytes` stands for that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.trace import DTYPES, EventKind, Segment
from autotune.simulate.attention import kernel_of, temporary_bytes
from autotune.simulate.workspace import conv_workspace_share

__all__ = ["Peak", "SegmentMemory", "segment_memory"]

_MIN_BLOCK_BYTES = 512  # kMinBlockSize, c10/core/AllocatorConfig.h


class Peak(NamedTuple):
    """The moment of most bytes, and what they are. Activations count from the start of the segment."""

    activations_bytes: int
    workspace_bytes: int
    weights_bytes: int
    """Weights that leaf modules brought in for themselves."""
    module: str

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return self.activations_bytes + self.workspace_bytes + self.weights_bytes


class SegmentMemory(NamedTuple):
    """One segment on one device."""

    peak: Peak
    """With weights resident."""
    leaf_peak: Peak
    """With weights that come with each module and go with it."""
    net_bytes: int
    """What is alive at the end beyond what was at the start."""
    leaf_bytes: int
    """Weights brought in by leaf modules over the segment."""
    leaf_modules: int
    """How many modules brought some."""


def segment_memory(segment: Segment, device: Device) -> SegmentMemory:
    """Peaks of a segment by `numpy.cumsum` over its events."""
    kind, sizes = segment.kind, segment.size
    if not len(kind):
        nothing = Peak(0, 0, 0, segment.component)
        return SegmentMemory(nothing, nothing, 0, 0, 0)
    if device.kind == "cuda":
        sizes = -(-sizes // _MIN_BLOCK_BYTES) * _MIN_BLOCK_BYTES
    signs = (kind == EventKind.ALLOC).astype(np.int64) - (kind == EventKind.FREE)
    if device.kind == "cuda":
        signs[_inside_attention(segment)] = 0
    live = np.cumsum(signs * sizes)
    temporary = _temporaries(segment, device)
    modules = (kind == EventKind.ENTER).astype(np.int64) - (kind == EventKind.EXIT)
    leaves = np.cumsum(modules * segment.size)
    entered = (kind == EventKind.ENTER) & (segment.size > 0)
    return SegmentMemory(
        peak=_peak(segment, live, temporary, np.zeros_like(live)),
        leaf_peak=_peak(segment, live, temporary, leaves),
        net_bytes=int(live[-1]),
        leaf_bytes=int(segment.size[entered].sum()),
        leaf_modules=int(entered.sum()),
    )


def _peak(segment: Segment, live: NDArray[np.int64], temporary: NDArray[np.int64], leaves: NDArray[np.int64]) -> Peak:
    index = int(np.argmax(live + temporary + leaves))
    return Peak(int(live[index]), int(temporary[index]), int(leaves[index]), _open_module(segment, index))


def _temporaries(segment: Segment, device: Device) -> NDArray[np.int64]:
    """Bytes that kernels hold while they run, at the event that ends each: inputs and outputs are alive there."""
    temporary = np.zeros(len(segment.kind), dtype=np.int64)
    if device.kind == "cuda":
        shares = np.array([conv_workspace_share(device, name) for name in DTYPES])
        ops = np.flatnonzero(segment.kind == EventKind.OP)
        rows = segment.ref[ops]
        temporary[ops] = (segment.op_conv_bytes[rows] * shares[segment.op_dtype[rows]]).astype(np.int64)
        held = [temporary_bytes(attention, kernel_of(attention, device)) for attention in segment.attentions]
        ends = np.flatnonzero(segment.kind == EventKind.ATTENTION_END)
        temporary[ends] = np.array(held, dtype=np.int64)[segment.ref[ends]] if held else 0
    return temporary


def _inside_attention(segment: Segment) -> NDArray[np.bool_]:
    """Events of storages that come and go within one attention: the CPU's way of doing it."""
    kind = segment.kind
    depth = np.cumsum((kind == EventKind.ATTENTION).astype(np.int64) - (kind == EventKind.ATTENTION_END))
    inside = depth > 0
    born = np.unique(segment.ref[inside & (kind == EventKind.ALLOC)])
    gone = np.unique(segment.ref[inside & (kind == EventKind.FREE)])
    passing = np.intersect1d(born, gone)
    result: NDArray[np.bool_] = inside & ((kind == EventKind.ALLOC) | (kind == EventKind.FREE))
    return result & np.isin(segment.ref, passing)


def _open_module(segment: Segment, index: int) -> str:
    """The innermost module that is being called at this event."""
    opened: list[int] = []
    border = np.flatnonzero(
        (segment.kind[: index + 1] == EventKind.ENTER) | (segment.kind[: index + 1] == EventKind.EXIT)
    )
    for event in border:
        if segment.kind[event] == EventKind.ENTER:
            opened.append(int(segment.ref[event]))
        elif opened:
            opened.pop()
    return segment.modules[opened[-1]] if opened else segment.component or "the pipeline's own code"
