"""Live bytes of one segment on one device: a cumulative sum over events, with the device's own temporaries.

What it does not know: which free block the allocator picks; `workspace.slack_bytes` stands for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.trace import DTYPES, EventKind, Segment
from autotune.simulate.attention import kernel_of, temporary_bytes
from autotune.simulate.workspace import conv_workspace_share

__all__ = ["Granularity", "Peak", "SegmentMemory", "Stream", "segment_memory"]

_MIN_BLOCK_BYTES = 512  # kMinBlockSize, c10/core/AllocatorConfig.h


class Peak(NamedTuple):
    """The moment of most bytes, and what they are. Activations count from the start of the segment."""

    activations_bytes: int
    workspace_bytes: int
    weights_bytes: int
    """Weights that came in parts, for the module that runs and the one that is prefetched."""
    module: str

    @property
    def total_bytes(self) -> int:
        """All of them."""
        return self.activations_bytes + self.workspace_bytes + self.weights_bytes


Granularity = Literal["leaf", "block"]


class Stream(NamedTuple):
    """A segment whose weights come in parts: with each module that has some of its own, or with each block."""

    peak: Peak
    """One part at a time."""
    prefetched_peak: Peak
    """The part that runs and the next one."""
    moved_bytes: int
    """Weights brought in over the segment."""
    moves: int
    """How many parts were brought in."""


class SegmentMemory(NamedTuple):
    """One segment on one device."""

    peak: Peak
    """With weights that are there already."""
    streams: Mapping[Granularity, Stream]
    """With weights that come in parts."""
    net_bytes: int
    """What is alive at the end beyond what was at the start."""


def segment_memory(
    segment: Segment, device: Device, blocks: Mapping[str, int] | None = None, attention: str = "sdpa"
) -> SegmentMemory:
    """Peaks of a segment by `numpy.cumsum` over its events.

    Args:
        segment: what was recorded.
        device: decides alignment, workspaces and attention's temporaries.
        blocks: bytes of the blocks that come and go whole, by path.
        attention: the plan's choice of attention.
    """
    kind, sizes = segment.kind, segment.size
    if not len(kind):
        nothing = Peak(0, 0, 0, segment.component)
        still = Stream(nothing, nothing, 0, 0)
        return SegmentMemory(nothing, {"leaf": still, "block": still}, 0)
    if device.kind == "cuda":
        sizes = -(-sizes // _MIN_BLOCK_BYTES) * _MIN_BLOCK_BYTES
    signs = (kind == EventKind.ALLOC).astype(np.int64) - (kind == EventKind.FREE)
    if device.kind == "cuda":
        signs[_inside_attention(segment)] = 0
    live = np.cumsum(signs * sizes)
    temporary = _temporaries(segment, device, attention)
    block_sizes = np.array([(blocks or {}).get(path, 0) for path in segment.modules], dtype=np.int64)
    border = (kind == EventKind.ENTER) | (kind == EventKind.EXIT)
    in_blocks = np.zeros_like(live)
    in_blocks[border] = block_sizes[segment.ref[border]] if len(block_sizes) else 0
    return SegmentMemory(
        peak=_peak(segment, live, temporary, np.zeros_like(live)),
        streams={
            "leaf": _stream(segment, live, temporary, np.where(border, segment.size, 0)),
            "block": _stream(segment, live, temporary, in_blocks),
        },
        net_bytes=int(live[-1]),
    )


def _stream(
    segment: Segment, live: NDArray[np.int64], temporary: NDArray[np.int64], parts: NDArray[np.int64]
) -> Stream:
    """`parts` holds at each border the bytes that come in or go out there."""
    signs = (segment.kind == EventKind.ENTER).astype(np.int64) - (segment.kind == EventKind.EXIT)
    here = np.cumsum(signs * parts)
    entered = np.flatnonzero((segment.kind == EventKind.ENTER) & (parts > 0))
    following = np.zeros(len(live), dtype=np.int64)  # from each part's arrival on, the bytes of the one after it
    if len(entered):
        after = np.searchsorted(entered, np.arange(len(live)), side="right")
        following = np.append(parts[entered], 0)[after]
    return Stream(
        peak=_peak(segment, live, temporary, here),
        prefetched_peak=_peak(segment, live, temporary, here + following),
        moved_bytes=int(parts[entered].sum()),
        moves=len(entered),
    )


def _peak(segment: Segment, live: NDArray[np.int64], temporary: NDArray[np.int64], leaves: NDArray[np.int64]) -> Peak:
    index = int(np.argmax(live + temporary + leaves))
    return Peak(int(live[index]), int(temporary[index]), int(leaves[index]), _open_module(segment, index))


def _temporaries(segment: Segment, device: Device, chosen: str) -> NDArray[np.int64]:
    """Bytes that kernels hold while they run, at the event that ends each: inputs and outputs are alive there."""
    temporary = np.zeros(len(segment.kind), dtype=np.int64)
    if device.kind == "cuda":
        shares = np.array([conv_workspace_share(device, name) for name in DTYPES])
        ops = np.flatnonzero(segment.kind == EventKind.OP)
        rows = segment.ref[ops]
        temporary[ops] = (segment.op_conv_bytes[rows] * shares[segment.op_dtype[rows]]).astype(np.int64)
        held = [temporary_bytes(attention, kernel_of(attention, device, chosen)) for attention in segment.attentions]
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
    kinds = segment.kind[: index + 1]
    closed = 0
    for event in np.flatnonzero((kinds == EventKind.ENTER) | (kinds == EventKind.EXIT))[::-1]:
        if kinds[event] == EventKind.EXIT:
            closed += 1
        elif closed:
            closed -= 1
        else:
            return segment.modules[int(segment.ref[event])]
    return segment.component or "the pipeline's own code"
