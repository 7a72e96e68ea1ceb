"""The caching allocator, case by case; every number follows from the rules of c10/cuda/CUDACachingAllocator.cpp on paper."""

from __future__ import annotations

import pytest

from autotune.records.trace import EventKind
from autotune.simulate.allocator import Allocator, OutOfMemory
from autotune.simulate.allocator_blocks import AWAITED, FREE, TAKEN
from autotune.simulate.allocator_runs import replay, smallest_limit
from autotune.simulate.allocator_settings import Settings
from tests.unit.allocators import MAIN, MIB, SIDE, after, mib, pieces

# sizes


@pytest.mark.parametrize(("asked", "given"), [(1, 512), (512, 512), (513, 1024), (MIB - 1, MIB)])
def test_blocks_are_multiples_of_512(asked, given):
    allocator, _ = after(asked)
    assert (allocator.allocated_bytes, allocator.requested_bytes) == (given, asked)


@pytest.mark.parametrize(
    ("asked", "reserved"),
    [
        (1, 2),
        (MIB, 2),
        (MIB + 1, 20),
        (9.9 * MIB, 20),
        (10 * MIB - 512, 20),
        (10 * MIB - 511, 10),  # rounded up it is 10 MiB
        (10 * MIB, 10),
        (10 * MIB + 1, 12),
        (11 * MIB, 12),
        (12 * MIB, 12),
        (100 * MIB + 1, 102),
    ],
)
def test_what_a_first_request_reserves(asked, reserved):
    allocator, _ = after(int(asked))
    assert mib(allocator.reserved_bytes) == mib(allocator.peak_reserved_bytes) == reserved


def test_a_rest_of_one_mib_is_not_split_off_a_large_block():
    allocator, _ = after(11 * MIB)
    assert mib(allocator.allocated_bytes) == 12
    assert mib(allocator.requested_bytes) == 11
    assert pieces(allocator) == [[(12, TAKEN)]]


def test_a_larger_rest_is():
    allocator, _ = after(11 * MIB - 512)
    assert allocator.allocated_bytes == 11 * MIB - 512
    assert [state for _, state in pieces(allocator)[0]] == [TAKEN, FREE]


def test_a_small_block_is_split_to_the_last_512():
    allocator, _ = after(MIB, MIB - 512)
    assert allocator.allocated_bytes == 2 * MIB - 512
    assert pieces(allocator) == [[(1, TAKEN), ((MIB - 512) / MIB, TAKEN), (512 / MIB, FREE)]]


def test_no_bytes_are_no_block():
    allocator, [handle] = after(0)
    assert handle == 0
    allocator.free(handle)
    assert allocator.reserved_bytes == allocator.allocated_bytes == 0


@pytest.mark.parametrize(
    ("asked", "given"),
    [(1200, 1536), (2048, 2048), (5000, 5120), (MIB + 1, 1.25 * MIB), (1.5 * MIB, 1.5 * MIB), (1.6 * MIB, 1.75 * MIB)],
)
def test_sizes_between_powers_of_two_in_four_steps(asked, given):
    settings = Settings(roundup_power2_divisions=(4,) * 16)
    assert settings.block_bytes(int(asked)) == given


def test_steps_by_size_class():
    settings = Settings(roundup_power2_divisions=(0, 2, *[0] * 14))
    assert settings.block_bytes(MIB + 1) == MIB + 512
    assert settings.block_bytes(2 * MIB + 1) == 3 * MIB
    assert settings.block_bytes(4 * MIB + 1) == 4 * MIB + 512
    assert Settings(roundup_power2_divisions=(*[0] * 15, 2)).block_bytes(2**40 + 1) == 2**40 + 2**39


# which block


def test_small_and_large_do_not_mix():
    allocator, handles = after(20 * MIB)
    allocator.free(handles[0])
    allocator.malloc(MIB)
    assert mib(allocator.reserved_bytes) == 22


def test_what_was_freed_is_used_again():
    allocator, handles = after(30 * MIB)
    allocator.free(handles[0])
    allocator.malloc(14 * MIB)
    allocator.malloc(16 * MIB)
    assert mib(allocator.reserved_bytes) == 30
    assert allocator.retries == 0


def test_the_smallest_block_that_is_large_enough_comes_first():
    allocator, handles = after(40 * MIB, 30 * MIB, 50 * MIB)
    for handle in handles:
        allocator.free(handle)
    allocator.malloc(25 * MIB)
    assert pieces(allocator) == [[(40, FREE)], [(25, TAKEN), (5, FREE)], [(50, FREE)]]


def test_of_equals_the_lowest():
    allocator, handles = after(30 * MIB, 30 * MIB)
    for handle in reversed(handles):
        allocator.free(handle)
    allocator.malloc(30 * MIB)
    assert pieces(allocator) == [[(30, TAKEN)], [(30, FREE)]]


def test_neighbours_become_one():
    allocator, [first, middle, last] = after(5 * MIB, 5 * MIB, 5 * MIB)
    allocator.free(first)
    assert pieces(allocator) == [[(5, FREE), (5, TAKEN), (5, TAKEN), (5, FREE)]]
    allocator.free(last)
    assert pieces(allocator) == [[(5, FREE), (5, TAKEN), (10, FREE)]]
    allocator.free(middle)
    assert pieces(allocator) == [[(20, FREE)]]


def test_fragmentation_opens_segments():
    """8 + 8 MiB lie in 20 MiB. The first goes: 8 and 4 MiB are free, but not 9 in a row."""
    allocator, [first, _] = after(8 * MIB, 8 * MIB)
    allocator.free(first)
    allocator.malloc(9 * MIB)
    assert mib(allocator.allocated_bytes) == 17
    assert mib(allocator.reserved_bytes) == 40


def test_streams_do_not_share():
    allocator, [handle] = after(30 * MIB)
    allocator.free(handle)
    allocator.malloc(30 * MIB, stream=SIDE)
    assert mib(allocator.reserved_bytes) == 60


# other streams


def test_a_block_that_another_stream_uses_stays_active():
    allocator, [handle] = after(30 * MIB)
    allocator.record_stream(handle, SIDE)
    allocator.free(handle)
    assert (allocator.allocated_bytes, mib(allocator.active_bytes), mib(allocator.requested_bytes)) == (0, 30, 30)
    assert pieces(allocator) == [[(30, AWAITED)]]
    allocator.malloc(30 * MIB)
    assert mib(allocator.reserved_bytes) == 60
    allocator.synchronize()
    assert mib(allocator.active_bytes) == 30
    allocator.malloc(30 * MIB)
    assert mib(allocator.reserved_bytes) == 60
    assert mib(allocator.peak_active_bytes) == 60


def test_all_streams_that_use_it_have_to_be_done():
    allocator, [handle] = after(30 * MIB)
    allocator.record_stream(handle, SIDE)
    allocator.record_stream(handle, 2)
    allocator.free(handle)
    allocator.synchronize(SIDE)
    assert mib(allocator.active_bytes) == 30
    allocator.synchronize(2)
    assert allocator.active_bytes == 0


def test_events_lie_where_the_block_is_freed():
    allocator, [handle] = after(30 * MIB)
    allocator.record_stream(handle, SIDE)
    allocator.synchronize()
    allocator.free(handle)
    assert mib(allocator.active_bytes) == 30


def test_its_own_stream_is_no_other():
    allocator, [handle] = after(30 * MIB)
    allocator.record_stream(handle, MAIN)
    allocator.free(handle)
    assert allocator.active_bytes == 0


def test_a_block_used_again_awaits_nobody():
    allocator, [handle] = after(30 * MIB)
    allocator.record_stream(handle, SIDE)
    allocator.free(handle)
    allocator.synchronize()
    allocator.free(allocator.malloc(30 * MIB))
    assert allocator.active_bytes == 0


# runs


def test_a_replay_goes_over_segments():
    allocator = Allocator()
    live = replay(allocator, [EventKind.ALLOC, EventKind.ENTER, EventKind.ALLOC], [1, 0, 2], [30 * MIB, 9, 12 * MIB])
    replay(allocator, [EventKind.FREE, EventKind.FREE, EventKind.OP], [1, 99, 1], [30 * MIB, 4, 0], live=live)
    assert list(live) == [2]
    assert (mib(allocator.peak_allocated_bytes), mib(allocator.allocated_bytes)) == (42, 12)


def test_a_replay_has_a_stream():
    allocator = Allocator()
    for stream in (MAIN, SIDE):
        replay(allocator, [0, 1], [1, 1], [30 * MIB, 30 * MIB], stream=stream)
    assert mib(allocator.reserved_bytes) == 60


def grow_and_shrink(allocator):
    allocator.free(allocator.malloc(30 * MIB))
    allocator.malloc(40 * MIB)


def under(run, settings=None):
    """Runs on an empty card of that limit."""
    return lambda limit_bytes: run(Allocator(settings, limit_bytes))


def test_the_smallest_limit_is_less_than_what_is_reserved_without_one():
    allocator = Allocator()
    grow_and_shrink(allocator)
    assert mib(allocator.reserved_bytes) == 70
    assert mib(smallest_limit(under(grow_and_shrink), 0, allocator.reserved_bytes)) == 40


def test_the_smallest_limit_starts_where_it_is_told():
    assert mib(smallest_limit(under(grow_and_shrink), 51 * MIB, 70 * MIB)) == 52  # to 2 MiB
    with pytest.raises(OutOfMemory):
        smallest_limit(under(grow_and_shrink), 0, 38 * MIB)


def test_the_smallest_limit_depends_on_the_settings():
    expandable = Settings(expandable_segments=True)
    assert mib(smallest_limit(under(lambda allocator: allocator.malloc(41 * MIB), expandable), 0, 70 * MIB)) == 60


def test_a_segment_that_was_there_before():
    allocator = Allocator()
    handles = allocator.adopt(MAIN, False, [(4 * MIB, 0), (6 * MIB, 6 * MIB - 5), (10 * MIB, 0)])
    assert pieces(allocator) == [[(4, FREE), (6, TAKEN), (10, FREE)]]
    assert (mib(allocator.allocated_bytes), mib(allocator.reserved_bytes)) == (6, 20)
    allocator.free(handles[1])
    assert pieces(allocator) == [[(20, FREE)]]
