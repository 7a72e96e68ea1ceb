"""Two factors from a few calls, worked out by hand where that can be done."""

from __future__ import annotations

from math import exp, log

import pytest

from autotune.records.measurement import Multipliers
from autotune.records.speed import Speed
from autotune.simulate.learning import LARGEST, in_steps, learned, multipliers
from tests.unit.measured import KEY, SPEED, measured


def test_nothing_measured_is_nothing_learned():
    assert multipliers([]) == Multipliers()
    assert multipliers([measured(0.0, 0.0, 5.0)]) == Multipliers()


def test_one_call_is_believed_in_part():
    found = multipliers([measured(10.0, 0.0, 11.0)])
    # Both are Gaussian in logarithms: 0.25^2 of prior variance against 0.10^2 of noise.
    assert log(found.compute) == pytest.approx(log(1.1) * 0.25**2 / (0.25**2 + 0.10**2))
    assert found.moves == 1.0
    assert (found.calls, found.speed_key) == (1, KEY)


def test_what_a_call_does_not_show_stays():
    assert multipliers([measured(0.0, 4.0, 5.0)] * 5).compute == 1.0
    assert multipliers([measured(4.0, 0.0, 5.0)] * 5).moves == 1.0


def test_plans_that_compute_and_plans_that_move_are_told_apart():
    calls = [measured(10.0, 0.0, 12.0), measured(10.0, 10.0, 20.0), measured(2.0, 20.0, 18.4)] * 20
    found = multipliers(calls)
    assert found.compute == pytest.approx(1.2, rel=0.01)
    assert found.moves == pytest.approx(0.8, rel=0.01)


def test_a_call_that_was_disturbed_hardly_counts():
    steady = [measured(10.0, 0.0, 11.0)] * 6
    without, with_it = multipliers(steady), multipliers([*steady, measured(10.0, 0.0, 200.0)])
    assert without.compute < with_it.compute < 1.03 * without.compute
    assert with_it.calls == 7


@pytest.mark.parametrize(("call_s", "limit"), [(1e5, LARGEST), (1e-4, 1 / LARGEST)])
def test_beyond_a_factor_of_three_nothing_is_learned(call_s, limit):
    found = multipliers([measured(10.0, 10.0, call_s)] * 50)
    assert found.compute == pytest.approx(limit)
    assert found.moves == pytest.approx(limit)


@pytest.mark.parametrize(
    ("factor", "step"), [(1.0, 1.0), (1.04, 1.0), (1.06, 1.1), (0.94, 0.909), (1.2, 1.21), (3.0, 3.0), (1 / 3, 0.333)]
)
def test_steps_are_of_ten_per_cent(factor, step):
    found = in_steps(Multipliers(compute=factor, moves=1.0, calls=3, speed_key=KEY))
    assert found == Multipliers(compute=step, moves=1.0, calls=3, speed_key=KEY)


def test_steps_are_wider_than_half_the_noise_of_a_call():
    assert exp(0.05) == pytest.approx(1.1**0.5, rel=0.005)


COMPUTING = ("products_flops_per_s", "convolutions_flops_per_s", "attention_flops_per_s", "pointwise_bytes_per_s",
             "norm_bytes_per_s", "copy_bytes_per_s", "kernel_s", "product_s", "convolution_s", "host_s", "pictures_bytes_per_s",
)  # fmt: skip
MOVING = (
    "hook_s", "pinned_bytes_per_s", "pageable_bytes_per_s", "back_bytes_per_s", "reused_bytes_per_s", "tensor_s", "release_s",
)  # fmt: skip


def test_every_constant_is_one_or_the_other():
    assert {*COMPUTING, *MOVING, "source"} == set(Speed.model_fields)


@pytest.mark.parametrize("name", COMPUTING + MOVING)
def test_each_constant_gets_slower_by_its_factor(name):
    before, after = getattr(SPEED, name), getattr(learned(SPEED, Multipliers(compute=2.0, moves=3.0)), name)
    factor = 2.0 if name in COMPUTING else 3.0
    if isinstance(before, dict):
        assert after == {kernel: pytest.approx(rate / factor) for kernel, rate in before.items()}
    else:
        assert after == pytest.approx(
            before * factor if name.endswith("_s") and "per_s" not in name else before / factor
        )


def test_nothing_learned_changes_nothing():
    assert learned(SPEED, Multipliers()) == SPEED
