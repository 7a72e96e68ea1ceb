"""From recorded turns to a whole call."""

from __future__ import annotations

import pytest

from autotune.simulate.steps import over_call_s, steady_s
from tests.unit.handmade import segment


def turn(number: int, network_s: float, own_s: float | None = None):
    yield segment(turn=number), network_s
    if own_s is not None:
        yield segment(component="", turn=number), own_s


def test_later_turns_stand_for_the_rest_and_the_last_gets_a_step_of_the_scheduler():
    timed = [*turn(0, 5.0, 0.25), *turn(1, 2.0, 0.5), *turn(2, 3.0)]
    assert steady_s(timed) == pytest.approx((2.0 + 3.0) / 2 + (0.25 + 0.5) / 2)
    assert over_call_s(timed, 10) == pytest.approx(5.25 + 9 * steady_s(timed))


def test_what_is_outside_the_loop_happens_once():
    timed = [(segment(component="vae", phase="decoding"), 7.0)]
    assert over_call_s(timed, 50) == 7.0
    assert over_call_s([*timed, *turn(0, 1.0)], 1) == 8.0


def test_one_turn_stands_for_all():
    assert over_call_s(list(turn(0, 2.0, 1.0)), 4) == pytest.approx(12.0)


def test_nothing_takes_nothing():
    assert over_call_s([], 50) == steady_s([]) == 0.0
