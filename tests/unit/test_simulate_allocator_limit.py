"""The caching allocator where memory runs out, on paper as well."""

from __future__ import annotations

import pytest

from autotune.simulate.allocator import Allocator, OutOfMemory
from autotune.simulate.allocator_blocks import FREE, TAKEN
from autotune.simulate.allocator_settings import Settings
from tests.unit.allocators import KIB, MAIN, MIB, SIDE, after, mib, pieces

# the limit


def test_within_the_limit_nothing_is_given_back():
    allocator = Allocator(limit_bytes=60 * MIB)
    allocator.free(allocator.malloc(30 * MIB))
    allocator.malloc(14 * MIB, stream=SIDE)
    assert mib(allocator.reserved_bytes) == 44
    assert allocator.retries == 0


def test_at_the_limit_whole_segments_are_given_back():
    """30 MiB are cached, 40 are asked for and 60 are allowed."""
    allocator = Allocator(limit_bytes=60 * MIB)
    allocator.free(allocator.malloc(30 * MIB))
    allocator.malloc(40 * MIB)
    assert mib(allocator.reserved_bytes) == 40
    assert allocator.retries == 1


def test_of_all_streams_and_pools():
    allocator = Allocator(limit_bytes=60 * MIB)
    for stream in (MAIN, SIDE):
        allocator.free(allocator.malloc(20 * MIB, stream))
        allocator.free(allocator.malloc(KIB, stream))
    allocator.malloc(60 * MIB)
    assert mib(allocator.reserved_bytes) == 60


def test_segments_in_use_stay():
    """5 of 20 MiB are taken, so that 40 more do not fit."""
    allocator = Allocator(limit_bytes=59 * MIB)
    kept = allocator.malloc(5 * MIB)
    with pytest.raises(
        OutOfMemory, match=r"42 MB asked for with 5 MB allocated and 21 MB reserved of 62 MB"
    ) as failure:
        allocator.malloc(40 * MIB)
    error = failure.value
    assert [mib(error.requested_bytes), mib(error.allocated_bytes), mib(error.reserved_bytes)] == [40, 5, 20]
    assert error.limit_bytes == 59 * MIB
    assert allocator.retries == 1
    allocator.free(kept)
    allocator.malloc(40 * MIB)
    assert allocator.retries == 2


def test_at_the_limit_other_streams_are_waited_for():
    allocator = Allocator(limit_bytes=60 * MIB)
    handle = allocator.malloc(30 * MIB)
    allocator.record_stream(handle, SIDE)
    allocator.free(handle)
    allocator.malloc(40 * MIB)
    assert mib(allocator.active_bytes) == mib(allocator.reserved_bytes) == 40


def test_emptying_the_cache():
    allocator, handles = after(30 * MIB, 5 * MIB, 5 * MIB, KIB)
    for handle in (handles[0], handles[1], handles[3]):
        allocator.free(handle)
    allocator.empty_cache()
    assert pieces(allocator) == [[(5, FREE), (5, TAKEN), (10, FREE)]]
    assert mib(allocator.reserved_bytes) == 20
    assert mib(allocator.peak_reserved_bytes) == 52
    assert allocator.retries == 0
    allocator.reset_peaks()
    assert mib(allocator.peak_reserved_bytes) == 20
    assert mib(allocator.peak_allocated_bytes) == mib(allocator.peak_active_bytes) == 5
    assert mib(allocator.peak_requested_bytes) == 5


# blocks that are not split


def test_an_oversize_block_does_not_serve_a_smaller_request():
    allocator, [handle] = after(60 * MIB, settings=Settings(max_split_size_bytes=40 * MIB))
    allocator.free(handle)
    allocator.malloc(30 * MIB)
    assert mib(allocator.reserved_bytes) == 90


def test_an_oversize_block_serves_what_is_nearly_as_large_whole():
    allocator, [handle] = after(60 * MIB, settings=Settings(max_split_size_bytes=40 * MIB))
    allocator.free(handle)
    handle = allocator.malloc(41 * MIB)
    assert mib(allocator.allocated_bytes) == mib(allocator.reserved_bytes) == 60
    allocator.free(handle)
    allocator.malloc(40 * MIB)  # 20 MiB larger is not less than max_non_split_rounding larger
    assert mib(allocator.reserved_bytes) == 100


def test_at_the_limit_one_oversize_block_that_would_do_is_given_back_first():
    """The 50 MiB suffice; the 30 MiB stay cached and nothing is counted as a retry."""
    allocator = Allocator(Settings(max_split_size_bytes=40 * MIB), limit_bytes=140 * MIB)
    for handle in [allocator.malloc(request * MIB) for request in (30, 50, 60)]:
        allocator.free(handle)
    allocator.malloc(39 * MIB)
    assert pieces(allocator) == [[(30, FREE)], [(60, FREE)], [(40, TAKEN)]]
    assert allocator.retries == 0


def test_or_several_from_the_largest_on():
    allocator = Allocator(Settings(max_split_size_bytes=40 * MIB), limit_bytes=180 * MIB)
    for handle in [allocator.malloc(request * MIB) for request in (30, 42, 50, 58)]:
        allocator.free(handle)
    allocator.malloc(100 * MIB)
    assert pieces(allocator) == [[(30, FREE)], [(42, FREE)], [(100, TAKEN)]]
    assert allocator.retries == 0


def test_or_everything_where_they_are_too_few():
    allocator = Allocator(Settings(max_split_size_bytes=40 * MIB), limit_bytes=100 * MIB)
    for handle in [allocator.malloc(request * MIB) for request in (30, 50)]:
        allocator.free(handle)
    allocator.malloc(90 * MIB)
    assert pieces(allocator) == [[(90, TAKEN)]]
    assert allocator.retries == 1


# garbage collection


def test_garbage_collection_gives_back_what_was_unused_longest():
    """Above 60 of 100 MiB, when 50 are asked for: 30 MiB were free during two searches and 34 during one. Mean: 1.5."""
    allocator = Allocator(Settings(garbage_collection_threshold=0.6), limit_bytes=100 * MIB)
    first, second = allocator.malloc(30 * MIB), allocator.malloc(34 * MIB)
    allocator.free(first)
    allocator.free(second)
    allocator.free(allocator.malloc(34 * MIB))
    allocator.malloc(50 * MIB)
    assert pieces(allocator) == [[(34, FREE)], [(50, TAKEN)]]
    assert allocator.retries == 0


def test_garbage_collection_goes_on_until_enough_is_free():
    """Above 20 MiB: after the 30 MiB the mean is the age of the 34, and they go too."""
    allocator = Allocator(Settings(garbage_collection_threshold=0.2), limit_bytes=100 * MIB)
    first, second = allocator.malloc(30 * MIB), allocator.malloc(34 * MIB)
    allocator.free(first)
    allocator.free(second)
    allocator.free(allocator.malloc(34 * MIB))
    allocator.malloc(50 * MIB)
    assert pieces(allocator) == [[(50, TAKEN)]]


def test_garbage_collection_stops_when_nothing_is_left():
    allocator = Allocator(Settings(garbage_collection_threshold=0.1), limit_bytes=100 * MIB)
    allocator.malloc(30 * MIB)
    allocator.free(allocator.malloc(40 * MIB))
    allocator.malloc(50 * MIB)
    assert mib(allocator.reserved_bytes) == 80
