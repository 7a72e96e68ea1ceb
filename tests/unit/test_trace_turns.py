"""Where segments lie, and how often the denoiser is called."""

from __future__ import annotations

import pytest
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler, PNDMScheduler

from autotune.trace.turns import denoiser_calls, places

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
    found = denoiser_calls(scheduler, recorded, recorded_steps=recorded_steps, steps=50, strength=strength)
    assert found == calls
