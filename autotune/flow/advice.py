"""What would buy more than the plan that was chosen: each in a phrase with the argument to type, the best first."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from autotune.flow.budget import Budget
from autotune.flow.choose import in_words, rounded_up
from autotune.records.front import Candidate, Front
from autotune.records.plan import LANES, Quality
from autotune.units import duration, size

__all__ = ["advice"]

_WORTH_SAYING = 1.3  # a faster lane is mentioned from this factor on
_WORTH_COMPILING = 1.05
_FASTER = 1.03  # times as fast: what is nearer is within the error of any prediction
_MANY_CALLS = 1_000
_LARGER = 2  # a card with more memory than so many times this one's is another purchase


def advice(front: Front, chosen: Candidate, budget: Budget, quality: Quality) -> tuple[str, ...]:
    """A precision that is only named, a faster lane, tiles, more VRAM, more RAM, compiling over more calls."""
    mine = [c for c in front.candidates if LANES.index(c.plan.lane) <= LANES.index(quality)]
    said = [
        *_named(front, chosen, budget),
        *_lane(front, chosen, budget, quality),
        *_tiled(front, mine, chosen, budget),
        *_more_vram(front, mine, chosen, budget),
        *_more_ram(front, mine, chosen, budget),
        *_without_originals(front, mine, chosen, budget),
        *_compiling(front, chosen, budget, quality),
    ]
    return tuple(said)


def _seconds(front: Front, candidate: Candidate) -> float:
    return candidate.estimate.per_call_s(front.workload.calls)


def _gain(front: Front, chosen: Candidate, other: Candidate) -> float:
    """How many times as fast the other plan is: with its share of the first call, and as shown, without it."""
    return min(_seconds(front, chosen) / _seconds(front, other), chosen.estimate.latency_s / other.estimate.latency_s)


def _taken(candidate: Candidate) -> str:
    """Its seconds, told as the line of the chosen plan tells them."""
    first = candidate.estimate.setup_s
    return duration(candidate.estimate.latency_s) + (f" (first call {duration(first)} more)" if first else "")


def _at_least(value_bytes: int) -> str:
    """A size that is no smaller, to look for: `4.1 GB`."""
    return rounded_up(value_bytes).replace("GB", " GB").replace("MB", " MB")


def _named(front: Front, chosen: Candidate, budget: Budget) -> list[str]:
    named = front.best_named(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes)
    if named is None or _gain(front, chosen, named) < _WORTH_SAYING:
        return []
    return [in_words(named, front.caution)]


def _lane(front: Front, chosen: Candidate, budget: Budget, quality: Quality) -> list[str]:
    for lane in LANES[LANES.index(quality) + 1 :]:
        other = front.best(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=lane)
        if other is not None and _gain(front, chosen, other) >= _WORTH_SAYING:
            return [f"quality='{lane}' would take {_taken(other)}"]
    return []


def _tiled(front: Front, mine: list[Candidate], chosen: Candidate, budget: Budget) -> list[str]:
    """A VAE in tiles changes the image, so it is taken only where nothing untiled fits; here one would be much faster."""
    tiled = [c for c in mine if c.plan.vae_tiling and c.fits(budget.vram_bytes, budget.ram_bytes)]
    best = min(tiled, key=lambda candidate: _seconds(front, candidate), default=None)
    if best is None or chosen.plan.quality_rank == 2 or _gain(front, chosen, best) < _WORTH_SAYING:
        return []
    return [f"keep={{'vae_tiling': {best.plan.vae_tiling}}} would take {_taken(best)}"]


def _faster(front: Front, pool: Iterable[Candidate], chosen: Candidate) -> list[Candidate]:
    return [c for c in pool if _gain(front, chosen, c) > _FASTER]


def _more_vram(front: Front, mine: list[Candidate], chosen: Candidate, budget: Budget) -> list[str]:
    """The next faster plan, on this card or a larger one."""
    pool = [
        c
        for c in _faster(front, mine, chosen)
        if not c.fits(budget.vram_bytes, None) and c.fits(None, budget.ram_bytes)
    ]
    if not pool:
        return []
    next_one = min(pool, key=lambda candidate: candidate.estimate.needed_bytes)
    needed_bytes, taken = next_one.estimate.needed_bytes, _taken(next_one)
    if needed_bytes <= front.device.total_bytes:
        return [f"max_vram='{rounded_up(needed_bytes)}' would take {taken}"]
    return (
        [f"a card with {_at_least(needed_bytes)} would take {taken}"]
        if needed_bytes <= _LARGER * front.device.total_bytes
        else []
    )


def _more_ram(front: Front, mine: list[Candidate], chosen: Candidate, budget: Budget) -> list[str]:
    pool = [
        c
        for c in _faster(front, mine, chosen)
        if c.fits(budget.vram_bytes, None) and not c.fits(None, budget.ram_bytes)
    ]
    if not pool or front.device.shares_ram:
        return []
    next_one = min(pool, key=lambda candidate: _seconds(front, candidate))
    return [f"with {_at_least(next_one.estimate.host_ram_bytes)} of RAM it would take {_taken(next_one)}"]


def _without_originals(front: Front, mine: list[Candidate], chosen: Candidate, budget: Budget) -> list[str]:
    """A plan whose RAM is over the budget only for the originals that an exact restore wants."""
    pool = [
        c
        for c in _faster(front, mine, chosen)
        if c.estimate.undo_bytes
        and c.fits(budget.vram_bytes, None)
        and budget.ram_bytes < c.estimate.host_ram_bytes <= budget.ram_bytes + c.estimate.undo_bytes
    ]
    if not pool:
        return []
    best = min(pool, key=lambda candidate: _seconds(front, candidate))
    taken, originals = _taken(best), size(best.estimate.undo_bytes)
    return [f"undo=False would take {taken}: it gives up an exact restore, and {originals} of originals in RAM"]


def _compiling(front: Front, chosen: Candidate, budget: Budget, quality: Quality) -> list[str]:
    """From how many calls on a plan that takes longer to start would be the faster one."""
    best = front.best(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=quality, calls=_MANY_CALLS)
    if best is None or best.estimate.setup_s <= chosen.estimate.setup_s:
        return []
    saved_s = chosen.estimate.latency_s - best.estimate.latency_s
    if saved_s < (1 - 1 / _WORTH_COMPILING) * chosen.estimate.latency_s:
        return []
    calls = ceil((best.estimate.setup_s - chosen.estimate.setup_s) / saved_s)
    return [f"compiling would pay from {calls} calls on: calls={calls}"]
