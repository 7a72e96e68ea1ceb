"""Facts about what is learned that hold for any calls."""

from __future__ import annotations

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.records.measurement import Multipliers
from autotune.simulate.learning import LARGEST, in_steps, multipliers
from tests.unit.measured import measured

FEW = settings(max_examples=100, deadline=None)
SECONDS = st.floats(1e-3, 1e3)
PARTS = st.tuples(SECONDS, SECONDS)
FACTORS = st.floats(0.5, 2.0)
MANY = 60


def taking(parts, factor):
    return measured(*parts, sum(parts) * factor)


@FEW
@given(st.lists(PARTS, max_size=20))
def test_calls_that_agree_teach_nothing(calls):
    found = multipliers([taking(parts, 1.0) for parts in calls])
    assert found.compute == pytest.approx(1.0)
    assert found.moves == pytest.approx(1.0)
    assert (in_steps(found).compute, in_steps(found).moves) == (1.0, 1.0)


@FEW
@given(SECONDS, FACTORS)
def test_a_card_that_is_slower_in_all_is_found_out(seconds, factor):
    apart = [taking((seconds, 0.0), factor), taking((0.0, seconds), factor)]
    errors = []
    for calls in (apart, apart * 4, apart * MANY):
        found = multipliers(calls)
        errors.append(max(abs(log(found.compute / factor)), abs(log(found.moves / factor))))
    assert errors[0] + 1e-9 >= errors[1]
    assert errors[1] + 1e-9 >= errors[2]
    assert errors[2] <= 0.01 * abs(log(factor)) + 1e-9


@FEW
@given(st.lists(st.tuples(SECONDS, SECONDS, st.floats(1e-6, 1e6)), max_size=30))
def test_whatever_was_measured_the_factors_keep_their_limits(calls):
    found = multipliers([measured(*call) for call in calls])
    for each in (found, in_steps(found)):
        assert 1 / LARGEST - 1e-3 <= each.compute <= LARGEST
        assert 1 / LARGEST - 1e-3 <= each.moves <= LARGEST


@FEW
@given(PARTS, FACTORS, st.floats(1.0, 1.5), st.integers(1, 20))
def test_slower_calls_never_make_a_faster_card(parts, factor, slower, count):
    def predicted_s(times):
        found = multipliers([taking(parts, times)] * count)
        return found.compute * parts[0] + found.moves * parts[1]

    assert predicted_s(factor * slower) >= predicted_s(factor) * (1 - 1e-6)


@FEW
@given(st.lists(st.tuples(SECONDS, FACTORS), min_size=1, max_size=20), st.floats(1.0, 1.4))
def test_each_factor_rises_with_its_seconds(calls, slower):
    for part in (0, 1):

        def factor(times, part=part):
            split = [((s, 0.0) if part == 0 else (0.0, s), k * times) for s, k in calls]
            found = multipliers([taking(parts, k) for parts, k in split])
            return (found.compute, found.moves)[part]

        assert factor(slower) >= factor(1.0) - 1e-9


@FEW
@given(st.permutations([taking((1.0, 2.0), 1.3), taking((5.0, 0.0), 0.8), taking((2.0, 2.0), 2.5)]))
def test_the_order_does_not_matter(calls):
    first = multipliers([taking((1.0, 2.0), 1.3), taking((5.0, 0.0), 0.8), taking((2.0, 2.0), 2.5)])
    found = multipliers(calls)
    assert found.compute == pytest.approx(first.compute)
    assert found.moves == pytest.approx(first.moves)


@FEW
@given(st.floats(1 / LARGEST, LARGEST))
def test_steps_stay_within_five_per_cent_and_are_their_own_steps(factor):
    once = in_steps(Multipliers(compute=factor, moves=factor))
    assert once.compute == pytest.approx(factor, rel=0.052)
    assert in_steps(once) == once
