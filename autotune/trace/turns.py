"""How often a denoiser is called in a whole workload, from how often it was in the steps that were recorded."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["denoiser_calls"]


def denoiser_calls(scheduler: Any, recorded: int, *, recorded_steps: int, steps: int, strength: float) -> int:
    """Calls in `steps` steps, when there were `recorded` in `recorded_steps`.

    `strength` below 1 is image-to-image: only that share of the steps is done. PNDM makes one call more than there are
    steps, Heun nearly twice as many: the scheduler itself is asked.
    """
    if strength < 1:
        done = int(recorded_steps * strength)
        return round(recorded * int(steps * strength) / done) if done else 0
    few, many = _timesteps(scheduler, recorded_steps), _timesteps(scheduler, steps)
    return round(recorded * many / few) if few and many else round(recorded * steps / recorded_steps)


def _timesteps(scheduler: Any, steps: int) -> int:
    """Number of time steps the scheduler makes of `steps`; 0 where it wants to know more."""
    trial = copy.deepcopy(scheduler)
    dynamic = getattr(getattr(trial, "config", None), "use_dynamic_shifting", False)
    try:
        trial.set_timesteps(steps, **({"mu": 1.0} if dynamic else {}))
        return len(trial.timesteps)
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return 0
