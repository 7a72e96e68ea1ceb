"""Live bytes of one segment on one device: a cumulative sum over events, with the device's own temporaries.

What it does not know: which free block the allocator picks. `timeline.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.trace import EventKind, Segment
from autotune.simulate.program import inside_attention, temporaries
from autotune.simulate.quirks import Quirk

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
    segment: Segment,
    device: Device,
    blocks: Mapping[str, int] | None = None,
    attention: str = "sdpa",
    quirks: Sequence[Quirk] = (),
) -> SegmentMemory:
    """Peaks of a segment by `numpy.cumsum` over its events.

    Args:
        segment: what was recorded.
        device: decides alignment, workspaces and attention's temporaries.
        blocks: bytes of the blocks that come and go whole, by path.
        attention: the plan's choice of attention.
        quirks: what the installed torch does otherwise.
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
        signs[inside_attention(segment)] = 0
    live = np.cumsum(signs * sizes)
    temporary = temporaries(segment, device, attention, quirks)
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


def _open_module(segment: Segment, index: int) -> str:
    """The innermost module that is being called at this event: the last to be entered at this depth."""
    kinds = segment.kind[: index + 1]
    entered = kinds == EventKind.ENTER
    depth = np.cumsum(entered.astype(np.int32) - (kinds == EventKind.EXIT))
    if not depth[index]:
        return segment.component or "the pipeline's own code"
    return segment.modules[int(segment.ref[np.flatnonzero(entered & (depth == depth[index]))[-1]])]
