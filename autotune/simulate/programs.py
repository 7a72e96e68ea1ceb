"""The programs of a trace's segments on one card, each made once: numbers of tensors become slots, sizes those of blocks."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.trace import Segment, Trace
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.heap import LOCAL, Code, Rows
from autotune.simulate.pieces import Granularity, by_block, by_leaf, resident, with_pieces
from autotune.simulate.program import Border, program
from autotune.simulate.quirks import Quirk

__all__ = ["Crossing", "Programs", "SegmentProgram", "Weights"]


class Crossing(NamedTuple):
    """A tensor that comes or goes in a segment, and goes or came in another one."""

    code: int
    """MALLOC or FREE."""
    slot: int
    size_bytes: int
    """What was asked for."""


class SegmentProgram(NamedTuple):
    """One segment."""

    segment: Segment
    rows: Rows
    """With borders of modules."""
    resident: Rows
    """Without: no weights come or go."""
    crossings: tuple[Crossing, ...]


class Weights(NamedTuple):
    """A component's tensors."""

    sizes: NDArray[np.int64]
    """Bytes, shape `(tensors,)`."""
    slots: NDArray[np.int64]
    """Where they lie, shape `(tensors,)`."""
    others: NDArray[np.int64]
    """Where they lie after a change of precision, which makes each anew before the old one goes."""


class Programs:
    """Programs for one card.

    Args:
        device: where they run.
        quirks: what the installed torch does otherwise.
        settings: of the process's allocator; torch's defaults if None.
    """

    def __init__(self, device: Device, quirks: Sequence[Quirk] = (), settings: Settings | None = None) -> None:
        self.device, self.settings = device, settings or Settings()
        self._quirks = quirks
        self._slots: dict[Hashable, int] = {}
        # What is asked for again is the same object, which the caches keep alive.
        self._made: dict[tuple[int, str], SegmentProgram] = {}
        self._linked: dict[tuple[int, str], tuple[Trace, list[SegmentProgram]]] = {}
        self._pieced: dict[tuple[int, Granularity, int, bool], tuple[Rows, Rows]] = {}
        self._weights: dict[int, tuple[Trace, dict[str, Weights]]] = {}

    def slot(self, key: Hashable) -> int:
        """The slot of what lasts longer than a segment: a tensor's number, a component's weight."""
        return self._slots.setdefault(key, len(self._slots))

    def blocks(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of the blocks that requests of these sizes ask for; no bytes ask for none."""
        if not any(self.settings.roundup_power2_divisions):
            return -(-sizes // 512) * 512
        distinct, places = np.unique(sizes, return_inverse=True)
        rounded = [self.settings.block_bytes(size) if size else 0 for size in distinct.tolist()]
        return np.array(rounded, dtype=np.int64)[places]

    def of_trace(self, trace: Trace, attention: str) -> list[SegmentProgram]:
        """The programs of a call's segments, in which every free finds its tensor."""
        key = (id(trace), attention)
        if key not in self._linked:
            self._linked[key] = trace, _linked([self._of_segment(segment, attention) for segment in trace.segments])
        return self._linked[key][1]

    def streamed(self, made: SegmentProgram, trace: Trace, by: Granularity, *, stream: int, empties: bool) -> Rows:
        """A segment's rows with those of its component's weights, which come in pieces."""
        key = (id(made.rows), by, stream, empties)
        if key not in self._pieced:
            pieces = by_leaf(made.segment) if by == "leaf" else by_block(made.segment, trace)
            rows = with_pieces(made.rows, pieces._replace(stream=stream, empties_cache=empties), self.blocks)
            self._pieced[key] = made.rows, rows
        return self._pieced[key][1]

    def weights(self, trace: Trace) -> dict[str, Weights]:
        """Each component's tensors; as one where the trace does not tell."""
        key = id(trace.tensors)
        if key not in self._weights:
            sizes: dict[str, list[int]] = {}
            for path, own in trace.tensors.items():
                sizes.setdefault(path.split(".")[0], []).extend(own)
            found = {name: self._laid_out(name, sizes.get(name) or [total]) for name, total in trace.weights.items()}
            self._weights[key] = trace, found
        return self._weights[key][1]

    def _laid_out(self, component: str, sizes: Sequence[int]) -> Weights:
        slots = ([self.slot((component, number, side)) for number in range(len(sizes))] for side in range(2))
        return Weights(np.array(sizes, dtype=np.int64), *(np.array(side, dtype=np.int64) for side in slots))

    def _of_segment(self, segment: Segment, attention: str) -> SegmentProgram:
        key = (id(segment), attention)
        if key not in self._made:
            self._made[key] = self._compiled(segment, program(segment, self.device, attention, self._quirks))
        return self._made[key]

    def _compiled(self, segment: Segment, rows: Rows) -> SegmentProgram:
        """Tensors that come and go within the segment have slots of its own, numbered from 0."""
        code, ref, size = rows.T
        tensors = (code == Code.MALLOC) | (code == Code.FREE)
        own = np.intersect1d(ref[code == Code.MALLOC], ref[code == Code.FREE])
        passing = tensors & np.isin(ref, own)
        slot = np.where(code >= Border.ENTER, ref, 0)
        slot[passing] = np.searchsorted(own, ref[passing])
        slot[code == Code.ONCE] = self.slot("cuBLAS")
        crossing = np.flatnonzero(tensors & ~passing)
        slot[crossing] = [self.slot(number) for number in ref[crossing].tolist()]
        crossings = zip(code[crossing].tolist(), slot[crossing].tolist(), size[crossing].tolist(), strict=True)
        blocks = np.where(code < Border.ENTER, self.blocks(size), size)
        compiled = np.stack([code + LOCAL * passing, slot, blocks], axis=1)
        return SegmentProgram(segment, compiled, resident(compiled), tuple(Crossing(*one) for one in crossings))


def _linked(programs: Sequence[SegmentProgram]) -> list[SegmentProgram]:
    """With frees of tensors that do not exist under their number sent to those that nobody frees.

    A component's calls that were recorded again have numbers of their own, and the rest of the trace frees their outputs under
    the old ones: such a free takes the oldest tensor of its size that is freed nowhere.
    """
    freed = {slot for made in programs for code, slot, _ in made.crossings if code == Code.FREE}
    here: set[int] = set()
    strangers: dict[int, list[int]] = {}
    linked = []
    for made in programs:
        taken: dict[int, int] = {}
        for code, slot, size in made.crossings:
            if code == Code.MALLOC:
                here.add(slot)
                if slot not in freed:
                    strangers.setdefault(size, []).append(slot)
            elif slot not in here and strangers.get(size):
                taken[slot] = strangers[size].pop(0)
            else:
                here.discard(slot)
        linked.append(_exchanged(made, taken) if taken else made)
    return linked


def _exchanged(made: SegmentProgram, taken: dict[int, int]) -> SegmentProgram:
    rows = made.rows.copy()
    for old, new in taken.items():
        rows[(rows[:, 0] == Code.FREE) & (rows[:, 1] == old), 1] = new
    return made._replace(rows=rows, resident=resident(rows))
