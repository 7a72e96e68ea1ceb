"""Blocks of device memory: split, merged, mapped and unmapped. Which one a request gets is decided in `allocator.py`.

c10/cuda/CUDACachingAllocator.cpp, struct by struct and function by function; private pools of CUDA graphs are left out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

__all__ = ["AWAITED", "FREE", "TAKEN", "UNMAPPED", "Block", "Pool", "Stretch", "rows"]

FREE, TAKEN, AWAITED, UNMAPPED = range(4)  # AWAITED: freed, but another stream may still read it


class Block:
    """A stretch of a segment, between its neighbours there."""

    __slots__ = ("address", "after", "before", "freed_at", "pool", "requested", "size", "state", "streams")

    def __init__(self, pool: Pool, address: int, size: int, state: int = TAKEN) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.state = state
        self.requested = 0
        self.freed_at = 0
        """How many searches of the large pool came before it was freed: its age, for garbage collection."""
        self.streams: set[int] | None = None
        """Other streams that use it (`stream_uses`); once it is freed, those that have not come to its event."""
        self.before: Block | None = None
        self.after: Block | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its segment."""
        return self.before is None and self.after is None


class Pool:
    """The free blocks of one stream, small or large ones, by size and then address."""

    __slots__ = ("free", "is_small", "page_bytes", "stream", "unmapped")

    def __init__(self, stream: int, is_small: bool, page_bytes: int) -> None:
        self.stream = stream
        self.is_small = is_small
        self.page_bytes = page_bytes
        """What an expandable segment grows by."""
        self.free: list[tuple[int, int, Block]] = []
        self.unmapped: list[tuple[int, Block]] = []
        """Addresses without memory, of expandable segments."""

    def take(self, block: Block) -> None:
        """Out of the free set."""
        del self.free[bisect_left(self.free, (block.size, block.address, block))]
        block.state = TAKEN

    def give(self, block: Block) -> None:
        """Into the free set, as one with the free blocks beside it (`free_block`, `try_merge_blocks`)."""
        free, size, address = self.free, block.size, block.address
        before, after = block.before, block.after
        if before is not None and before.state == FREE:
            del free[bisect_left(free, (before.size, before.address, before))]
            size += before.size
            address = before.address
            block.before = before = before.before
            if before is not None:
                before.after = block
        if after is not None and after.state == FREE:
            del free[bisect_left(free, (after.size, after.address, after))]
            size += after.size
            block.after = after = after.after
            if after is not None:
                after.before = block
        block.size, block.address, block.state, block.streams = size, address, FREE, None
        insort(free, (size, address, block))

    def split(self, block: Block, size: int, state: int) -> Block:
        """Cut off what is beyond `size`; the new block has this state and is in no set yet."""
        rest = Block(self, block.address + size, block.size - size, state)
        rest.before, rest.after = block, block.after
        if rest.after is not None:
            rest.after.before = rest
        block.size, block.after = size, rest
        return rest

    def cut(self, block: Block, size: int) -> None:
        """Keep the front of a taken block; the rest is free. A free block never lies behind it, so nothing merges."""
        rest = self.split(block, size, FREE)
        insort(self.free, (rest.size, rest.address, rest))

    def room(self, size: int) -> Block | None:
        """Where `size` bytes have addresses: free or unmapped blocks in a row, the lowest (`find_expandable_block`)."""
        for _, block in self.unmapped:
            start = block.before if block.before is not None and block.before.state == FREE else block
            bytes_there = 0
            here: Block | None = start
            while here is not None and here.state in {FREE, UNMAPPED} and bytes_there < size:
                bytes_there += here.size
                here = here.after
            if bytes_there >= size:
                return start
        return None

    def reach(self, address: int, size: int) -> Block:
        """A new expandable segment, all unmapped."""
        block = Block(self, address, size, UNMAPPED)
        insort(self.unmapped, (address, block))
        return block

    def pages(self, size: int) -> int:
        """`size` in whole pages."""
        return -(-size // self.page_bytes) * self.page_bytes

    def map(self, block: Block, size: int) -> None:
        """Give memory to the first `size` bytes, whole pages, of an unmapped block: free from now on (`map_block`)."""
        self._drop_unmapped(block)
        if size < block.size:
            rest = self.split(block, size, UNMAPPED)
            insort(self.unmapped, (rest.address, rest))
        self.give(block)

    def unmap(self, block: Block) -> int:
        """Take the memory of a free block's whole pages away; how many bytes that are (`unmap_block`)."""
        start = self.pages(block.address)
        end = (block.address + block.size) // self.page_bytes * self.page_bytes
        if start >= end:
            return 0
        self.take(block)
        if start > block.address:
            front, block = block, self.split(block, start - block.address, TAKEN)
            front.state = FREE
            insort(self.free, (front.size, front.address, front))
        if end < block.address + block.size:
            self.cut(block, end - block.address)
        for beside in (block.before, block.after):
            if beside is not None and beside.state == UNMAPPED:
                self._drop_unmapped(beside)
                self._absorb(block, beside)
        block.state = UNMAPPED
        if not block.is_whole:  # else nothing of its segment is mapped, and its addresses go too
            insort(self.unmapped, (block.address, block))
        return end - start

    def _drop_unmapped(self, block: Block) -> None:
        del self.unmapped[bisect_left(self.unmapped, (block.address, block))]

    @staticmethod
    def _absorb(block: Block, beside: Block) -> None:
        block.size += beside.size
        if beside is block.before:
            block.address, block.before = beside.address, beside.before
            if block.before is not None:
                block.before.after = block
        else:
            block.after = beside.after
            if block.after is not None:
                block.after.before = block


class Stretch(NamedTuple):
    """What is seen of a block from outside."""

    address: int
    size: int
    state: int
    """FREE, TAKEN, AWAITED or UNMAPPED."""


def rows(blocks: Iterable[Block]) -> list[list[Stretch]]:
    """The segments that blocks lie in, by address, each with all of its blocks."""
    heads = {block.address: block for block in blocks if block.before is None}
    return [
        [Stretch(block.address, block.size, block.state) for block in _row(heads[start])] for start in sorted(heads)
    ]


def _row(head: Block) -> Iterator[Block]:
    here: Block | None = head
    while here is not None:
        yield here
        here = here.after
