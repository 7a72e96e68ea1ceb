"""Choosing from a front, and what to say where nothing can be chosen."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from autotune.errors import DoesNotFitError
from autotune.flow.budget import Budget
from autotune.records.front import Candidate, Front, Objective
from autotune.records.plan import LANES, Plan, Quality
from autotune.records.workload import Workload
from autotune.units import GB, MB, duration, size

__all__ = ["advice", "choose"]

_WORTH_SAYING = 1.3  # a faster lane is mentioned from this factor on
_WORTH_COMPILING = 1.05
_MANY_CALLS = 1_000


def choose(
    front: Front,
    budget: Budget,
    *,
    quality: Quality,
    objective: Objective,
    nearest: Callable[[Plan, int], Workload | None],
) -> Candidate:
    """The best candidate under the budget.

    Args:
        front: what a search found.
        budget: the caps.
        quality: the lane that may be used.
        objective: "latency" or "memory".
        nearest: finds the nearest workload that a plan can do under a cap.

    Raises:
        DoesNotFitError: nothing fits; says what the smallest plan needs, where, and what would fit.
    """
    best = front.best(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=quality, objective=objective)
    if best is not None:
        return best
    smallest = front.smallest(quality=quality)
    if smallest.estimate.needed_bytes <= budget.vram_bytes:
        raise _no_ram(front, budget, quality)
    raise _no_vram(front, budget, quality, smallest, nearest(smallest.plan, budget.vram_bytes))


def _no_vram(
    front: Front, budget: Budget, quality: Quality, smallest: Candidate, fitting: Workload | None
) -> DoesNotFitError:
    estimate, phase = smallest.estimate, smallest.estimate.peak_phase
    needed = _rounded_up(estimate.needed_bytes)
    parts = (
        f"weights {size(phase.weights_bytes)} + activations {size(phase.activations_bytes)} + "
        f"workspaces {size(phase.workspace_bytes)} + overhead {size(phase.overhead_bytes)} + "
        f"margin {size(estimate.margin_bytes)}"
    )
    tries = [f"max_vram='{needed}'"]
    if fitting is not None:
        tries.append(f"{fitting.label} under this cap")
    hint = _lane_that_fits(front, budget, quality)
    if hint:
        tries.append(hint)
    alternatives = "; no smaller workload fits this cap" if fitting is None else ""
    return DoesNotFitError(
        f"max_vram={size(budget.vram_bytes)}, but the smallest plan for {front.model} at {front.workload.label} needs "
        f"{size(estimate.needed_bytes)} in {phase.name} ({parts}). Try {', or '.join(tries)}{alternatives}.",
        smallest_bytes=estimate.needed_bytes,
        phase=phase.name,
    )


def _no_ram(front: Front, budget: Budget, quality: Quality) -> DoesNotFitError:
    lane = LANES.index(quality)
    pool = [c for c in front.candidates if c.fits(budget.vram_bytes, None) and LANES.index(c.plan.lane) <= lane]
    least = min(pool, key=lambda candidate: candidate.estimate.host_ram_bytes)
    undo = least.estimate.undo_bytes
    without = f", or undo=False, which gives up an exact restore and saves {size(undo)}" if undo else ""
    return DoesNotFitError(
        f"max_ram={size(budget.ram_bytes or 0)}, but the plans for {front.model} that stay under "
        f"{size(budget.vram_bytes)} of VRAM keep at least {size(least.estimate.host_ram_bytes)} of weights in RAM. "
        f"Try max_ram='{_rounded_up(least.estimate.host_ram_bytes)}' or a higher max_vram{without}.",
        smallest_bytes=front.smallest(quality=quality).estimate.needed_bytes,
        phase=least.estimate.peak_phase.name,
    )


def _lane_that_fits(front: Front, budget: Budget, quality: Quality) -> str | None:
    for lane in LANES[LANES.index(quality) + 1 :]:
        if front.best(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=lane) is not None:
            return f"quality='{lane}'"
    return None


def advice(front: Front, chosen: Candidate, budget: Budget, quality: Quality) -> tuple[str, ...]:
    """What would buy more: a faster lane, compiling if there were more calls, and the next faster plan with its cap."""
    calls = front.workload.calls
    now_s = chosen.estimate.per_call_s(calls)
    said = []
    for lane in LANES[LANES.index(quality) + 1 :]:
        other = front.best(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=lane)
        if other is not None and now_s >= _WORTH_SAYING * other.estimate.per_call_s(calls):
            said.append(f"quality='{lane}' would take {duration(other.estimate.per_call_s(calls))}")
            break
    mine = [c for c in front.candidates if LANES.index(c.plan.lane) <= LANES.index(quality)]
    faster = [
        c for c in mine if c.estimate.per_call_s(calls) < 0.97 * now_s and c.estimate.needed_bytes > budget.vram_bytes
    ]
    if faster:
        next_one = min(faster, key=lambda c: c.estimate.needed_bytes)
        cap = _rounded_up(next_one.estimate.needed_bytes)
        said.append(f"max_vram='{cap}' would take {duration(next_one.estimate.per_call_s(calls))} ({next_one.plan.id})")
    said += _compiling_pays(front, chosen, budget, quality)
    return tuple(said)


def _compiling_pays(front: Front, chosen: Candidate, budget: Budget, quality: Quality) -> list[str]:
    """From how many calls on a plan that takes longer to start would be the faster one."""
    best = front.best(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=quality, calls=_MANY_CALLS)
    if best is None or best.estimate.setup_s <= chosen.estimate.setup_s:
        return []
    saved_s = chosen.estimate.latency_s - best.estimate.latency_s
    if saved_s < (1 - 1 / _WORTH_COMPILING) * chosen.estimate.latency_s:
        return []
    calls = ceil((best.estimate.setup_s - chosen.estimate.setup_s) / saved_s)
    return [f"compiling would pay from {calls} calls on: calls={calls} ({best.plan.id})"]


def _rounded_up(value_bytes: int) -> str:
    """A cap to type that is no smaller than the bytes."""
    if value_bytes >= GB:
        return f"{-(-value_bytes // (GB // 10)) / 10:.1f}GB"
    return f"{-(-value_bytes // MB)}MB"
