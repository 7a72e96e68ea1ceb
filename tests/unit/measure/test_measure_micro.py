"""Clocks and what they leave behind. No time is asserted: only what is called, how often, and what is as it was."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from autotune.measure.micro import Clock, others_cpu_s, undisturbed


class Card:
    """Events and a stream on a clock of their own: each launch takes a second there."""

    def __init__(self) -> None:
        self.now_s, self.slept, self.calls = 0.0, [], []

    def Event(self, *, enable_timing):  # noqa: N802 - torch's name
        event = SimpleNamespace(at_s=None)
        event.record = lambda: setattr(event, "at_s", self.now_s)
        event.synchronize = lambda: None
        event.elapsed_time = lambda other: 1e3 * (other.at_s - event.at_s)
        return event

    def _sleep(self, cycles):
        self.slept.append(cycles)

    def synchronize(self, device=None):
        self.calls.append(device)

    def launch(self):
        self.now_s += 1.0


def test_a_slow_call_is_made_no_more_often_than_needed():
    made = []
    Clock("cpu", budget_s=0.001).device_s(lambda: (made.append(1), time.sleep(0.002)))
    assert len(made) == 2


def test_a_quick_call_is_made_many_times_in_a_row():
    made = []
    assert Clock("cpu", budget_s=0.01).wall_s(lambda: made.append(1)) > 0
    assert len(made) > 100


def test_a_card_is_read_by_its_events_behind_a_queue(monkeypatch):
    card = Card()
    clock = Clock("cuda:0", budget_s=0.002)
    monkeypatch.setattr(clock, "_torch", SimpleNamespace(cuda=card))
    assert clock.device_s(card.launch) == pytest.approx(1.0)
    assert card.slept
    assert min(card.slept) > 0
    assert set(card.calls) == {"cuda:0"}


def test_the_wall_waits_for_the_card(monkeypatch):
    card = Card()
    clock = Clock("cuda:0", budget_s=0.002)
    monkeypatch.setattr(clock, "_torch", SimpleNamespace(cuda=card))
    assert 0 < clock.wall_s(card.launch) < 1
    assert not card.slept


def settings():
    return (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.backends.cudnn.benchmark,
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.get_float32_matmul_precision(),
    )


@undisturbed("cpu")
def change_everything():
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    torch.rand(1)
    assert not torch.is_grad_enabled()
    assert not torch.backends.cudnn.benchmark
    raise ValueError("no")


@pytest.mark.parametrize("precision", ["highest", "high"])
def test_settings_are_put_back_after_an_error_too(monkeypatch, precision):
    before_precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before, state = settings(), torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        change_everything()
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), state)
    torch.set_float32_matmul_precision(before_precision)


def test_autocast_and_gradients_of_the_caller_are_off_inside():
    with torch.autocast("cpu"), undisturbed("cpu"):
        assert not torch.is_autocast_enabled("cpu")


def test_what_others_use_is_none_of_ours():
    before_s = others_cpu_s()
    assert others_cpu_s() >= before_s >= 0
