"""Expandable segments, on paper: they grow by 20 MiB, for small blocks by 2 MiB."""

from __future__ import annotations

import pytest

from autotune.simulate.allocator import Allocator, OutOfMemory
from autotune.simulate.allocator_blocks import FREE, TAKEN, UNMAPPED
from autotune.simulate.allocator_settings import Settings
from tests.unit.allocators import KIB, MIB, SIDE, after, mib, pieces

EXPANDABLE = Settings(expandable_segments=True)


def test_an_expandable_segment_grows_by_pages():
    allocator, _ = after(5 * MIB, 30 * MIB, settings=EXPANDABLE)  # 5 of 20, then 15 and 20 more
    assert mib(allocator.reserved_bytes) == 40
    assert mib(allocator.allocated_bytes) == 35
    assert [piece for piece in pieces(allocator)[0] if piece[1] != UNMAPPED] == [(5, TAKEN), (30, TAKEN), (5, FREE)]


def test_small_pages_are_of_2_mib_and_rests_are_split_exactly():
    allocator, _ = after(MIB, MIB, KIB, 11 * MIB, settings=EXPANDABLE)
    assert mib(allocator.reserved_bytes) == 2 + 2 + 20
    assert allocator.allocated_bytes == 13 * MIB + KIB


def test_an_expandable_segment_has_no_holes_between_segments():
    """Without it, 30 + 30 MiB freed serve no 60."""
    for settings, reserved in ((EXPANDABLE, 60), (None, 120)):
        allocator, handles = after(30 * MIB, 30 * MIB, settings=settings)
        for handle in handles:
            allocator.free(handle)
        allocator.malloc(60 * MIB)
        assert mib(allocator.reserved_bytes) == reserved


def test_closed_holes_are_filled_before_the_end_that_can_grow():
    """Free are 12 MiB in between and 10 at the end, which are smaller but can grow: 9 MiB go in between."""
    allocator, handles = after(9 * MIB, 12 * MIB, 9 * MIB, settings=EXPANDABLE)
    allocator.free(handles[1])
    allocator.malloc(9 * MIB)
    held = [piece for piece in pieces(allocator)[0] if piece[1] != UNMAPPED]
    assert held == [(9, TAKEN), (9, TAKEN), (3, FREE), (9, TAKEN), (10, FREE)]


def test_whole_free_pages_are_given_back():
    allocator, [first, _, last] = after(50 * MIB, 5 * MIB, 45 * MIB, settings=EXPANDABLE)
    allocator.free(first)
    allocator.empty_cache()  # pages 0 and 1 of 20 MiB; 10 MiB of page 2 stay
    assert mib(allocator.reserved_bytes) == 60
    assert pieces(allocator)[0][:4] == [(40, UNMAPPED), (10, FREE), (5, TAKEN), (45, TAKEN)]
    allocator.malloc(50 * MIB)  # mapped again, with the rest before the block
    assert mib(allocator.reserved_bytes) == 100
    allocator.free(last)
    allocator.empty_cache()  # from 55 to 60 MiB stays
    assert mib(allocator.reserved_bytes) == 60
    assert pieces(allocator)[0][1:3] == [(5, TAKEN), (5, FREE)]


def test_streams_grow_their_own():
    allocator = Allocator(EXPANDABLE)
    allocator.malloc(5 * MIB)
    allocator.malloc(5 * MIB, stream=SIDE)
    assert mib(allocator.reserved_bytes) == 40


def test_at_the_limit_pages_move_from_one_stream_to_the_other():
    allocator = Allocator(EXPANDABLE, limit_bytes=60 * MIB)
    allocator.free(allocator.malloc(40 * MIB))
    allocator.malloc(40 * MIB, stream=SIDE)
    assert mib(allocator.reserved_bytes) == 40
    assert allocator.retries == 1


def test_a_page_beyond_the_limit_is_not_mapped():
    """22 MiB pass the first check, but are two pages, and 30 MiB hold one."""
    allocator = Allocator(EXPANDABLE, limit_bytes=30 * MIB)
    with pytest.raises(OutOfMemory):
        allocator.malloc(22 * MIB)
    assert allocator.reserved_bytes == 0
