"""Choosing from a front, and what to say where nothing can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.errors import DoesNotFitError
from autotune.flow.budget import Budget
from autotune.records.front import Candidate, Front, Objective
from autotune.records.plan import LANES, Plan, Quality
from autotune.records.workload import Workload
from autotune.units import GB, MB, duration, size

__all__ = ["choose", "in_words", "rounded_up"]

_WORTH_MORE_RAM = 1.3  # a plan that takes more RAM than must be is told from this factor in seconds on
_BITS = {"8-bit": 1.0, "4-bit": 0.56}  # bytes a parameter: int8; NF4 with a scale in 16 bits for each 64 (bitsandbytes)


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
    one_memory = front.device.shares_ram
    if smallest.fits(budget.vram_bytes, None) and not one_memory:
        raise _no_ram(front, budget, quality)
    raise _no_vram(front, budget, quality, smallest, nearest(smallest.plan, budget.vram_bytes))


def _no_vram(
    front: Front, budget: Budget, quality: Quality, smallest: Candidate, fitting: Workload | None
) -> DoesNotFitError:
    estimate, phase = smallest.estimate, smallest.estimate.peak_phase
    parts = (
        f"weights {size(phase.weights_bytes)} + activations {size(phase.activations_bytes)} + "
        f"workspaces {size(phase.workspace_bytes)} + overhead {size(phase.overhead_bytes)} + "
        f"margin {size(estimate.margin_bytes)}"
    )
    tries = (
        [f"max_vram='{rounded_up(estimate.needed_bytes)}'"] if estimate.needed_bytes <= front.device.total_bytes else []
    )
    tries += [f"{fitting.label} under this cap"] if fitting is not None else []
    tries += _lane_that_fits(front, budget, quality)
    alternatives = "" if fitting is not None or front.workload.inputs else "; no smaller workload fits this cap"
    return DoesNotFitError(
        f"max_vram={size(budget.vram_bytes)}, but the smallest plan for {front.model} at {front.workload.label} needs "
        f"{size(estimate.needed_bytes)} in {phase.name} ({parts})"
        + _sentences(tries, alternatives, front, budget, estimate.notes),
        smallest_bytes=estimate.needed_bytes,
        phase=phase.name,
        nearest=tries,
    )


def _no_ram(front: Front, budget: Budget, quality: Quality) -> DoesNotFitError:
    lane = LANES.index(quality)
    mine = [c for c in front.candidates if LANES.index(c.plan.lane) <= lane]
    least = min((c for c in mine if c.fits(budget.vram_bytes, None)), key=lambda c: c.estimate.host_ram_bytes)
    tries = [f"max_ram='{rounded_up(least.estimate.host_ram_bytes)}' ({duration(least.estimate.latency_s)})"]
    fastest = front.best(max_vram=budget.vram_bytes, quality=quality)
    if fastest is not None and fastest.estimate.latency_s < least.estimate.latency_s / _WORTH_MORE_RAM:
        ram = rounded_up(fastest.estimate.host_ram_bytes)
        tries.append(f"max_ram='{ram}' ({duration(fastest.estimate.latency_s)})")
    under = [c for c in mine if c.fits(front.device.total_bytes, budget.ram_bytes)]
    if under:
        vram = min(under, key=lambda candidate: candidate.estimate.needed_bytes).estimate.needed_bytes
        tries.append(f"max_vram='{rounded_up(vram)}'")
    if least.estimate.undo_bytes:
        tries.append(f"undo=False, which gives up an exact restore and saves {size(least.estimate.undo_bytes)} of RAM")
    tries += _lane_that_fits(front, budget, quality)
    return DoesNotFitError(
        f"max_ram={size(budget.ram_bytes)}, but the plans for {front.model} at {front.workload.label} that stay under "
        f"{size(budget.vram_bytes)} of VRAM keep at least {size(least.estimate.host_ram_bytes)} of weights in RAM"
        + _sentences(tries, _in_bits(front, budget), front, budget, least.estimate.notes),
        smallest_bytes=front.smallest(quality=quality, max_ram=budget.ram_bytes).estimate.needed_bytes,
        phase=least.estimate.peak_phase.name,
        nearest=tries,
    )


def _sentences(tries: Sequence[str], more: str, front: Front, budget: Budget, notes: Sequence[str]) -> str:
    """What to try, what else there is, and what the figures rest on."""
    said = f". Try {', or '.join(tries)}{more}." if tries else f"{more}."
    named = front.best_named(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes)
    if named is not None:
        said += f" {in_words(named, front.caution)}."
    return said + "".join(f" {note[:1].upper()}{note[1:]}." for note in notes)


def in_words(named: Candidate, caution: str) -> str:
    """A plan in a precision that is not known to give right images, with the argument that takes it."""
    estimate, dtype = named.estimate, named.plan.dtype
    return (
        f"{dtype} would need {size(estimate.needed_bytes)} and take {duration(estimate.latency_s)}, but {caution}: "
        f"keep={{'dtype': '{dtype}'}} takes it all the same"
    )


def _in_bits(front: Front, budget: Budget) -> str:
    """What quantised weights would take, where that would fit: it is not offered yet."""
    sizes = {bits: round(front.parameters * per_parameter) for bits, per_parameter in _BITS.items()}
    fitting = [f"{bits} weights would take {size(taken)}" for bits, taken in sizes.items() if taken <= budget.ram_bytes]
    return f"; {', '.join(fitting)} (quantised plans are to come)" if front.parameters and fitting else ""


def _lane_that_fits(front: Front, budget: Budget, quality: Quality) -> list[str]:
    for lane in LANES[LANES.index(quality) + 1 :]:
        if front.best(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=lane) is not None:
            return [f"quality='{lane}'"]
    return []


def rounded_up(value_bytes: int) -> str:
    """A cap to type that is no smaller than the bytes.

    >>> rounded_up(4_010_000_000), rounded_up(999_999)
    ('4.1GB', '1MB')
    """
    if value_bytes >= GB:
        return f"{-(-value_bytes // (GB // 10)) / 10:.1f}GB"
    return f"{-(-value_bytes // MB)}MB"
