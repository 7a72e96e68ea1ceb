"""Covering arrays: few plans that together hold every pair of lever values that may meet."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from autotune.records.plan import Plan
from autotune.records.rules import conflict

Values = Mapping[str, Sequence[Any]]
Allowed = Callable[[Plan], bool]
_TRIES = 30  # at a plan; the one with most new pairs is taken


def pairs_of(plan: Plan, names: Sequence[str]) -> set[tuple[str, Any, str, Any]]:
    """The pairs of values that the plan holds."""
    return {(a, getattr(plan, a), b, getattr(plan, b)) for a, b in combinations(names, 2)}


def allowed_pairs(values: Values, allowed: Allowed = lambda plan: conflict(plan) is None) -> set[Any]:
    """Every pair that may meet when all other levers rest."""
    return {
        (a, x, b, y)
        for a, b in combinations(list(values), 2)
        for x in values[a]
        for y in values[b]
        if allowed(Plan(**{a: x, b: y}))
    }


def covering(values: Values, allowed: Allowed = lambda plan: conflict(plan) is None, *, seed: int = 0) -> list[Plan]:
    """Plans that hold every allowed pair: greedy, one uncovered pair after another, the rest filled by chance."""
    chance, names = random.Random(seed), list(values)
    left = allowed_pairs(values, allowed)
    plans: list[Plan] = []
    while left:
        wanted = min(left, key=repr)
        best = max(
            (plan for plan in (_around(wanted, values, chance) for _ in range(_TRIES)) if allowed(plan)),
            key=lambda plan: len(pairs_of(plan, names) & left),
            default=Plan(**{wanted[0]: wanted[1], wanted[2]: wanted[3]}),
        )
        plans.append(best)
        left -= pairs_of(best, names)
    return plans


def _around(pair: tuple[str, Any, str, Any], values: Values, chance: random.Random) -> Plan:
    a, x, b, y = pair
    return Plan(**{name: chance.choice(list(choices)) for name, choices in values.items()} | {a: x, b: y})


def sampled(
    values: Values, count: int, allowed: Allowed = lambda plan: conflict(plan) is None, *, seed: int = 1
) -> list[Plan]:
    """So many different plans by chance, all allowed."""
    chance = random.Random(seed)
    plans: dict[Any, Plan] = {}
    while len(plans) < count:
        plan = Plan(**{name: chance.choice(list(choices)) for name, choices in values.items()})
        if allowed(plan):
            plans[tuple(plan.values.values())] = plan
    return list(plans.values())
