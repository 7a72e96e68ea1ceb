"""What the allocator counts, as `torch.cuda.memory_stats` names it, and how a request ends that nothing can serve."""

from __future__ import annotations

from typing import Protocol

from autotune.units import size

__all__ = ["Figures", "OutOfMemory"]


class Figures:
    """Bytes now and at most, since the start or `reset_peaks`."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        """Bound on what is reserved, as `set_per_process_memory_fraction` sets it."""
        self.allocated_bytes = self.peak_allocated_bytes = 0
        """Blocks handed out, with what they hold beyond the request."""
        self.active_bytes = self.peak_active_bytes = 0
        """The same, and those that were freed but that another stream may still use."""
        self.requested_bytes = self.peak_requested_bytes = 0
        """What was asked for of the active ones."""
        self.reserved_bytes = self.peak_reserved_bytes = 0
        """Segments: what is taken from the card."""
        self.retries = 0
        """How often everything cached had to be given back to go on (`num_alloc_retries`)."""

    def count_taken(self, block_bytes: int, requested_bytes: int) -> None:
        """A block is handed out."""
        self.requested_bytes += requested_bytes
        self.active_bytes += block_bytes
        self.allocated_bytes += block_bytes
        if self.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = self.allocated_bytes
        if self.active_bytes > self.peak_active_bytes:
            self.peak_active_bytes = self.active_bytes
        if self.requested_bytes > self.peak_requested_bytes:
            self.peak_requested_bytes = self.requested_bytes

    def count_reserved(self, more_bytes: int) -> None:
        """Memory is taken from the card."""
        self.reserved_bytes += more_bytes
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)

    def reset_peaks(self) -> None:
        """Peaks count from here."""
        self.peak_allocated_bytes = self.allocated_bytes
        self.peak_active_bytes = self.active_bytes
        self.peak_requested_bytes = self.requested_bytes
        self.peak_reserved_bytes = self.reserved_bytes


class Counted(Protocol):
    """What knows how full it is."""

    @property
    def allocated_bytes(self) -> int:
        """Blocks handed out."""

    @property
    def reserved_bytes(self) -> int:
        """What is taken from the card."""

    @property
    def limit_bytes(self) -> int | None:
        """Bound on what is reserved."""


class OutOfMemory(Exception):  # noqa: N818 - a result of the replay, not a mistake
    """The limit is reached and nothing more can be given back."""

    def __init__(self, requested_bytes: int, figures: Counted) -> None:
        self.requested_bytes = requested_bytes
        self.allocated_bytes = figures.allocated_bytes
        self.reserved_bytes = figures.reserved_bytes
        self.limit_bytes = figures.limit_bytes
        super().__init__(
            f"{size(requested_bytes)} asked for with {size(self.allocated_bytes)} allocated and "
            f"{size(self.reserved_bytes)} reserved of {size(self.limit_bytes or 0)}"
        )
