"""Choosing from a front, and what to say where nothing can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.errors import DoesNotFitError
from autotune.flow.budget import Budget
from autotune.records.front import Candidate, Front, Objective
from autotune.records.plan import LANES, Plan, Quality
from autotune.records.words import card_words
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
    on_card = estimate.needed_bytes <= front.device.total_bytes
    tries = [f"max_vram='{rounded_up(estimate.needed_bytes)}'"] if on_card else []
    tries += [f"{fitting.label} under this cap"] if fitting is not None else []
    tries += _lane_that_fits(front, budget, quality)
    more = [*_unfused(smallest), *_no_bf16(front, smallest), *_named(front, budget), *estimate.notes]
    if fitting is None and not front.workload.inputs:
        more.insert(0, "no smaller workload fits this cap")
    return DoesNotFitError(
        f"max_vram={size(budget.vram_bytes)}, but the smallest plan for {front.model} at {front.workload.label} needs "
        f"{size(estimate.needed_bytes)} in {phase.name} ({parts}){_said(tries, more)}",
        smallest_bytes=estimate.needed_bytes,
        phase=phase.name,
        nearest=tries,
    )


def _no_ram(front: Front, budget: Budget, quality: Quality) -> DoesNotFitError:
    lane = LANES.index(quality)
    mine = [c for c in front.candidates if LANES.index(c.plan.lane) <= lane]
    least = min((c for c in mine if c.fits(budget.vram_bytes, None)), key=lambda c: c.estimate.host_ram_bytes)
    tries = [_with_ram(least, budget)]
    fastest = front.best(max_vram=budget.vram_bytes, quality=quality)
    if fastest is not None and fastest.estimate.latency_s < least.estimate.latency_s / _WORTH_MORE_RAM:
        tries.append(_with_ram(fastest, budget))
    under = [c for c in mine if c.fits(front.device.total_bytes, budget.ram_bytes)]
    if under:
        tries.append(f"max_vram='{rounded_up(min(candidate.estimate.needed_bytes for candidate in under))}'")
    if least.estimate.undo_bytes:
        tries.append(f"undo=False, which gives up an exact restore and saves {size(least.estimate.undo_bytes)} of RAM")
    tries += _lane_that_fits(front, budget, quality)
    more = [*_no_bf16(front, least), *_in_bits(front, budget), *_named(front, budget), *least.estimate.notes]
    ram = (
        f"{size(budget.ram_bytes)} of RAM assumed"
        if budget.ram_assumed
        else f"{budget.ram_option}={size(budget.ram_bytes)}"
    )
    return DoesNotFitError(
        f"{ram}, but the plans for {front.model} at {front.workload.label} that stay "
        f"under {size(budget.vram_bytes)} of VRAM keep at least {size(least.estimate.host_ram_bytes)} of weights in RAM"
        f"{_said(tries, more)}",
        smallest_bytes=front.smallest(quality=quality, max_ram=budget.ram_bytes).estimate.needed_bytes,
        phase=least.estimate.peak_phase.name,
        nearest=tries,
    )


def _with_ram(candidate: Candidate, budget: Budget) -> str:
    """The RAM that a plan would take, as one types it, and its seconds."""
    estimate = candidate.estimate
    return f"{budget.ram_option}='{rounded_up(estimate.host_ram_bytes)}' ({duration(estimate.latency_s)})"


def _said(tries: Sequence[str], more: Sequence[str]) -> str:
    """What to type, and what else there is to know."""
    ended = f". Try {', or '.join(tries)}." if tries else "."
    return ended + "".join(f" {words if '=' in words.split()[0] else words[:1].upper() + words[1:]}." for words in more)


def _unfused(smallest: Candidate) -> list[str]:
    """The score matrices of an attention that is not fused."""
    use = smallest.estimate.attention
    return [use.words] if use is not None and use.unfused else []


def _no_bf16(front: Front, smallest: Candidate) -> list[str]:
    """Why weights that are published in bf16 take twice as much."""
    upcast = "bfloat16" in front.found.precision.dtypes and "float32" in smallest.plan.precision.dtypes
    if not upcast or front.device.supports_bf16:
        return []
    return [f"{card_words(front.device)} computes no bf16, so the weights are in fp32"]


def _named(front: Front, budget: Budget) -> list[str]:
    named = front.best_named(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes)
    return [] if named is None else [in_words(named, front.caution)]


def in_words(named: Candidate, caution: str) -> str:
    """A plan in a precision that is not known to give right images, with the argument that takes it."""
    estimate, dtype = named.estimate, named.plan.dtype
    return (
        f"keep={{'dtype': '{dtype}'}} would need {size(estimate.needed_bytes)} and take {duration(estimate.latency_s)}, "
        f"but is not chosen: {caution}"
    )


def _in_bits(front: Front, budget: Budget) -> list[str]:
    """What quantised weights would take, where that would fit: they are not offered yet."""
    sizes = {bits: round(front.parameters * per_parameter) for bits, per_parameter in _BITS.items()}
    fitting = [f"{size(taken)} in {bits}" for bits, taken in sizes.items() if 0 < taken <= budget.ram_bytes]
    return [f"quantised, which is to come, the weights would take {' and '.join(fitting)}"] if fitting else []


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
