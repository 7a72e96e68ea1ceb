"""Where in a call each component's call lies, and how often the denoiser is called in a whole workload."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

from autotune.records.estimate import PhaseName

__all__ = ["Place", "denoiser_calls", "places"]


class Place(NamedTuple):
    """Where one segment lies."""

    phase: PhaseName
    turn: int
    """Which denoiser call it belongs to, from 0; -1 outside denoising."""


def places(components: Sequence[str], denoisers: frozenset[str]) -> list[Place]:
    """The place of each segment, by whose it is; "" is the pipeline's own code.

    What is called between two calls of the denoiser (a ControlNet, an image encoder) works for the later one, and so does its
    first call, which lies before the denoiser's.
    """
    calls = [index for index, name in enumerate(components) if name in denoisers]
    if not calls:
        return [Place("encoding", -1)] * len(components)
    between = set(components[calls[0] : calls[-1]]) - denoisers - {""}
    starts = [
        next((index for index in range(before + 1, call) if components[index] in between), call)
        for before, call in zip([_encoded(components, calls[0], between), *calls], calls, strict=False)
    ]
    turns = [sum(start <= index for start in starts) - 1 for index in range(len(components))]
    return [
        Place("decoding", -1) if index > calls[-1] else Place("denoising" if turn >= 0 else "encoding", turn)
        for index, turn in enumerate(turns)
    ]


def _encoded(components: Sequence[str], first: int, between: set[str]) -> int:
    """The last segment before the denoiser's first call that is no part of its turn."""
    own = between | {""}
    return next((index for index in range(first - 1, -1, -1) if components[index] not in own), -1)


def denoiser_calls(scheduler: Any, recorded: int, *, recorded_steps: int, steps: int, strength: float) -> int:
    """Calls in `steps` steps, when there were `recorded` in `recorded_steps`.

    `strength` below 1 is image-to-image: only that share of the steps is done. PNDM makes one call more than there are
    steps, Heun nearly twice as many: the scheduler itself is asked.
    """
    few, many = _timesteps(scheduler, recorded_steps, strength), _timesteps(scheduler, steps, strength)
    if few and many:
        return round(recorded * many / few)
    done = int(recorded_steps * strength)
    return round(recorded * int(steps * strength) / done) if done else 0


def _timesteps(scheduler: Any, steps: int, strength: float) -> int:
    """Number of time steps the scheduler makes of `steps`, less those that are skipped; 0 where it wants to know more.

    diffusers pipeline_stable_diffusion_img2img.py `get_timesteps`.
    """
    trial = copy.deepcopy(scheduler)
    dynamic = getattr(getattr(trial, "config", None), "use_dynamic_shifting", False)
    try:
        trial.set_timesteps(steps, **({"mu": 1.0} if dynamic else {}))
        skipped = max(0, steps - int(steps * strength))
        return len(trial.timesteps) - skipped * getattr(trial, "order", 1)
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return 0
