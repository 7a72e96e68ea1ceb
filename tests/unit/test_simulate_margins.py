"""Error bars of seconds: computing and moving, each by its share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.records.plan import Plan
from autotune.simulate.margins import COMPUTING, MOVES, latency_bar, moves_of
from autotune.simulate.speed import sustained
from tests.unit.handmade import CARD, estimate

MEASURED = CARD.model_copy(update={"speed": sustained(CARD)})
PLANS = {
    "none": Plan(),
    "leaf": Plan(offload="sequential"),
    "pageable": Plan(offload="model"),
    "pinned": Plan(offload="group:leaf+stream"),
}


@pytest.mark.parametrize(
    ("plan", "moves"),
    [
        *((plan, moves) for moves, plan in PLANS.items()),
        (Plan(offload="group:block"), "pageable"),
        (Plan(offload="group:leaf+stream+low_cpu_mem"), "pageable"),
        (Plan(text_encoders="leave"), "pageable"),
        (Plan(text_encoders="cpu"), "none"),
        (Plan(offload="group:block+stream", text_encoders="leave"), "pinned"),
    ],
)
def test_how_weights_move(plan, moves):
    assert moves_of(plan) == moves


@given(st.sampled_from(sorted(PLANS)), st.sampled_from([CARD, MEASURED]), st.floats(0, 1))
def test_a_bar_lies_between_that_of_computing_and_that_of_moving(moves, device, share):
    computing, moving = COMPUTING[device.speed is not None], MOVES[moves]
    bar = latency_bar(device, PLANS[moves], share)
    for end in range(2):
        low, high = sorted((computing[end], moving[end]))
        assert low - 1e-3 <= bar[end] <= high + 1e-3
    assert latency_bar(device, PLANS[moves], 0) == computing
    assert latency_bar(device, PLANS[moves], 1) == moving


def test_a_user_who_waited_a_quarter_of_an_hour_is_within_the_bar():
    """FLUX.1-dev, RTX 3090, 1344x768, 50 steps, sequential: 274 s are predicted, 191 of them moves; reported are 15 minutes."""
    bar = latency_bar(CARD, PLANS["leaf"], 191.1 / 273.7)
    assert 273.7 * (1 + bar.more) > 15 * 60


def test_a_range_of_seconds():
    assert estimate(latency_s=10.0).latency_range_s == pytest.approx((6.5, 13.5))
    wide = estimate(latency_s=10.0, latency_margin=2.0, latency_margin_less=0.4)
    assert wide.latency_range_s == pytest.approx((6.0, 30.0))
    assert estimate(latency_margin=1.0).latency_range_s[0] == 0
