"""The allocator in C and the one in Python are one: any program, any settings, any limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.simulate.allocator import OutOfMemory
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.heap import IS_COMPILED, LOCAL, STREAM, Code, Heap

pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="the allocator in C was not built")

MIB = 2**20
FIGURES = ("allocated_bytes", "peak_allocated_bytes", "reserved_bytes", "peak_reserved_bytes", "retries")

sizes = st.one_of(st.integers(0, 2048), st.integers(1, 200).map(lambda n: n * MIB // 512), st.integers(1, 30_000))
codes = st.sampled_from(
    [Code.MALLOC] * 6 + [Code.FREE] * 5 + [Code.HOLD] * 2 + [Code.ONCE, Code.EMPTY, Code.RESET],
)
tables = st.sampled_from([0, LOCAL])
streams = st.sampled_from([0, 0, 0, STREAM, 2 * STREAM])
rows = st.tuples(codes, tables, streams, st.integers(0, 25), sizes).map(
    lambda row: (row[0] + row[1] + row[2], row[3], row[4] * 512)
)
programs = st.lists(rows, max_size=250)
allocators = st.builds(
    Settings,
    large_segment_bytes=st.sampled_from([20 * MIB, 32 * MIB]),
    max_split_size_bytes=st.sampled_from([None, None, 32 * MIB, 64 * MIB]),
    max_non_split_rounding_bytes=st.sampled_from([20 * MIB, 64 * MIB]),
    expandable_segments=st.booleans(),
    garbage_collection_threshold=st.sampled_from([0.0, 0.0, 0.5, 0.9]),
)
limits = st.sampled_from([None, 60 * MIB, 150 * MIB, 400 * MIB])


def played(program, allocator, limit, *, compiled):
    """What is counted after the program, and where the limit ended it."""
    heap = Heap(allocator, limit, compiled=compiled)
    ended = None
    try:
        heap.play(np.array(program, dtype=np.int64).reshape(-1, 3))
    except OutOfMemory as error:
        ended = error.requested_bytes
    return ended, {name: getattr(heap, name) for name in FIGURES}


@given(program=programs, allocator=allocators, limit=limits)
@settings(max_examples=300, deadline=None)
def test_both_count_the_same(program, allocator, limit):
    assert played(program, allocator, limit, compiled=True) == played(program, allocator, limit, compiled=False)


@pytest.mark.parametrize("compiled", [True, False], ids=["in C", "in Python"])
@pytest.mark.parametrize(
    "row", [(6, 0, 512), (7, 0, 512), (3 * STREAM, 0, 512), (0, -1, 512), (0, 0, -1), (0, 2**40, 1)]
)
def test_what_is_no_instruction_is_refused(row, compiled):
    with pytest.raises(ValueError, match="row 1 is not an instruction"):
        Heap(compiled=compiled).play(np.array([(0, 1, 512), row], dtype=np.int64))


@pytest.mark.parametrize("array", [np.zeros(4, dtype=np.int64), np.zeros((2, 3), dtype=np.int32)])
def test_what_is_no_program_is_refused(array):
    with pytest.raises(ValueError, match="not an instruction"):
        Heap().play(array)
