"""Which candidates nobody beats, and why a candidate has the values it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from autotune.records.front import Candidate
from autotune.records.plan import LEVERS
from autotune.records.rules import conflict
from autotune.search.space import Space
from autotune.units import duration, size

__all__ = ["COMPARED", "Neighbours", "among", "objectives", "pareto", "with_reasons"]

# Plans this close in time are equal: measurements of one plan differ by as much.
_EQUAL_SHARE = 0.01
_EQUAL_S = 0.05
COMPARED = 3
"""Other values that a reason compares with: those nearest in time."""
Neighbours = Callable[[str], Mapping[Any, Candidate]]
"""By lever: candidates that differ from one in that lever alone, by its value."""


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


def among(evaluated: Iterable[Candidate]) -> Callable[[Candidate], Neighbours]:
    """Neighbours of a candidate among these."""
    by_values = {tuple(one.plan.values.values()): one for one in evaluated}

    def of(candidate: Candidate) -> Neighbours:
        def neighbours(lever: str) -> dict[Any, Candidate]:
            place = LEVERS.index(lever)
            own = tuple(candidate.plan.values.values())
            rest = own[:place], own[place + 1 :]
            alike = {key[place]: one for key, one in by_values.items() if (key[:place], key[place + 1 :]) == rest}
            return {value: one for value, one in alike.items() if value != own[place]}

        return neighbours

    return of


def with_reasons(candidate: Candidate, neighbours: Neighbours, space: Space) -> Candidate:
    """The candidate with a reason for each lever: what its value gains and costs against the nearest other."""
    reasons = {name: _reason(name, candidate, neighbours, space) for name in space.values}
    return candidate.model_copy(update={"plan": candidate.plan.model_copy(update={"reasons": reasons})})


def _reason(name: str, candidate: Candidate, neighbours: Neighbours, space: Space) -> str:
    """The figures beside those of the nearest other values; where each of those is refused, why."""
    others = [value for value in space.values[name] if value != getattr(candidate.plan, name)]
    if not others:
        return space.reasons.get(name, "fixed by the caller")
    known = neighbours(name)
    if not known:
        plans = [candidate.plan.model_copy(update={name: value}) for value in others]
        refusals = dict.fromkeys(rule.reason for plan in plans if (rule := conflict(plan, space.found)) is not None)
        return "; ".join(refusals) or "other values were not looked at"
    nearest = sorted(known, key=lambda value: abs(known[value].estimate.latency_s - candidate.estimate.latency_s))
    return "; ".join(_compared(value, candidate, known[value]) for value in nearest[:COMPARED])


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
