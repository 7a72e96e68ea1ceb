"""A card's memory that runs programs of whole numbers: torch's caching allocator in C, or where that is not there in Python.

`native/heap.c` does what `allocator.py` says, some forty times as fast; tests hold the two to the same bytes. Where it could
not be compiled when this package was installed, `allocator.py` itself does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from autotune.simulate.allocator import Allocator
from autotune.simulate.allocator_figures import OutOfMemory
from autotune.simulate.allocator_settings import Settings

__all__ = ["IS_COMPILED", "LOCAL", "NO_ROWS", "STREAM", "Code", "Heap", "Rows"]

Rows = NDArray[np.int64]
"""A program: (code, slot, bytes of the block) in order, shape `(instructions, 3)`."""
NO_ROWS: Rows = np.empty((0, 3), dtype=np.int64)
# As in native/blocks.h.
_STREAMS, _SLOTS, _LARGEST = 3, 2**24, 2**50
_UNLIMITED = 2**60


class Code(IntEnum):
    """What a row does; as in `native/heap.c`."""

    MALLOC = 0
    """A block of the row's bytes is taken; the slot holds it from now on. Of no bytes: nothing happens."""
    FREE = 1
    """The slot's block is given back, if there is one."""
    HOLD = 2
    """A block is taken and given back at once."""
    ONCE = 3
    """MALLOC where the slot is empty."""
    EMPTY = 4
    """What is cached goes back to the driver."""
    RESET = 5
    """Peaks count from here."""


_CODES = frozenset(Code)
LOCAL = 8
"""Added to a code: the slot is one of the segment's own, whose numbers the next segment uses again."""
STREAM = 16
"""Added to a code as often as the stream's number says."""


def _built() -> Callable[..., _Core] | None:
    """The allocator in C, if it is there."""
    try:
        found: Callable[..., _Core] = import_module("autotune.simulate._heap").Heap
    except ImportError:
        return None
    return found


class _Core(Protocol):
    """What runs rows."""

    allocated_bytes: int
    peak_allocated_bytes: int
    reserved_bytes: int
    peak_reserved_bytes: int
    retries: int

    def play(self, rows: Rows, /) -> int:
        """The row that the limit ended, or -1."""


class Heap:
    """One card's memory, empty at first.

    Args:
        settings: of the process's allocator; torch's defaults if None.
        limit_bytes: bound on what is reserved, as `set_per_process_memory_fraction` sets it.
        compiled: whether C does the work; if None, where it can.

    >>> card = Heap()
    >>> card.play(np.array([[Code.MALLOC, 0, 11 * 2**20], [Code.FREE, 0, 0]]))
    >>> card.peak_allocated_bytes // 2**20, card.peak_reserved_bytes // 2**20
    (12, 12)
    """

    def __init__(
        self, settings: Settings | None = None, limit_bytes: int | None = None, *, compiled: bool | None = None
    ) -> None:
        settings = settings or Settings()
        self.limit_bytes = limit_bytes
        in_c = IS_COMPILED if compiled is None else compiled
        self._core: _Core = _compiled(settings, limit_bytes) if in_c else _Interpreted(settings, limit_bytes)

    def play(self, rows: Rows) -> None:
        """Runs a program. Sizes are those of blocks, as `Settings.block_bytes` rounds them.

        Raises:
            OutOfMemory: the limit is reached.
            ValueError: a row is no instruction.
        """
        ended = self._core.play(rows)
        if ended >= 0:
            raise OutOfMemory(int(rows[ended, 2]), self)

    @property
    def allocated_bytes(self) -> int:
        """Blocks handed out."""
        return self._core.allocated_bytes

    @property
    def peak_allocated_bytes(self) -> int:
        """The most since the start or RESET."""
        return self._core.peak_allocated_bytes

    @property
    def reserved_bytes(self) -> int:
        """Segments: what is taken from the card."""
        return self._core.reserved_bytes

    @property
    def peak_reserved_bytes(self) -> int:
        """The most since the start or RESET."""
        return self._core.peak_reserved_bytes

    @property
    def retries(self) -> int:
        """How often everything cached had to be given back to go on."""
        return self._core.retries


def _compiled(settings: Settings, limit_bytes: int | None) -> _Core:
    if _BUILT is None:
        raise ImportError("the allocator in C was not built when this package was installed")
    return _BUILT(
        large_segment_bytes=settings.large_segment_bytes,
        max_split_bytes=settings.max_split_size_bytes or _UNLIMITED,
        max_non_split_bytes=settings.max_non_split_rounding_bytes,
        expandable=settings.expandable_segments,
        threshold=settings.garbage_collection_threshold,
        limit_bytes=_UNLIMITED if limit_bytes is None else limit_bytes,
    )


_BUILT = _built()
IS_COMPILED = _BUILT is not None
"""Whether the allocator in C is there."""


class _Interpreted(Allocator):
    """`allocator.py` on programs. Sizes are rounded already."""

    def __init__(self, settings: Settings, limit_bytes: int | None) -> None:
        super().__init__(settings.model_copy(update={"roundup_power2_divisions": ()}), limit_bytes)
        self._slots: dict[tuple[int, int], int] = {}

    def play(self, rows: Rows, /) -> int:
        """The row that the limit ended, or -1."""
        for number, (code, slot, size) in enumerate(rows.tolist()):
            if not (
                0 <= code < _STREAMS * STREAM and code & 7 in _CODES and 0 <= slot < _SLOTS and 0 <= size < _LARGEST
            ):
                raise ValueError(f"row {number} is not an instruction")
            try:
                self._step(code & 7, (code & LOCAL, slot), size, code // STREAM)
            except OutOfMemory:
                return number
        return -1

    def _step(self, code: int, slot: tuple[int, int], size: int, stream: int) -> None:
        if code == Code.MALLOC or (code == Code.ONCE and slot not in self._slots):
            if size:
                self._slots[slot] = self.malloc(size, stream)
        elif code == Code.FREE:
            self.free(self._slots.pop(slot, 0))
        elif code == Code.HOLD:
            self.free(self.malloc(size, stream))
        elif code == Code.EMPTY:
            self.empty_cache()
        elif code == Code.RESET:
            self.reset_peaks()
