"""Which candidates nobody beats, and why a candidate has the values it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autotune.records.front import Candidate
from autotune.records.plan import LEVERS, Plan
from autotune.records.rules import conflict
from autotune.search.space import Space
from autotune.units import duration, size

__all__ = ["objectives", "pareto", "with_reasons"]

# Plans this close in time are equal: measurements of one plan differ by as much.
_EQUAL_SHARE = 0.01
_EQUAL_S = 0.05
_COMPARED = 3  # other values that a reason compares with: those nearest in time


def objectives(candidate: Candidate) -> tuple[float, float, float, int]:
    """What is minimised: needed VRAM and host RAM in bytes, seconds, loss of quality."""
    estimate = candidate.estimate
    return estimate.needed_bytes, estimate.host_ram_bytes, estimate.latency_s, candidate.plan.quality_rank


def pareto(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates nobody beats, from the fastest to the smallest.

    One beats another that is nowhere better, what the first call takes longer included; of two that are equal within max(1 %,
    50 ms) and no better in bytes and quality the simpler stays.
    """
    ordered = sorted(candidates, key=lambda c: (*_coarse(c), len(c.plan.changes), c.estimate.latency_s))
    kept: list[Candidate] = []
    for candidate in ordered:
        if not any(_beats(other, candidate) for other in kept):
            kept = [other for other in kept if not _beats(candidate, other)]
            kept.append(candidate)
    return tuple(sorted(kept, key=lambda c: (c.estimate.latency_s, c.estimate.needed_bytes)))


def _coarse(candidate: Candidate) -> tuple[float, ...]:
    needed, ram, _, rank = objectives(candidate)
    return (rank, candidate.estimate.setup_s, needed, ram)


def _beats(one: Candidate, other: Candidate) -> bool:
    a, b = objectives(one), objectives(other)
    no_worse = a[0] <= b[0] and a[1] <= b[1] and a[3] <= b[3] and one.estimate.setup_s <= other.estimate.setup_s
    return no_worse and a[2] <= b[2] + max(_EQUAL_SHARE * b[2], _EQUAL_S)


def with_reasons(candidate: Candidate, evaluated: Mapping[tuple[Any, ...], Candidate], space: Space) -> Candidate:
    """The candidate with a reason for each lever: what its value gains and costs against the nearest other."""
    reasons = {name: _reason(name, candidate, evaluated, space) for name in space.values}
    return candidate.model_copy(update={"plan": candidate.plan.model_copy(update={"reasons": reasons})})


def _reason(name: str, candidate: Candidate, evaluated: Mapping[tuple[Any, ...], Candidate], space: Space) -> str:
    """The figures beside those of the nearest other values; where each of those is refused, why."""
    values, own = space.values[name], getattr(candidate.plan, name)
    others = [value for value in values if value != own]
    if not others:
        return space.reasons.get(name, "fixed by the caller")
    plans = {value: candidate.plan.model_copy(update={name: value}) for value in others}
    known = {value: evaluated[_values(plan)] for value, plan in plans.items() if _values(plan) in evaluated}
    if not known:
        refusals = dict.fromkeys(
            rule.reason for plan in plans.values() if (rule := conflict(plan, space.found)) is not None
        )
        return "; ".join(refusals) or "other values were not looked at"
    nearest = sorted(known, key=lambda value: abs(known[value].estimate.latency_s - candidate.estimate.latency_s))
    return "; ".join(_compared(value, candidate, known[value]) for value in nearest[:_COMPARED])


def _compared(value: Any, candidate: Candidate, other: Candidate) -> str:
    """What is needed of the card, seconds and RAM, as the front compares them: equal times are no difference."""
    vram = candidate.estimate.needed_bytes - other.estimate.needed_bytes
    seconds = candidate.estimate.latency_s - other.estimate.latency_s
    ram = candidate.estimate.host_ram_bytes - other.estimate.host_ram_bytes
    parts = [f"{size(abs(vram))} {'less' if vram < 0 else 'more'} VRAM"] if vram else []
    if abs(seconds) > max(_EQUAL_S, _EQUAL_SHARE * other.estimate.latency_s):
        parts.append(f"{duration(abs(seconds))} {'faster' if seconds < 0 else 'slower'}")
    if ram:
        parts.append(f"{size(abs(ram))} {'less' if ram < 0 else 'more'} RAM")
    simpler = len(candidate.plan.changes) < len(other.plan.changes)
    shown = "what was found" if value is None else value
    said = ", ".join(parts) or ("no difference, and simpler" if simpler else "no difference")
    return f"against {shown}: {said}"


def _values(plan: Plan) -> tuple[Any, ...]:
    return tuple(plan.values[name] for name in LEVERS)
