"""Where segments lie, and how often the denoiser is called."""

from __future__ import annotations

import pytest
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionXLImg2ImgPipeline,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.trace.turns import Stretch, denoiser_calls, places, recorded_steps

UNET = frozenset({"unet"})


def told(components: str) -> str:
    """One letter a segment: e and d for before and after, else the turn's number."""
    found = places([{".": "", "u": "unet"}.get(letter, letter) for letter in components], UNET)
    return "".join(str(place.turn) if place.phase == "denoising" else place.phase[0] for place in found)


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        (".t.u.u.v.", "eee001ddd"),
        (".t.c.u.c.u.c.u.v.", "eee00001111222ddd"),
        ("tv", "ee"),
        (".a.u.u.", "eee001d"),  # an adapter that is called once
    ],
)
def test_turns_begin_with_what_works_for_the_denoiser(components, expected):
    assert told(components) == expected


@pytest.mark.parametrize(
    ("scheduler", "strength", "recorded_steps", "recorded", "calls"),
    [
        (DDIMScheduler(), 1.0, 2, 2, 50),
        (DDIMScheduler(), 1.0, 2, 4, 100),  # two calls a step
        (PNDMScheduler(skip_prk_steps=True), 1.0, 2, 3, 51),
        (PNDMScheduler(skip_prk_steps=True), 0.8, 3, 3, 41),
        (EulerDiscreteScheduler(), 0.3, 7, 2, 15),
        (HeunDiscreteScheduler(), 1.0, 2, 3, 99),
        (HeunDiscreteScheduler(), 0.5, 4, 3, 49),
        (None, 0.5, 4, 2, 25),
    ],
)
def test_the_scheduler_says_how_often(scheduler, strength, recorded_steps, recorded, calls):
    stretch = Stretch(strength)
    found = denoiser_calls(scheduler, recorded, recorded_steps=recorded_steps, steps=50, stretch=stretch)
    assert found == calls


def made(scheduler, steps, call):
    """The time steps that the SDXL pipelines themselves make of a call."""
    scheduler.set_timesteps(steps)
    pipe = StableDiffusionXLImg2ImgPipeline.__new__(StableDiffusionXLImg2ImgPipeline)
    pipe.__dict__["scheduler"] = scheduler
    times, _ = pipe.get_timesteps(steps, call.get("strength", 1.0), "cpu", denoising_start=call.get("denoising_start"))
    last = round(scheduler.config.num_train_timesteps * (1 - call.get("denoising_end", 1.0)))
    return sum(float(time) >= last for time in times)


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, DDIMScheduler, HeunDiscreteScheduler])
@pytest.mark.parametrize(
    "call",
    [
        {"denoising_start": 0.8},
        {"denoising_start": 0.8, "strength": 0.3},  # which does not matter then
        {"denoising_end": 0.8},
        {"denoising_start": 0.5, "denoising_end": 0.8},
        {"strength": 0.6, "denoising_end": 0.7},
    ],
    ids=str,
)
@given(steps=st.integers(10, 60))
@settings(max_examples=10, deadline=None)
def test_a_part_of_the_steps_is_counted_as_the_pipeline_counts(scheduler, call, steps):
    given_scheduler = scheduler(beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading")
    stretch = Stretch.of(call)
    few = recorded_steps(given_scheduler, steps, stretch, turns=2)
    recorded = made(given_scheduler, few, call)
    assert recorded >= min(2, made(given_scheduler, steps, call))
    found = denoiser_calls(given_scheduler, recorded, recorded_steps=few, steps=steps, stretch=stretch)
    assert found == made(given_scheduler, steps, call)


def test_the_refiner_of_sdxl_makes_eight_steps_of_forty():
    euler = EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading")
    stretch = Stretch.of({"denoising_start": 0.8, "strength": 0.3})
    assert recorded_steps(euler, 40, stretch, turns=2) == 10
    assert denoiser_calls(euler, 2, recorded_steps=10, steps=40, stretch=stretch) == 8


def test_listed_time_steps_are_made_whatever_their_number():
    stretch = Stretch.of({"sigmas": [1.0, 0.7, 0.4, 0.2]})
    assert denoiser_calls(DDIMScheduler(), 4, recorded_steps=2, steps=50, stretch=stretch) == 4
