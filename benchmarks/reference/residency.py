"""Which components' weights are on the device during each segment, and what is moved to get there.

Mirrors diffusers 0.42 `enable_model_cpu_offload` and `enable_sequential_cpu_offload` (pipelines/pipeline_utils.py),
`apply_group_offloading` (hooks/group_offloading.py), the hooks of accelerate 1.15 (`CpuOffload.pre_forward`: the previous of
the sequence leaves, then this one arrives), and what `levers/text_encoders.py` does with text encoders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from autotune.records.model import Model
from autotune.records.plan import Plan, group_offload

__all__ = ["Move", "Stay", "apart", "model_offload", "never_waits", "residency", "sequential_offload"]


class Move(NamedTuple):
    """A component's weights going in or out."""

    direction: Literal["in", "out"]
    component: str


class Stay(NamedTuple):
    """What is on the device during one segment, and what was moved just before it."""

    components: frozenset[str]
    moves: tuple[Move, ...]


def residency(model: Model, plan: Plan, callers: Sequence[str]) -> list[Stay]:
    """One stay for each segment; `callers` names the component of each, empty for the pipeline's own code.

    Weights that come in parts (sequential, group offload) are no part of a stay: the segment's own events tell them.
    """
    if plan.offload == "model":
        return model_offload(model, callers)
    if plan.offload == "sequential":
        return sequential_offload(model, callers)
    whole = never_waits(model, plan.offload) - apart(model, plan)
    if plan.text_encoders == "leave":
        return _leaving(whole, apart(model, plan), model.denoisers, callers)
    return [Stay(whole, ()) for _ in callers]


def never_waits(model: Model, offload: str | None) -> frozenset[str]:
    """Components that are on the device all the time under that offload.

    Of both of accelerate's the excluded ones, but one that is in the sequence is swapped by model offload all the same
    (Kandinsky's prior); of group offload those that diffusers cannot group.
    """
    everything = frozenset(part.name for part in model.components)
    if offload in {None, "none"}:
        return everything
    if group_offload(offload) is not None:
        return frozenset(part.name for part in model.components if "group_offload" not in part.capabilities)
    swapped = model.offload_sequence or () if offload == "model" else ()
    return frozenset(model.excluded_from_offload) - frozenset(swapped)


def apart(model: Model, plan: Plan) -> frozenset[str]:
    """Components that the plan places by themselves."""
    if plan.text_encoders not in {"leave", "cpu"}:
        return frozenset()
    return frozenset(part.name for part in model.components if part.role == "text_encoder")


def model_offload(model: Model, callers: Sequence[str]) -> list[Stay]:
    """One component of the sequence at a time.

    A component outside the sequence arrives when it is first called and stays to the end of the call, unless it is excluded
    and on the device for good.
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
    """Only excluded components stay; the others come leaf by leaf."""
    stay = Stay(frozenset(model.excluded_from_offload), ())
    return [stay for _ in callers]


def _leaving(
    whole: frozenset[str], encoders: frozenset[str], denoisers: frozenset[str], callers: Sequence[str]
) -> list[Stay]:
    """Text encoders come when they are called and go when a denoiser is."""
    here: frozenset[str] = frozenset()
    stays = []
    for caller in callers:
        moves: tuple[Move, ...] = ()
        if caller in denoisers:
            moves, here = tuple(Move("out", name) for name in sorted(here)), frozenset()
        elif caller in encoders and caller not in here:
            moves, here = (Move("in", caller),), here | {caller}
        stays.append(Stay(whole | here, moves))
    return stays
