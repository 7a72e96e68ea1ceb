"""Which components' weights are on the device during each segment, and what is moved to get there.

Mirrors diffusers 0.42 `enable_model_cpu_offload` and `enable_sequential_cpu_offload` (pipelines/pipeline_utils.py) and the
hooks of accelerate 1.15 (`CpuOffload.pre_forward`: the previous of the sequence leaves, then this one arrives).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from autotune.records.model import Model

__all__ = ["Move", "Stay", "model_offload", "never_waits", "resident", "sequential_offload"]


class Move(NamedTuple):
    """A component's weights going in or out."""

    direction: Literal["in", "out"]
    component: str


class Stay(NamedTuple):
    """What is on the device during one segment, and what was moved just before it."""

    components: frozenset[str]
    moves: tuple[Move, ...]


def never_waits(model: Model, offload: str) -> frozenset[str]:
    """Excluded components; one that is in the sequence is swapped by model offload all the same (Kandinsky's prior)."""
    swapped = model.offload_sequence or () if offload == "model" else ()
    return frozenset(model.excluded_from_offload) - frozenset(swapped)


def resident(model: Model, callers: Sequence[str]) -> list[Stay]:
    """Everything stays on the device."""
    everything = frozenset(part.name for part in model.components)
    return [Stay(everything, ()) for _ in callers]


def model_offload(model: Model, callers: Sequence[str]) -> list[Stay]:
    """One component of the sequence at a time.

    A component outside the sequence arrives when it is first called and stays to the end of the call, unless it is excluded
    and on the device for good. `callers` names the component of each segment, empty for the pipeline's own code.
    """
    names = [part.name for part in model.components]
    chain = [name for name in model.offload_sequence or () if name in names]
    before = dict(zip(chain[1:], chain, strict=False))
    fixed = never_waits(model, "model")
    here = set(fixed)
    stays = []
    for caller in callers:
        moves = []
        if caller and caller not in fixed:
            previous = before.get(caller)
            if previous in here:
                moves.append(Move("out", previous))
                here.discard(previous)
            if caller not in here:
                moves.append(Move("in", caller))
                here.add(caller)
        stays.append(Stay(frozenset(here), tuple(moves)))
    return stays


def sequential_offload(model: Model, callers: Sequence[str]) -> list[Stay]:
    """Only excluded components stay; the others come leaf by leaf, which the segment's own events tell."""
    stay = Stay(frozenset(model.excluded_from_offload), ())
    return [stay for _ in callers]
