"""The tape that a recording writes: events, operators and attentions of one segment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from autotune.records.estimate import PhaseName
from autotune.records.trace import Attention, EventKind, Segment

__all__ = ["Event", "Events", "Op", "Rows", "Tape", "ends_of_strangers"]

Event = tuple[int, int, int]
"""Its kind, what it is about, bytes (`records.trace.EventKind`)."""
Rows = NDArray[np.int64]
"""Events, shape `(events, 3)`."""
Op = tuple[int, int, float, float, int, tuple[int, int, int]]
"""A kernel: its class, type, FLOPs, bytes moved, launches, and a convolution's bytes (`Segment.op_conv_bytes`)."""


class Events:
    """A growing table of events: written one by one, and copied by the thousand.

    >>> events = Events()
    >>> events.append((0, 7, 512)); events.extend(events.since(0)); len(events)
    2
    """

    def __init__(self) -> None:
        self._chunks: list[Rows] = []
        self._open: list[Event] = []
        self._closed = 0

    def __len__(self) -> int:
        return self._closed + len(self._open)

    def __iter__(self) -> Iterator[Event]:
        return (tuple(row) for row in self.since(0).tolist())

    def append(self, event: Event) -> None:
        """One more."""
        self._open.append(event)

    def extend(self, rows: Rows) -> None:
        """Many more."""
        if self._open:
            self._close(_table(self._open))
            self._open = []
        if len(rows):
            self._close(rows)

    def since(self, start: int) -> Rows:
        """Those from the `start`-th on."""
        found = [_table(self._open[max(0, start - self._closed) :])]
        end = self._closed
        for chunk in reversed(self._chunks):
            if end <= start:
                break
            end -= len(chunk)
            found.append(chunk[max(0, start - end) :])
        return np.concatenate(found[::-1])

    def cut(self, start: int) -> Rows:
        """Takes off those from the `start`-th on, which were written one by one."""
        rows = _table(self._open[start - self._closed :])
        del self._open[start - self._closed :]
        return rows

    def _close(self, rows: Rows) -> None:
        self._chunks.append(rows)
        self._closed += len(rows)


def _table(events: list[Event]) -> Rows:
    return np.array(events, dtype=np.int64).reshape(-1, 3)


class Tape:
    """The growing lists of one segment."""

    def __init__(self) -> None:
        self.events = Events()
        self.ops: list[Op] = []
        self.attentions: list[Attention] = []
        self.modules: dict[str, int] = {}

    def segment(self, component: str, method: str, phase: PhaseName, turn: int, weights: dict[str, int]) -> Segment:
        """The lists as a frozen record."""
        events = self.events.since(0)
        ops = list(zip(*self.ops, strict=True)) or [()] * 6
        return Segment(
            component=component,
            method=method,
            phase=phase,
            turn=turn,
            kind=events[:, 0].astype(np.int8),
            ref=events[:, 1].astype(np.int32),
            size=events[:, 2].copy(),
            op_class=np.array(ops[0], dtype=np.int8),
            op_dtype=np.array(ops[1], dtype=np.int8),
            op_flops=np.array(ops[2], dtype=np.float64),
            op_bytes=np.array(ops[3], dtype=np.float64),
            op_kernels=np.array(ops[4], dtype=np.int32),
            op_conv_bytes=np.array(ops[5], dtype=np.int64).reshape(-1, 3),
            attentions=tuple(self.attentions),
            modules=tuple(self.modules),
            weights=weights,
        )


def ends_of_strangers(segment: Segment) -> Rows:
    """Frees of tensors from before the segment: its inputs, which a recording by itself does not see end."""
    born = segment.ref[segment.kind == EventKind.ALLOC]
    strange = (segment.kind == EventKind.FREE) & ~np.isin(segment.ref, born)
    return np.stack([segment.kind[strange], segment.ref[strange], segment.size[strange]], axis=1).astype(np.int64)
