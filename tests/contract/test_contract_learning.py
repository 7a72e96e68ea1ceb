"""An optimised pipeline that is used: its calls are kept, they teach, and nothing else changes."""

from __future__ import annotations

import logging

import pytest
import torch

import autotune
from autotune.flow import ask
from autotune.guard import applying
from autotune.probe.gpu import cpu_device
from autotune.records.plan import Plan
from autotune.store.measurements import MeasurementStore
from benchmarks.tiny import generate
from tests.contract.families import FAMILIES, build, call_of, run
from tests.unit.measured import KEY, SPEED

CPU = cpu_device().model_copy(update={"speed": SPEED, "total_bytes": 64 * 2**30})


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A cache of the test's own, and a CPU whose base speed is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(ask, "local_device", lambda _: CPU)


def optimised(family="sd", pipe=None, **options):
    pipe = pipe or build(family)
    return autotune.optimize(pipe, workload={"prompt": "a cat", **call_of(family)}, device="cpu", **options)


def picture_under(plan, family="sd"):
    """What the plan gives where nobody watches."""
    call = {"prompt": "a cat", **call_of(family)}
    return run(family, autotune.apply(build(family), plan, device="cpu", workload=call))


def kept():
    return MeasurementStore().find(CPU)


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_leave_records_and_the_same_pictures(family):
    pipe = optimised(family)
    image = picture_under(autotune.explain(pipe).chosen.plan, family)
    counts = []
    for _ in range(5):
        assert torch.equal(run(family, pipe), image)
        counts.append(len(kept()))
    assert counts == [0, 1, 2, 3, 3]
    chosen = autotune.explain(pipe).chosen
    for call in kept():
        assert call.plan.same_as(chosen.plan)
        assert call.predicted_s == pytest.approx(chosen.estimate.latency_s)
        assert call.workload.steps == 2
        assert (call.speed_key, call.peak_reserved_bytes) == (KEY, None)
        assert call.call_s > 0


def test_restore_ends_it():
    pipe = optimised()
    for _ in range(2):
        run("sd", pipe)
    assert len(kept()) == 1
    autotune.restore(pipe)
    for _ in range(3):
        run("sd", pipe)
    assert len(kept()) == 1


def test_another_call_adds_nothing():
    pipe = optimised(on_change="tell")
    for _ in range(3):
        generate("sd", pipe, height=64, width=64)
        generate("sd", pipe, **{**call_of("sd"), "num_inference_steps": 3})
        generate("sd", pipe, **call_of("sd", batch=2))
    assert kept() == []


def test_an_error_inside_the_call_is_the_callers(monkeypatch):
    pipe = optimised()
    run("sd", pipe)
    forward = pipe.unet.forward
    trouble = RuntimeError("out of something")

    def fail(*args, **kwargs):
        raise trouble

    pipe.unet.forward = fail
    with pytest.raises(RuntimeError) as caught:
        run("sd", pipe)
    assert caught.value is trouble
    assert trouble.__cause__ is None
    assert trouble.__context__ is None
    assert kept() == []
    pipe.unet.forward = forward
    run("sd", pipe)
    assert len(kept()) == 1


def test_a_plan_without_an_estimate_measures_nothing():
    pipe = autotune.apply(build("sd"), Plan(), device="cpu", workload={"prompt": "a cat", **call_of("sd")})
    assert applying.optimized_of(pipe).watch is None
    for _ in range(3):
        run("sd", pipe)
    assert kept() == []


def test_without_profiles_nothing_is_kept_or_used(tmp_path):
    pipe = optimised(profiles=False)
    for _ in range(3):
        run("sd", pipe)
    assert kept() == []
    assert not (tmp_path / "cache").exists()


def test_planning_in_between_goes_on_watching():
    pipe = optimised()
    run("sd", pipe)
    watch = applying.optimized_of(pipe).watch
    autotune.plan(pipe, workload={"prompt": "a cat", **call_of("sd")}, device="cpu")
    assert applying.optimized_of(pipe).watch is watch
    run("sd", pipe)
    assert len(kept()) == 1


def test_a_store_that_cannot_be_written_is_one_warning(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "file"))
    pipe = optimised(profiles=tmp_path / "profiles")
    image = picture_under(autotune.explain(pipe).chosen.plan)
    for _ in range(5):
        assert torch.equal(run("sd", pipe), image)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("what was measured is not kept in ")


def test_what_was_learned_is_in_the_next_plan():
    pipe = optimised()
    for _ in range(2):
        run("sd", pipe)
    first, (call,) = autotune.explain(pipe), kept()
    lines = [call.model_copy(update={"call_s": 2 * call.predicted_s}).model_dump_json()] * 9
    MeasurementStore().add(call).write_text("\n".join(lines))
    second = autotune.explain(optimised(pipe=pipe))
    assert first.device.learned is None
    assert second.device.learned.calls == 9
    assert "learned from 9 calls" in second.device.notes[-1]
    same = {plan.values["offload"]: plan for plan in (first.chosen.plan, second.chosen.plan)}
    assert len(same) == 1
    assert second.chosen.estimate.latency_s > 1.5 * first.chosen.estimate.latency_s
    for _ in range(2):
        run("sd", pipe)
    assert kept()[-1].speed_key == KEY
    assert kept()[-1].predicted_s == pytest.approx(call.predicted_s, rel=0.01)
