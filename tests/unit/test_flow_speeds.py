"""Speeds on devices: on those that are here, from the store or measured; what then is planned with them."""

from __future__ import annotations

import logging
from datetime import date

import pytest

import autotune
from autotune.errors import NoAcceleratorError
from autotune.flow.ask import place_of
from autotune.flow.question import Question
from autotune.flow.recall import _options
from autotune.flow.speeds import calibrated, with_speed
from autotune.measure import calibrate as measure
from autotune.measure import micro
from autotune.probe.gpu import cpu_device
from autotune.simulate.speed import sustained
from autotune.store.key import hash_options
from autotune.store.speeds import SpeedStore
from benchmarks import tiny
from tests.unit.handmade import CARD

DAY = date(2026, 11, 25)
HERE = CARD.model_copy(update={"free_bytes": 10**10, "source": "probed"})
UNKNOWN = HERE.model_copy(update={"source": "assumed"})
SPEED = sustained(CARD).model_copy(update={"source": "calibrated", "host_s": 7e-6})


@pytest.fixture
def store(tmp_path):
    return SpeedStore(tmp_path / "speeds")


@pytest.fixture
def quick(monkeypatch):
    """Calibrating takes no time, and nobody else runs; gives what it was called with."""
    called = []

    def calibrate(device, *, base, budget_s, progress):
        called.append((device, base, budget_s, progress))
        return base.model_copy(update={"source": "calibrated", "host_s": 7e-6})

    monkeypatch.setattr(measure, "calibrate", calibrate)
    monkeypatch.setattr(micro, "others_cpu_s", lambda: 0.0)
    return called


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    return SpeedStore()


@pytest.mark.parametrize("device", [HERE, UNKNOWN, cpu_device()], ids=lambda device: device.source)
def test_a_device_that_is_here_gets_its_speed_and_a_note(store, device):
    assert with_speed(device, store) is device
    store.save(device, SPEED, DAY)
    found = with_speed(device, store)
    assert found.speed == SPEED
    assert found.notes[:-1] == device.notes
    assert found.notes[-1] == f"speeds measured on this {'CPU' if device.kind == 'cpu' else 'card'} on 2026-11-25"


def test_a_card_of_the_catalogue_stays_as_it_is(store):
    store.save(CARD, SPEED, DAY)
    assert with_speed(CARD, store) is CARD


def test_a_calibrated_device_is_known_from_then_on(store, quick):
    def told(*_):
        pass

    found = calibrated(HERE, budget_s=3.0, progress=told, store=store)
    assert quick == [(HERE, sustained(HERE), 3.0, told)]
    assert found.speed.host_s == 7e-6
    assert with_speed(HERE, store) == found


def test_what_is_measured_again_does_not_go_by_the_last_time(store, quick):
    again = calibrated(calibrated(HERE, store=store), store=store)
    assert quick[1][0].speed is None
    assert quick[1][1].source == "catalogue"
    assert sum("speeds measured" in note for note in again.notes) == 1


def test_a_card_that_is_not_here_cannot_be_measured(store):
    with pytest.raises(NoAcceleratorError, match=r"a card was to be measured, but it is not .*what works: "):
        calibrated(CARD, store=store)


def test_where_nothing_could_be_measured_nothing_is_remembered(store, monkeypatch, quick):
    monkeypatch.setattr(measure, "calibrate", lambda device, *, base, budget_s, progress: base)
    assert calibrated(HERE, store=store) == HERE
    assert with_speed(HERE, store) is HERE


@pytest.mark.parametrize(("device", "kept"), [(cpu_device(), False), (HERE, True)], ids=["cpu", "cuda"])
def test_a_cpu_that_others_use_is_not_remembered(store, monkeypatch, quick, caplog, device, kept):
    seconds = iter((0.0, 1e6))
    monkeypatch.setattr(micro, "others_cpu_s", lambda: next(seconds))
    found = calibrated(device, store=store)
    assert found.speed is not None
    assert (with_speed(device, store).speed is not None) is kept
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [("not remembered" in message) for message in warned] == ([] if kept else [True])


def test_a_question_for_this_machine_is_planned_with_the_speed(cache):
    device = cpu_device()
    cache.save(device, sustained(device).model_copy(update={"source": "calibrated", "host_s": 0.5}), DAY)
    place, _ = place_of(Question("sd15", device="cpu"))
    assert place.speed.host_s == 0.5
    assert place_of(Question("sd15", gpu="Tesla T4"))[0].speed is None


def test_an_answer_tells_where_its_seconds_come_from(cache, tmp_path):
    pipe, asked = tiny.sd(), {"device": "cpu", "workload": tiny.CALLS["sd"]}
    before = autotune.explain(pipe, **asked).chosen.estimate
    device = cpu_device()
    cache.save(device, sustained(device).model_copy(update={"source": "calibrated", "host_s": 0.5}), DAY)
    after = autotune.explain(pipe, **asked).chosen.estimate
    assert (before.source, after.source) == ("catalogue", "calibrated")
    assert after.latency_s > before.latency_s + 100


def test_another_speed_makes_another_profile():
    bare = cpu_device()
    keys = [
        bare,
        *(bare.model_copy(update={"speed": speed}) for speed in (SPEED, SPEED.model_copy(update={"host_s": 8e-6}))),
    ]
    assert len({hash_options(_options(device, True)) for device in keys}) == 3
