"""Rates and costs from seconds, on measurements made up so that the answer is known."""

from __future__ import annotations

import pytest

from autotune.measure.fit import Block, Found, Moved, Timed, rate_of, speed_from
from autotune.simulate.speed import sustained
from tests.unit.handmade import CARD, CPU

BASE = sustained(CARD)
KERNEL_S, PRODUCT_S, RATE = 2e-6, 8e-6, 20e12


def product(flops):
    return Timed(flops, flops / RATE + PRODUCT_S + KERNEL_S)


def test_where_nothing_was_measured_all_stays_as_believed():
    assert speed_from(Found({}), base=BASE, queued=True) is BASE
    assert speed_from(Found({"norm": []}), base=BASE, queued=True) is BASE


def test_what_was_not_measured_stays_as_believed():
    speed = speed_from(Found({"attention flash": [Timed(1e12, 0.01)]}), base=BASE, queued=True)
    assert speed.attention_flops_per_s == {**BASE.attention_flops_per_s, "flash": 1e14}
    kept = BASE.model_dump(exclude={"attention_flops_per_s", "source"})
    assert speed.model_dump(exclude={"attention_flops_per_s", "source"}) == kept
    assert (BASE.source, speed.source) == ("catalogue", "calibrated")


ON_CPU = sustained(CPU).model_copy(update={"convolution_s": PRODUCT_S})


def test_a_rate_is_that_of_the_larger_sizes():
    assert rate_of([Timed(1.0, 1.0), Timed(100.0, 10.0), Timed(300.0, 10.0)]) == 20.0


def test_a_kernel_costs_at_most_half_of_what_was_measured():
    assert rate_of([Timed(1.0, 1.0)], kernel_s=5.0) == 2.0


def test_products_are_taken_apart_into_rate_and_cost():
    found = Found({"products float16": [product(1e6), product(1e9), product(1e12)]}, kernel_s=KERNEL_S)
    speed = speed_from(found, base=BASE, queued=True)
    assert speed.kernel_s == KERNEL_S
    assert speed.products_flops_per_s["float16"] == pytest.approx(RATE, rel=1e-3)
    assert speed.product_s == pytest.approx(PRODUCT_S, rel=1e-2)


def test_small_products_that_are_faster_than_large_ones_cost_nothing_more():
    found = Found({"products float16": [Timed(1e9, 1e-6), Timed(1e12, 1.0)]}, kernel_s=KERNEL_S)
    assert 0 < speed_from(found, base=BASE, queued=True).product_s < 1e-8


@pytest.mark.parametrize(("base", "queued", "expected_s"), [(BASE, True, 30e-6), (ON_CPU, False, 26e-6)])
def test_the_hosts_share_is_all_on_a_card_and_what_is_left_on_the_cpu(base, queued, expected_s):
    works = {"products float32": [product(1e6), product(1e12)]}
    blocks = [Block(operators=30, products=4, convolutions=1, call_s=900e-6), Block(10, 4, 1, 300e-6)]
    speed = speed_from(Found(works, kernel_s=KERNEL_S, blocks=blocks), base=base, queued=queued)
    assert speed.host_s == pytest.approx(expected_s, rel=1e-2)


def test_tensors_and_hooks_cost_what_copying_does_not():
    copied_s = 10**8 / BASE.pageable_bytes_per_s + 10**8 / BASE.reused_bytes_per_s
    found = Found(
        {},
        moved=Moved(100, 400, 10**8, copied_s + 4e-3),
        hooked=Moved(100, 200, 10**8, copied_s + 10e-3),
        release_s=2e-4,
    )
    speed = speed_from(found, base=BASE, queued=True)
    assert (speed.tensor_s, speed.hook_s, speed.release_s) == (pytest.approx(10e-6), pytest.approx(100e-6), 2e-4)


def test_no_cost_is_zero_or_less():
    blocks = [Block(10, 0, 0, 1e-6)]
    found = Found({}, kernel_s=0.0, blocks=blocks, moved=Moved(1, 1, 0, 1.0), hooked=Moved(1, 1, 0, 0.0), release_s=0.0)
    speed = speed_from(found, base=BASE, queued=False)
    assert min(speed.kernel_s, speed.host_s, speed.tensor_s, speed.hook_s, speed.release_s) > 0
