"""One call of a plan on torch's allocator: weights as they come and go, every tensor, every temporary, in their order.

What happens does not depend on what the allocator does, so a call is one program, which is written first and then run.
Weights move as accelerate 1.15 and diffusers 0.42 move them; each place names the lines it follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from autotune.records.estimate import PhaseName
from autotune.records.placement import Placement
from autotune.records.trace import Segment, Trace
from autotune.simulate.allocator_runs import smallest_limit
from autotune.simulate.card import Card, joined, rows_of
from autotune.simulate.heap import STREAM, Code, Heap, Rows
from autotune.simulate.pieces import Granularity
from autotune.simulate.programs import Programs, SegmentProgram
from autotune.simulate.residency import Move, Stay, residency

__all__ = ["Timeline", "Usage"]

_SIDE_STREAM = 1  # where group offload with a stream allocates weights (hooks/group_offloading.py `ModuleGroup`)
_GRAPH_STREAM = 2  # stands for the private pool of CUDA graphs
_CALLS = 2  # the second call meets what the first has left cached, and may need more
_EMPTY: Rows = np.array([[Code.EMPTY, 0, 0]])
_RESET: Rows = np.array([[Code.RESET, 0, 0]])


@dataclass
class Usage:
    """Peaks of one call, by phase in the order of the call."""

    allocated_bytes: dict[PhaseName, int] = field(default_factory=dict)
    reserved_bytes: dict[PhaseName, int] = field(default_factory=dict)
    """At the most so far: what is cached stays reserved."""
    retries: int = 0
    """How often the cache was emptied to stay under the limit."""

    @property
    def peak_allocated_bytes(self) -> int:
        """Of the whole call."""
        return max(self.allocated_bytes.values(), default=0)

    @property
    def peak_reserved_bytes(self) -> int:
        """Of the whole call."""
        return max(self.reserved_bytes.values(), default=0)


class _Stage(NamedTuple):
    """A phase as a program."""

    phase: PhaseName
    rows: Rows


class Timeline:
    """One trace under one plan.

    Args:
        trace: the call.
        placement: where weights lie.
        programs: of segments on the card.
        attention: the plan's choice of attention.
        graphed: components that are replayed as CUDA graphs. A graph keeps what its call reserved as long as it lives, and its
            outputs lie in there.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        placement: Placement,
        programs: Programs,
        attention: str = "sdpa",
        graphed: frozenset[str] = frozenset(),
    ) -> None:
        self._trace, self._placement, self._programs = trace, placement, programs
        self._stays = residency(placement, [segment.component for segment in trace.segments])
        self._made, self._graphed = programs.of_trace(trace, attention), graphed

    def run(self, limit_bytes: int | None = None, *, calls: int = 1) -> Usage:
        """The call on an empty card, so many times; the last one counts.

        Raises:
            OutOfMemory: the limit on what is reserved is too low.
        """
        start, written = self._written
        heap, usage = Heap(self._programs.settings, limit_bytes), Usage()
        heap.play(start)
        for number in range(calls):
            usage = _played(heap, written[min(number, len(written) - 1)])
        return usage

    def first_and_later(self) -> Usage:
        """The call on an empty card, and once more on what that has left cached.

        What the second allocates more, or reserves more than the first ever did, counts in the phase that takes it.
        """
        start, written = self._written
        heap = Heap(self._programs.settings)
        heap.play(start)
        first = _played(heap, written[0])
        later = _played(heap, written[-1])
        reserved_bytes, most = dict(first.reserved_bytes), first.peak_reserved_bytes
        for phase, size in later.reserved_bytes.items():
            if size > most:
                reserved_bytes[phase] = most = size
        allocated_bytes = {p: max(size, later.allocated_bytes[p]) for p, size in first.allocated_bytes.items()}
        return Usage(allocated_bytes, reserved_bytes, heap.retries)

    def smallest_limit(self) -> int:
        """The fewest bytes of reserved memory under which the call gets through, its cache emptied where need be."""
        most = self.first_and_later()  # the first may reserve more than the next
        return smallest_limit(
            lambda limit_bytes: self.run(limit_bytes, calls=_CALLS), most.peak_allocated_bytes, most.peak_reserved_bytes
        )

    @cached_property
    def _written(self) -> tuple[Rows, list[list[_Stage]]]:
        """What is there before the first call; the first call, and the later ones where they differ from it."""
        card = Card(self._programs, self._trace)
        whole = [name for name in self._placement.berths if self._placement.of(name).stays]  # as `pipe.to` moves them
        start = joined([*map(card.bring, whole), self._buffers()])
        before = card.state
        calls = [self._call(card)]
        if card.state != before:
            calls.append(self._call(card))
        return start, calls

    def _buffers(self) -> Rows:
        """accelerate's `cpu_offload` leaves buffers on the card where a network has parameters of its own."""
        kept = {n: size for n, size in self._trace.resident_buffers.items() if self._placement.of(n).keeps_buffers}
        slots = [self._programs.slot((name, "buffers")) for name in kept]
        sizes = self._programs.blocks(np.array([*kept.values()], dtype=np.int64))
        return rows_of(Code.MALLOC, np.array(slots, dtype=np.int64), sizes)

    def _call(self, card: Card) -> list[_Stage]:
        """One call, phase by phase. Peaks count from where the first of a phase's weights arrive."""
        stages: list[tuple[PhaseName, list[Rows]]] = []
        for made, stay in zip(self._made, self._stays, strict=True):
            out = [self._leaving(card, move) for move in stay.moves if move.direction == "out"]
            if not stages or stages[-1][0] != made.segment.phase:
                stages.append((made.segment.phase, [*out, _RESET]))
            else:
                stages[-1][1].extend(out)
            stages[-1][1].extend(card.bring(move.component) for move in stay.moves if move.direction == "in")
            stages[-1][1].extend(self._in_precision(card, made.segment, stay))
            stages[-1][1].append(self._rows(made))
        if stages:
            stages[-1][1].append(self._forgotten())
            stages[-1][1].append(self._sent_back(card))
        return [_Stage(phase, joined(rows)) for phase, rows in stages]

    def _leaving(self, card: Card, move: Move) -> Rows:
        """accelerate/hooks.py CpuOffload.pre_forward and levers/text_encoders.py empty the cache afterwards."""
        return joined([card.send(move.component), _EMPTY])

    def _in_precision(self, card: Card, segment: Segment, stay: Stay) -> list[Rows]:
        """SDXL turns its VAE to fp32 tensor by tensor (`Module.to`)."""
        weights = self._trace.weights
        return [
            card.exchange(name, segment.weights.get(name, weights.get(name, 0)) / max(1, weights.get(name, 0)))
            for name in stay.components
        ]

    def _rows(self, made: SegmentProgram) -> Rows:
        """One segment as it runs in its place."""
        name = made.segment.component
        berth = self._placement.of(name)
        if berth.waits == "cpu":
            return _made_outside(made.resident)
        if name in self._graphed:
            return self._graph(name, made.resident)
        if not berth.streams:
            return made.resident
        stream = _SIDE_STREAM if berth.ahead else 0
        by: Granularity = "block" if berth.piece == "block" else "leaf"
        return self._programs.streamed(made, self._trace, by, stream=stream, empties=berth.empties_cache)

    def _sent_back(self, card: Card) -> Rows:
        """pipeline_utils.py `maybe_free_model_hooks`."""
        back = [name for name, berth in self._placement.berths.items() if berth.leaves_at_end]
        return joined([*map(card.send, back), *([_EMPTY] if back else [])])

    def _graph(self, name: str, rows: Rows) -> Rows:
        """A segment in a pool of its own, which is as large as the call needs and stays."""
        pool = Heap(self._programs.settings)
        pool.play(rows[rows[:, 0] != Code.ONCE])
        slot, size = np.array([self._programs.slot((name, "graph"))]), np.array([pool.peak_reserved_bytes])
        return joined([rows_of(Code.ONCE + STREAM * _GRAPH_STREAM, slot, size), rows[rows[:, 0] == Code.FREE]])

    def _forgotten(self) -> Rows:
        """The call is over, and its output is taken."""
        born = [slot for made in self._made for code, slot, _ in made.crossings if code == Code.MALLOC]
        return rows_of(Code.FREE, np.array(born, dtype=np.int64), 0)


def _played(heap: Heap, stages: list[_Stage]) -> Usage:
    usage = Usage()
    for phase, rows in stages:
        heap.play(rows)
        usage.allocated_bytes[phase] = heap.peak_allocated_bytes
        usage.reserved_bytes[phase] = heap.peak_reserved_bytes
    usage.retries = heap.retries
    return usage


def _made_outside(rows: Rows) -> Rows:
    """A segment on the CPU: what is alive at its end is copied to the card."""
    kept: Rows = rows[rows[:, 0] == Code.MALLOC]
    return kept
