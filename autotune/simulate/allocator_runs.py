"""Whole runs of the allocator: the events of a recorded call, and the smallest limit under which a run gets through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.records.trace import EventKind
from autotune.simulate.allocator import Allocator, OutOfMemory
from autotune.units import MIB

__all__ = ["replay", "smallest_limit"]

_LIMIT_STEP_BYTES = 2 * MIB  # segments are multiples of it, so limits in between change nothing


def replay(
    allocator: Allocator,
    kinds: NDArray[Any] | Sequence[int],
    refs: NDArray[Any] | Sequence[int],
    sizes: NDArray[Any] | Sequence[int],
    *,
    stream: int = 0,
    live: dict[int, int] | None = None,
) -> dict[int, int]:
    """Run the ALLOC and FREE events of a `Segment`; the handles of what is alive then, by ref.

    Args:
        allocator: what runs them.
        kinds: `EventKind` of each event; others than ALLOC and FREE are passed over.
        refs: which storage comes or goes.
        sizes: its bytes; only those of ALLOC are read.
        stream: where all of it happens.
        live: handles from the segments before, by ref; it is kept up to date. A ref that is not there is not freed: it
            was there before the allocator was.

    >>> allocator = Allocator()
    >>> sorted(replay(allocator, kinds=[0, 0, 1], refs=[7, 8, 7], sizes=[600, 100, 600]))
    [8]
    >>> allocator.peak_allocated_bytes, allocator.allocated_bytes
    (1536, 512)
    """
    handles: dict[int, int] = {} if live is None else live
    malloc, free = allocator.malloc, allocator.free
    kind = np.asarray(kinds)
    events = np.flatnonzero((kind == EventKind.ALLOC) | (kind == EventKind.FREE))
    comes = (kind[events] == EventKind.ALLOC).tolist()
    for is_alloc, ref, count in zip(
        comes, np.asarray(refs)[events].tolist(), np.asarray(sizes)[events].tolist(), strict=True
    ):
        if is_alloc:
            handles[ref] = malloc(count, stream)
        else:
            free(handles.pop(ref, 0))
    return handles


def smallest_limit(run: Callable[[int], object], low_bytes: int, high_bytes: int) -> int:
    """The smallest limit under which `run` gets through, to 2 MiB: what a cap has to leave to the allocator.

    Bisection. More memory can in theory do harm, because other blocks are free when a request comes, so that a smaller limit
    might work too; the one that is returned has been tried.

    Args:
        run: runs under the limit it is given, in bytes; it must not catch OutOfMemory.
        low_bytes: where to look from.
        high_bytes: where to look to.

    Raises:
        OutOfMemory: not even `high_bytes` are enough.

    >>> smallest_limit(lambda limit: Allocator(limit_bytes=limit).malloc(11 * 2**20), 0, 2**30) // 2**20
    12
    """
    low, high = -(-low_bytes // _LIMIT_STEP_BYTES) - 1, -(-high_bytes // _LIMIT_STEP_BYTES)
    run(high * _LIMIT_STEP_BYTES)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            run(middle * _LIMIT_STEP_BYTES)
        except OutOfMemory:
            low = middle
        else:
            high = middle
    return high * _LIMIT_STEP_BYTES
