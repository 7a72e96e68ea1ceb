"""Which calls are timed, and that timing them is all that happens."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from autotune.guard.watch import Watch
from autotune.probe.guidance import guided_arguments
from autotune.probe.workload import resolve_workload
from autotune.records.workload import Workload
from benchmarks import tiny
from tests.unit.handmade import CARD, CPU

PLANNED = Workload(height=64, width=64, steps=4, guidance=True, calls=9, arguments={"prompt": "text"})


class Pipe:
    """A pipeline as far as its call's arguments go."""

    def __init__(self):
        self.unet = SimpleNamespace(config={"sample_size": 8})
        self.vae_scale_factor = 8
        self.asked = []

    @property
    def do_classifier_free_guidance(self):
        return self._guidance_scale > 1

    def __call__(
        self, prompt=None, height=None, width=None, num_inference_steps=4, guidance_scale=7.5, negative_prompt=None,
        num_images_per_prompt=1, eta=0.0, strength=0.8, generator=None, latents=None, output_type="pil",
        callback_on_step_end=None,
    ):  # fmt: skip
        self._guidance_scale = guidance_scale
        self.asked.append((prompt, height, width))
        if prompt == "broken":
            raise ValueError("as it was")
        return self.asked[-1]


@pytest.fixture
def noted():
    return []


@pytest.fixture
def watch(noted):
    return Watch(PLANNED, CPU, lambda call_s, peak_bytes: noted.append((call_s, peak_bytes)))


def call(watch, pipe, *args, **kwargs):
    return watch.run(pipe, Pipe.__call__, args, kwargs)


def test_the_first_call_warms_up_and_three_are_learned_from(watch, noted):
    pipe = Pipe()
    counts = []
    for _ in range(6):
        assert call(watch, pipe, "a cat", 64) == ("a cat", 64, None)
        counts.append(len(noted))
    assert counts == [0, 1, 2, 3, 3, 3]
    assert len(pipe.asked) == 6
    assert all(call_s > 0 and peak_bytes is None for call_s, peak_bytes in noted)


SAME = {
    "positional": (("a dog", 64, 64, 4), {}),
    "spelled out": ((), {"prompt": "a dog", "height": 64, "num_inference_steps": 4, "guidance_scale": 3.0}),
    "one in a list": ((["a dog"],), {}),
    "words to avoid": (("a dog",), {"negative_prompt": "blurred"}),
    "what is usual anyway": (("a dog",), {"eta": 0.0, "strength": 0.8, "num_images_per_prompt": 1}),
    "another seed": (("a dog",), {"generator": object()}),
}
OTHER = {
    "height": {"height": 128},
    "width": {"width": 32},
    "steps": {"num_inference_steps": 5},
    "no guidance": {"guidance_scale": 1.0},
    "images": {"num_images_per_prompt": 2},
    "prompts": {"prompt": ["a dog", "a cat"]},
    "fewer steps of these": {"strength": 0.5},
    "latents of the caller": {"latents": torch.zeros(1, 4, 8, 8)},
    "no decoding": {"output_type": "latent"},
    "code of the caller": {"callback_on_step_end": print},
}


@pytest.mark.parametrize(("args", "kwargs"), SAME.values(), ids=SAME)
def test_the_planned_call_however_it_is_written(watch, noted, args, kwargs):
    for _ in range(2):
        call(watch, Pipe(), *args, **kwargs)
    assert len(noted) == 1


@pytest.mark.parametrize("build", [tiny.sd, tiny.sdxl, tiny.sd3, tiny.flux, tiny.wan, tiny.ltx])
@pytest.mark.parametrize("guidance", [None, True, False])
def test_the_planned_call_of_a_real_pipeline(noted, build, guidance):
    pipe, size = build(), {"height": 32, "width": 32}
    planned = resolve_workload(pipe, Workload(guidance=guidance, **size), calls=9)
    learning = Watch(planned, CPU, lambda call_s, peak_bytes: noted.append(call_s))
    said = guided_arguments(pipe, {}, guided=bool(planned.guidance))
    for kwargs in ({**size, **said}, {**size, **said, "num_inference_steps": planned.steps}, {"width": 64, **said}):
        learning.run(pipe, lambda pipe, **given: given, (), {"prompt": "a dog", **kwargs})
    assert len(noted) == 1


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER)
def test_another_call_neither_warms_up_nor_counts(watch, noted, changes):
    pipe = Pipe()
    for _ in range(3):
        call(watch, pipe, **{"prompt": "a dog", **changes})
    assert len(pipe.asked) == 3
    assert noted == []
    for _ in range(2):
        call(watch, pipe, "a dog")
    assert len(noted) == 1


def test_a_call_that_fails_is_passed_on(watch, noted):
    pipe = Pipe()
    call(watch, pipe, "a cat")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^as it was$"):
            call(watch, pipe, "broken")
    assert noted == []
    call(watch, pipe, "a cat")
    assert len(noted) == 1


@pytest.mark.parametrize("kwargs", [{"hieght": 64}, {"height": "64"}, {"num_images_per_prompt": 0}])
def test_a_call_that_cannot_be_read_says_so_itself(watch, noted, kwargs):
    def answer(pipe, **given):
        return given

    assert watch.run(Pipe(), answer, (), kwargs) == kwargs
    assert noted == []


def test_who_learns_may_fail_once(caplog):
    def fail(*_):
        asked.append(1)
        raise RuntimeError("no room")

    asked = []
    watch, pipe = Watch(PLANNED, CPU, fail), Pipe()
    for _ in range(4):
        assert call(watch, pipe, "a cat") == ("a cat", None, None)
    assert asked == [1]
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["calls of this plan are not timed any more: no room"]


def test_a_card_is_waited_for_and_its_counter_is_read(noted, monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: asked.append(("synchronize", device)))
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: asked.append(("read", device)) or 5)
    watch = Watch(PLANNED, CARD, lambda call_s, peak_bytes: noted.append(peak_bytes))
    for _ in range(2):
        call(watch, Pipe(), "a cat")
    assert asked == [("synchronize", "cuda:0")] * 4 + [("read", "cuda:0")]
    assert noted == [5]


def test_a_card_that_fails_is_left_to_whoever_uses_it_next(noted, caplog):
    watch, pipe = Watch(PLANNED, CARD.model_copy(update={"torch_device": "cuda:99"}), noted.append), Pipe()
    for _ in range(3):
        assert call(watch, pipe, "a cat") == ("a cat", None, None)
    assert noted == []
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
