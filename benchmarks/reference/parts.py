"""Weights that come in parts while a component runs: leaf by leaf or block by block.

Follows accelerate 1.15 `AlignDevicesHook` (hooks.py) and diffusers 0.42 hooks/group_offloading.py.
"""

from __future__ import annotations

from typing import Protocol

from autotune.records.trace import EventKind, Segment, Trace
from autotune.simulate.allocator import Allocator

__all__ = ["BlockParts", "LeafParts", "Parts"]


class Parts(Protocol):
    """What a call does at the borders of its modules. A module is its row in the segment's `modules`."""

    def enter(self, allocator: Allocator, module: int) -> None:
        """The module is called."""

    def leave(self, allocator: Allocator, module: int) -> None:
        """It returns."""

    def end(self, allocator: Allocator) -> None:
        """The component returns."""


class _Prefetched:
    """Parts in the order in which they are entered: the one that runs is here, and with a stream the one after it."""

    def __init__(self, order: list[int], stream: int) -> None:
        self._stream = stream
        self._order = order if stream else []
        self._turn = 0
        self._here: dict[int, list[int]] = {}

    def _bring(self, allocator: Allocator, part: int, sizes: tuple[int, ...]) -> None:
        if part not in self._here:
            self._here[part] = [allocator.malloc(size, self._stream) for size in sizes]

    def _next(self) -> int | None:
        """The part after the one that is entered now."""
        self._turn += 1
        return self._order[self._turn] if self._turn < len(self._order) else None

    def _send(self, allocator: Allocator, part: int) -> None:
        for handle in self._here.pop(part, ()):
            allocator.free(handle)

    def end(self, allocator: Allocator) -> None:
        for part in list(self._here):
            self._send(allocator, part)


class LeafParts(_Prefetched):
    """Each module with weights of its own is a part."""

    def __init__(self, segment: Segment, *, stream: int = 0, empties_cache: bool = False) -> None:
        entered = (segment.kind == EventKind.ENTER) & (segment.size > 0)
        super().__init__(segment.ref[entered].tolist(), stream)
        self._sizes = dict(zip(segment.ref[entered].tolist(), segment.size[entered].tolist(), strict=True))
        self._empties_cache = empties_cache

    def enter(self, allocator: Allocator, module: int) -> None:
        if module not in self._sizes:
            return
        self._bring(allocator, module, (self._sizes[module],))
        following = self._next()
        if following is not None:
            self._bring(allocator, following, (self._sizes[following],))
        if self._empties_cache:
            allocator.empty_cache()

    def leave(self, allocator: Allocator, module: int) -> None:
        self._send(allocator, module)


class BlockParts(_Prefetched):
    """Each block of the network's lists is a part; what is in none comes with the call and stays to its end."""

    def __init__(self, segment: Segment, trace: Trace, *, stream: int = 0) -> None:
        rows = {path: row for row, path in enumerate(segment.modules) if path in trace.blocks}
        entered = segment.ref[segment.kind == EventKind.ENTER].tolist()
        blocks = set(rows.values())
        super().__init__([row for row in entered if row in blocks], stream)
        self._sizes: dict[int, tuple[int, ...]] = dict.fromkeys(blocks, ())
        self._rest: list[int] = []
        self._held: list[int] | None = None
        for path, own in trace.tensors.items():
            if path.split(".")[0] == segment.component:
                owner = next((parent for parent in parents(path) if parent in trace.blocks), None)
                if owner is None:
                    self._rest += own
                elif owner in rows:
                    self._sizes[rows[owner]] += own

    def enter(self, allocator: Allocator, module: int) -> None:
        if self._held is None:
            self._held = [allocator.malloc(size) for size in self._rest]
        if module not in self._sizes:
            return
        self._bring(allocator, module, self._sizes[module])
        following = self._next()
        if following is not None:
            self._bring(allocator, following, self._sizes[following])

    def leave(self, allocator: Allocator, module: int) -> None:
        self._send(allocator, module)

    def end(self, allocator: Allocator) -> None:
        super().end(allocator)
        for handle in self._held or ():
            allocator.free(handle)


def parents(path: str) -> list[str]:
    """The path and those above it, the innermost first."""
    steps = path.split(".")
    return [".".join(steps[:depth]) for depth in range(len(steps), 0, -1)]
