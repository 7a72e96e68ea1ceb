"""torch's caching allocator of CUDA memory, replayed: what is reserved on the card, allocation by allocation.

The native backend as in c10/cuda/CUDACachingAllocator.cpp. Left out: private pools of CUDA graphs, blocks shared between
processes, memory that others take from the card. Two things are simpler than there: an event is over when `synchronize`
says so, and an expandable segment never runs out of addresses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain

from autotune.simulate.allocator_blocks import AWAITED, FREE, TAKEN, UNMAPPED, Block, Pool, Stretch, rows
from autotune.simulate.allocator_figures import Figures, OutOfMemory
from autotune.simulate.allocator_settings import MIN_BLOCK_BYTES, SMALL_BYTES, SMALL_SEGMENT_BYTES, Settings

__all__ = ["Allocator", "OutOfMemory"]

_PAGES = 2**16  # of addresses in an expandable segment; torch takes addresses for 9/8 of the card's memory


class Allocator(Figures):
    """Memory of one card, handed out as torch would. Streams are numbers, handles too; 0 is the handle of no bytes.

    >>> allocator = Allocator()
    >>> handle = allocator.malloc(11 * 2**20)
    >>> allocator.allocated_bytes // 2**20, allocator.reserved_bytes // 2**20
    (12, 12)
    >>> allocator.free(handle)
    >>> allocator.allocated_bytes, allocator.reserved_bytes // 2**20
    (0, 12)
    """

    def __init__(self, settings: Settings | None = None, limit_bytes: int | None = None) -> None:
        self.settings = settings or Settings()
        super().__init__(limit_bytes)
        self._pools: tuple[dict[int, Pool], dict[int, Pool]] = {}, {}  # large and small ones, by stream
        self._live: dict[int, Block] = {}
        self._awaited: dict[int, list[Block]] = {}  # freed blocks, by the streams that still use them
        self._last_handle = 0
        self._next_address = MIN_BLOCK_BYTES * 2**12
        self._searches = 0
        unlimited = 2**62
        self._max_split = self.settings.max_split_size_bytes or unlimited
        self._expandable = self.settings.expandable_segments
        self._rounds_to_512 = not any(self.settings.roundup_power2_divisions)

    def malloc(self, size_bytes: int, stream: int = 0) -> int:
        """The handle of a new block of at least this size.

        Raises:
            OutOfMemory: not even after everything cached was given back.
        """
        if size_bytes <= 0:
            return 0
        wanted = (size_bytes + 511) & -512 if self._rounds_to_512 else self.settings.block_bytes(size_bytes)
        is_small = wanted <= SMALL_BYTES
        pool = self._pools[is_small].get(stream) or self._new_pool(stream, is_small)
        block = self._best_fit(pool, wanted) or self._more(pool, wanted, size_bytes)
        rest = block.size - wanted
        if rest and self.settings.splits(wanted, rest):
            pool.cut(block, wanted)
        return self._hand_out(block, size_bytes)

    def free(self, handle: int) -> None:
        """Give a block back. It can be used again at once, on its own stream, unless another stream uses it."""
        if not handle:
            return
        block = self._live.pop(handle)
        self.allocated_bytes -= block.size
        if block.streams:
            block.state = AWAITED
            for stream in block.streams:
                self._awaited.setdefault(stream, []).append(block)
        else:
            self._free_block(block)

    def record_stream(self, handle: int, stream: int) -> None:
        """Say that another stream uses the block: after `free` it stays active until that stream was synchronised."""
        block = self._live.get(handle)
        if block is not None and stream != block.pool.stream:
            block.streams = (block.streams or set()) | {stream}

    def adopt(self, stream: int, is_small: bool, pieces: Sequence[tuple[int, int]]) -> list[int]:
        """Take over a segment that was there before: of each block its size and what was asked for, or 0 where it is free.

        Gives their handles, 0 for the free ones.
        """
        pool = self._pools[is_small].get(stream) or self._new_pool(stream, is_small)
        segment = sum(piece for piece, _ in pieces)
        self.count_reserved(segment)
        block, handles = Block(pool, self._addresses(segment), segment), []
        for piece, requested in pieces:
            rest = pool.split(block, piece, TAKEN) if piece < block.size else block
            if requested:
                handles.append(self._hand_out(block, requested))
            else:
                handles.append(0)
                pool.give(block)
            block = rest
        return handles

    def synchronize(self, stream: int | None = None) -> None:
        """Everything queued on a stream, or on all of them, is done: what awaited it is free."""
        for done in list(self._awaited) if stream is None else [stream]:
            for block in self._awaited.pop(done, ()):
                block.streams = (block.streams or set()) - {done}
                if not block.streams:
                    self._free_block(block)

    def empty_cache(self) -> None:
        """Give back every segment that is wholly free, after waiting for all streams (`release_cached_blocks`)."""
        self.synchronize()
        for pool in self._all_pools():
            for _, _, block in list(pool.free):
                if self._expandable:
                    self.reserved_bytes -= pool.unmap(block)
                elif block.is_whole:
                    self._release(block)

    def segments(self) -> list[list[Stretch]]:
        """All segments by address, each with the blocks that make it up."""
        pools = self._all_pools()
        free = (block for pool in pools for _, _, block in pool.free)
        unmapped = (block for pool in pools for _, block in pool.unmapped)
        return rows(chain(self._live.values(), chain.from_iterable(self._awaited.values()), free, unmapped))

    def _all_pools(self) -> list[Pool]:
        return [pool for by_stream in self._pools for pool in by_stream.values()]

    def _hand_out(self, block: Block, size_bytes: int) -> int:
        block.requested = size_bytes
        self.count_taken(block.size, size_bytes)
        self._last_handle = handle = self._last_handle + 1
        self._live[handle] = block
        return handle

    def _free_block(self, block: Block) -> None:
        self.active_bytes -= block.size
        self.requested_bytes -= block.requested
        block.freed_at = self._searches
        block.pool.give(block)

    def _new_pool(self, stream: int, is_small: bool) -> Pool:
        page_bytes = SMALL_SEGMENT_BYTES if is_small else self.settings.large_segment_bytes
        pool = self._pools[is_small][stream] = Pool(stream, is_small, page_bytes)
        return pool

    def _best_fit(self, pool: Pool, wanted: int) -> Block | None:
        """The smallest free block that is large enough, the lowest of these; out of the free set (`get_free_block`)."""
        self._searches += not pool.is_small
        free = pool.free
        index = bisect_left(free, (wanted,))
        if index == len(free):
            return None
        if self._expandable:  # a block counts as large as it can grow, so that closed holes are filled first
            while index + 1 < len(free) and _reach(free[index + 1][2]) < _reach(free[index][2]):
                index += 1
        found, _, block = free[index]
        if found >= self._max_split and (
            wanted < self._max_split or found >= wanted + self.settings.max_non_split_rounding_bytes
        ):
            return None
        del free[index]
        block.state = TAKEN
        return block

    def _more(self, pool: Pool, wanted: int, size_bytes: int) -> Block:
        """New memory; where the limit is reached, after giving back first some and then everything that is cached."""
        self._collect_garbage()
        block = self._grow(pool, wanted)
        if block is None and self._release_oversize(pool, wanted):
            block = self._grow(pool, wanted)
        if block is None:
            self.empty_cache()
            self.retries += 1
            block = self._grow(pool, wanted)
        if block is None:
            raise OutOfMemory(size_bytes, self)
        return block

    def _grow(self, pool: Pool, wanted: int) -> Block | None:
        """A new segment, or more pages of an expandable one (`alloc_block`); None where the limit is in the way."""
        opened = self.settings.segment_bytes(wanted)
        if not self._has(opened):
            return None
        if self._expandable:
            return self._grow_pages(pool, wanted)
        self.count_reserved(opened)
        return Block(pool, self._addresses(opened), opened)

    def _grow_pages(self, pool: Pool, wanted: int) -> Block | None:
        """Map pages behind what is free already until the block is large enough (`try_allocate_expandable_block`).

        The check before this is torch's: it counts the whole block, also what it gets of pages that are there, but no page
        beyond it, so that torch may pass a fraction of the card by less than a page. Here the limit is the card itself:
        where a page has no place, mapping fails as it would there.
        """
        addresses = max(pool.page_bytes * _PAGES, pool.pages(wanted))
        block = pool.room(wanted) or pool.reach(self._addresses(addresses, pool.page_bytes), addresses)
        held = 0 if block.state == UNMAPPED else block.size
        while held < wanted:
            growing = block if block.state == UNMAPPED else block.after
            assert growing is not None  # `room` has counted the addresses
            pages = min(pool.pages(wanted - held), growing.size)
            if not self._has(pages):
                return None
            self.count_reserved(pages)
            pool.map(growing, pages)
            block, held = growing, growing.size
        pool.take(block)
        return block

    def _has(self, more_bytes: int) -> bool:
        return self.limit_bytes is None or self.reserved_bytes + more_bytes <= self.limit_bytes

    def _addresses(self, count: int, multiple: int = SMALL_SEGMENT_BYTES) -> int:
        start = -(-self._next_address // multiple) * multiple
        self._next_address = start + count
        return start

    def _release(self, block: Block) -> None:
        """Give back a segment that is one free block (`release_block`)."""
        block.pool.take(block)
        self.reserved_bytes -= block.size

    def _release_oversize(self, pool: Pool, wanted: int) -> bool:
        """One unsplittable block that would do, or the largest until they would (`release_available_cached_blocks`)."""
        if self.settings.max_split_size_bytes is None or self._expandable:
            return False
        enough = max(wanted, self._max_split)
        index = bisect_left(pool.free, (enough,))
        if index < len(pool.free):
            self._release(pool.free[index][2])
            return True
        released = 0
        while released < enough and pool.free and pool.free[-1][0] >= self._max_split:
            released += pool.free[-1][0]
            self._release(pool.free[-1][2])
        return released >= enough

    def _collect_garbage(self) -> None:
        """Give back large segments, those unused longest, until a share of the limit (`garbage_collect_cached_blocks`)."""
        threshold = self.settings.garbage_collection_threshold
        if not threshold or self.limit_bytes is None or self._expandable:
            return
        target = int(threshold * self.limit_bytes)
        blocks = [entry[2] for pool in self._pools[False].values() for entry in pool.free if entry[2].is_whole]
        while self.reserved_bytes > target and blocks:
            mean_age = sum(self._searches - block.freed_at for block in blocks) / len(blocks)
            for block in blocks:
                if self._searches - block.freed_at >= mean_age:
                    self._release(block)
            blocks = [block for block in blocks if block.state == FREE]


def _reach(block: Block) -> int:
    """What a free block can grow to: its size and the addresses without memory behind it."""
    after = block.after
    return block.size + (after.size if after is not None and after.state == UNMAPPED else 0)
