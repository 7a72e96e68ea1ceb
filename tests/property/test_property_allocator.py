"""Facts about the caching allocator that hold for every run of requests."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.simulate.allocator import Allocator, OutOfMemory
from autotune.simulate.allocator_blocks import AWAITED, FREE, TAKEN, UNMAPPED
from autotune.simulate.allocator_runs import smallest_limit
from autotune.simulate.allocator_settings import Settings

MIB = 2**20
MANY = settings(max_examples=150, deadline=None)
ORDINARY = [
    Settings(),
    Settings(max_split_size_bytes=32 * MIB),
    Settings(roundup_power2_divisions=(4,) * 16),
    Settings(garbage_collection_threshold=0.5),
]
EXPANDABLE = Settings(expandable_segments=True)

anyhow = st.sampled_from([*ORDINARY, EXPANDABLE])
plain = st.sampled_from(ORDINARY)
sizes = st.one_of(
    st.integers(1, 4000),
    st.integers(1, 3 * MIB),
    st.integers(1, 90).map(lambda count: count * MIB),
    st.integers(MIB, 70 * MIB),
)
streams = st.integers(0, 2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("malloc"), sizes, streams),
        st.tuples(st.just("malloc"), sizes, st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("free"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("record"), st.integers(0, 50), streams),
        st.tuples(st.sampled_from(["synchronize", "empty_cache"]), st.just(0), streams),
    ),
    max_size=60,
)


def run(allocator, script, look=lambda allocator: None):
    """Do what the script says; what is alive at the end."""
    live = []
    for action, number, stream in script:
        if action == "malloc":
            live.append(allocator.malloc(number, stream))
        elif action == "free" and live:
            allocator.free(live.pop(number % len(live)))
        elif action == "record" and live:
            allocator.record_stream(live[number % len(live)], stream)
        elif action == "synchronize":
            allocator.synchronize(stream)
        elif action == "empty_cache":
            allocator.empty_cache()
        look(allocator)
    return live


def figures(allocator):
    return {name: value for name, value in vars(allocator).items() if name.endswith("_bytes") and name != "limit_bytes"}


def check(allocator):
    """Segments do not overlap, blocks cover their segment, free neighbours are one, and the figures are their sums."""
    segments = allocator.segments()
    blocks = list(chain.from_iterable(segments))
    for segment in segments:
        for one, other in pairwise(segment):
            assert one.address + one.size == other.address
            assert not one.state == other.state == FREE
            assert not one.state == other.state == UNMAPPED
    for segment, behind in pairwise(segments):
        assert segment[-1].address + segment[-1].size <= behind[0].address
    held = {state: sum(block.size for block in blocks if block.state == state) for state in (FREE, TAKEN, AWAITED)}
    assert allocator.allocated_bytes == held[TAKEN]
    assert allocator.active_bytes == held[TAKEN] + held[AWAITED]
    assert allocator.reserved_bytes == held[TAKEN] + held[AWAITED] + held[FREE]
    assert allocator.requested_bytes <= allocator.active_bytes
    assert all(block.size % 512 == 0 for block in blocks)
    now = figures(allocator)
    assert all(now[f"peak_{name}"] >= now[name] for name in now if not name.startswith("peak_"))


@given(settings=anyhow, script=steps)
@MANY
def test_blocks_cover_their_segments_and_figures_are_their_sums(settings, script):
    run(Allocator(settings), script, check)


@given(settings=anyhow, script=steps)
@MANY
def test_freeing_everything_leaves_nothing(settings, script):
    allocator = Allocator(settings)
    for handle in run(allocator, script):
        allocator.free(handle)
    assert allocator.allocated_bytes == 0
    allocator.empty_cache()
    assert allocator.active_bytes == allocator.requested_bytes == allocator.reserved_bytes == 0
    assert allocator.segments() == []


@given(settings=anyhow, script=steps)
@MANY
def test_the_same_run_gives_the_same_figures(settings, script):
    allocators = [Allocator(settings), Allocator(settings)]
    for allocator in allocators:
        run(allocator, script)
    assert figures(allocators[0]) == figures(allocators[1])
    assert allocators[0].segments() == allocators[1].segments()


@given(settings=st.sampled_from([*ORDINARY[:3], EXPANDABLE]), script=steps, more=st.integers(0, 5))
@MANY
def test_a_limit_at_the_peak_changes_nothing(settings, script, more):
    more += settings.expandable_segments * 92 * MIB  # there a block has to fit the limit beside what it could grow from
    free = Allocator(settings)
    run(free, script)
    limited = Allocator(settings, free.peak_reserved_bytes + more)
    run(limited, script)
    assert figures(limited) == figures(free)
    assert limited.segments() == free.segments()
    assert limited.retries == 0


@given(settings=anyhow, script=steps, limit=st.integers(2 * MIB, 300 * MIB))
@MANY
def test_nothing_is_reserved_beyond_the_limit(settings, script, limit):
    allocator = Allocator(settings, limit)
    with suppress(OutOfMemory):
        run(allocator, script, check)
    check(allocator)
    assert allocator.peak_reserved_bytes <= limit


@given(settings=plain, script=steps)
@settings(max_examples=40, deadline=None)
def test_the_smallest_limit_works_and_the_next_smaller_one_does_not(settings, script):
    free = Allocator(settings)
    run(free, script)
    limit = smallest_limit(lambda limit: run(Allocator(settings, limit), script), 0, free.peak_reserved_bytes)
    assert limit <= free.peak_reserved_bytes
    run(Allocator(settings, limit), script)
    if limit:
        with pytest.raises(OutOfMemory):
            run(Allocator(settings, limit - 2 * MIB), script)


@given(script=steps)
@MANY
def test_one_stream_and_one_size_never_reserve_more_than_they_hold(script):
    """Blocks that are all alike leave no holes between them."""
    alike = [(action, 12 * MIB if action == "malloc" else number, 0) for action, number, _ in script]
    allocator = Allocator()
    run(allocator, [step for step in alike if step[0] in {"malloc", "free"}])
    assert allocator.peak_reserved_bytes == allocator.peak_allocated_bytes
    if allocator.reserved_bytes:
        with pytest.raises(OutOfMemory):
            Allocator(limit_bytes=12 * MIB - 1).malloc(12 * MIB)
