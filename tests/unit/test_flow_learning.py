"""What calls taught, on the device; and what of a prediction is kept."""

from __future__ import annotations

import pytest

from autotune.flow.learning import base_measurement, watch_for, with_learned
from autotune.flow.question import Question
from autotune.flow.recall import _options
from autotune.records.front import Candidate
from autotune.records.measurement import Multipliers
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from autotune.report.explanation import Explanation
from autotune.simulate.learning import learned
from autotune.store.measurements import MeasurementStore
from tests.unit.handmade import CARD, estimate
from tests.unit.measured import KEY, MEASURED_CARD, SPEED, measured

CALL = Workload(
    height=512, width=512, steps=4, guidance=True, calls=3, arguments={"style": "secret"}, inputs={"a": "b"}
)


@pytest.fixture
def store(tmp_path):
    return MeasurementStore(tmp_path)


def slower(store, factor=1.5, calls=6, **changes):
    for _ in range(calls):
        store.add(measured(10.0, 0.0, 10.0 * factor, **changes))


def test_a_card_that_nobody_measured_is_itself(store):
    assert with_learned(MEASURED_CARD, store) is MEASURED_CARD
    assert with_learned(CARD, store) is CARD


def test_calls_make_it_slower(store):
    slower(store)
    device = with_learned(MEASURED_CARD, store)
    assert device.learned == Multipliers(compute=1.464, moves=1.0, calls=6, speed_key=KEY)
    assert device.speed == learned(SPEED, device.learned)
    assert device.notes == ("seconds times 1.46 computing and 1.00 moving weights, learned from 6 calls",)


@pytest.mark.parametrize("factor", [1.0, 1.03, 0.97])
def test_calls_that_agree_leave_it_alone(store, factor):
    slower(store, factor)
    assert with_learned(MEASURED_CARD, store) is MEASURED_CARD


def test_calls_that_were_predicted_with_other_constants_do_not_count(store):
    slower(store, speed_key="another")
    assert with_learned(MEASURED_CARD, store) is MEASURED_CARD
    slower(store, 0.7, calls=3)
    assert with_learned(MEASURED_CARD, store).learned.calls == 3


def explained(device=MEASURED_CARD, plan=None, **changes):
    candidate = Candidate(plan=plan or Plan(offload="model", reasons={"offload": "why"}), estimate=estimate(**changes))
    return Explanation(state="planned", model="m" * 300, workload=CALL, device=device, cap_bytes=1, chosen=candidate)


def test_what_is_kept_of_a_call():
    kept = base_measurement(explained(), 9.0, 5)
    assert kept.workload == Workload(height=512, width=512, steps=4, guidance=True)
    assert kept.plan.reasons == {}
    assert kept.plan.offload == "model"
    assert (kept.call_s, kept.peak_reserved_bytes, kept.speed_key) == (9.0, 5, KEY)
    assert kept.predicted_s == pytest.approx(estimate().latency_s)
    assert len(kept.model) == 200


def test_what_was_learned_is_not_learned_again(store):
    """A card that takes half as long again: predictions of the learned speed are kept as those of the base speed."""
    slower(store)
    device = with_learned(MEASURED_CARD, store)
    before = base_measurement(explained(), 9.0, None)
    after = base_measurement(explained(device), 9.0, None)
    assert after.compute_s == pytest.approx(before.compute_s / device.learned.compute)
    assert after.transfer_s == pytest.approx(before.transfer_s / device.learned.moves)
    assert after.speed_key == KEY


def test_learning_settles(store):
    device = MEASURED_CARD
    for _ in range(10):
        device = with_learned(MEASURED_CARD, store)
        now = device.learned or Multipliers(speed_key=KEY)
        kept = measured(10.0, 0.0, 15.0, speed_key=now.speed_key)
        store.add(kept)
    assert device.learned.compute == 1.464


def test_profiles_are_told_apart_by_steps_only(store):
    plain = _options(MEASURED_CARD, True)
    assert plain != _options(CARD.model_copy(update={"power_limit_w": 100.0}), True)
    slower(store)
    first = _options(with_learned(MEASURED_CARD, store), True)
    assert first != plain
    slower(store, 1.48)
    assert _options(with_learned(MEASURED_CARD, store), True) == first


def question(**options):
    return Question("sd15", **options)


def test_who_watches():
    assert watch_for(question(), explained()) is not None
    for asked, said in (
        (question(profiles=False), explained()),
        (question(workload=[{"height": 64}, {"height": 128}]), explained()),
        (question(), explained(latency_margin=1.0)),
        (question(), explained(plan=Plan(text_encoders="cpu"))),
    ):
        assert watch_for(asked, said) is None
