"""Where in a call each component's call lies, and how often the denoiser is called in a whole workload."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

from autotune.records.estimate import PhaseName

__all__ = ["Place", "Stretch", "denoiser_calls", "places", "recorded_steps"]


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


class Stretch(NamedTuple):
    """Which part of its steps a call makes."""

    strength: float = 1.0
    """Image-to-image makes this share of them, the last ones."""
    start: float | None = None
    """`denoising_start`, instead of a strength: the share of the noise schedule that another model has done (SDXL's base)."""
    end: float | None = None
    """`denoising_end`: where another model goes on."""
    listed: bool = False
    """Whether the call gives its own time steps or sigmas: it makes these, whatever number of steps it is told."""

    @classmethod
    def of(cls, call: Mapping[str, Any]) -> Stretch:
        """What a call's arguments say.

        >>> Stretch.of({"denoising_start": 0.8, "denoising_end": 1.0})
        Stretch(strength=1.0, start=0.8, end=None, listed=False)
        """
        start, end = (_inside(call.get(f"denoising_{edge}")) for edge in ("start", "end"))
        listed = any(call.get(name) is not None for name in ("timesteps", "sigmas"))
        return cls(call.get("strength") or 1.0, start, end, listed)

    @property
    def share(self) -> float:
        """How much of the schedule that is."""
        start = 1 - self.strength if self.start is None else self.start
        return max(0.0, (1.0 if self.end is None else self.end) - start)

    def part_of(self, timesteps: Sequence[float], *, train_timesteps: int, steps: int, order: int) -> Sequence[float]:
        """The time steps that are made, as in diffusers pipeline_stable_diffusion_xl_img2img.py `get_timesteps` and
        `__call__`: with a scheduler of second order a part begins with a whole step."""
        if self.start is None:
            skipped = max(0, steps - int(steps * self.strength)) * order
        else:
            done = sum(time < round(train_timesteps * (1 - self.start)) for time in timesteps)
            done += order == 2 and done % 2 == 0
            skipped = max(0, len(timesteps) - done)
        last = 0 if self.end is None else round(train_timesteps * (1 - self.end))
        return [time for time in timesteps[skipped:] if time >= last or self.end is None]


def _inside(edge: Any) -> float | None:
    """An edge that is one: pipelines leave all others unheeded."""
    return edge if isinstance(edge, float) and 0 < edge < 1 else None


def recorded_steps(scheduler: Any, steps: int, stretch: Stretch, *, turns: int) -> int:
    """The fewest steps, of `steps` at most, with which the call makes so many turns."""
    fewest = min(steps, ceil(round(turns / stretch.share, 6))) if stretch.share else steps  # 1 - 0.8 is less than 0.2
    if stretch.start is None and stretch.end is None:
        return fewest
    made = ((number, _timesteps(scheduler, number, stretch)) for number in range(fewest, steps))
    return next((number for number, of_it in made if not of_it or of_it >= turns), steps)


def denoiser_calls(scheduler: Any, recorded: int, *, recorded_steps: int, steps: int, stretch: Stretch) -> int:
    """Calls in `steps` steps, when there were `recorded` in `recorded_steps`.

    PNDM makes one call more than there are steps, Heun nearly twice as many: the scheduler itself is asked.
    """
    if stretch.listed:
        return recorded
    few, many = _timesteps(scheduler, recorded_steps, stretch), _timesteps(scheduler, steps, stretch)
    if few and many:
        return round(recorded * many / few)
    done = int(recorded_steps * stretch.share)
    return round(recorded * int(steps * stretch.share) / done) if done else 0


def _timesteps(scheduler: Any, steps: int, stretch: Stretch) -> int:
    """Number of time steps that the call makes of those that the scheduler makes of `steps`; 0 where it wants to know more."""
    trial = copy.deepcopy(scheduler)
    config = getattr(trial, "config", None)
    dynamic = getattr(config, "use_dynamic_shifting", False)
    try:
        trial.set_timesteps(steps, **({"mu": 1.0} if dynamic else {}))
        made = stretch.part_of(
            list(map(float, trial.timesteps)),
            train_timesteps=getattr(config, "num_train_timesteps", 0),
            steps=steps,
            order=getattr(trial, "order", 1),
        )
        return len(made)
    except (AttributeError, TypeError, ValueError, RuntimeError, IndexError):
        return 0
