"""The plans worth looking at, as a product of domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from autotune.errors import PlanError, nearest
from autotune.records.base import Record
from autotune.records.plan import LEVERS, Plan
from autotune.records.rules import conflict

__all__ = ["Space"]


class Space(Record):
    """For each lever the values to try, and why those."""

    values: dict[str, tuple[Any, ...]]
    """Values by lever."""
    reasons: dict[str, str] = {}
    """Why a lever has these values and no others."""

    @property
    def size(self) -> int:
        """Number of combinations, those that a rule refuses included."""
        return prod(len(values) for values in self.values.values())

    def plans(self) -> Iterator[Plan]:
        """Every plan that no rule refuses, named by its place: p0, p1 and so on."""
        names = list(self.values)
        for number, chosen in enumerate(product(*self.values.values())):
            plan = Plan(**dict(zip(names, chosen, strict=True)), id=f"p{number}")
            if conflict(plan) is None:
                yield plan

    def restricted(self, fixed: Mapping[str, Any]) -> Space:
        """The space with some levers fixed at a value.

        Raises:
            PlanError: no such lever.
        """
        for name in fixed:
            if name not in self.values:
                raise PlanError(f"no lever {name!r}; nearest: {nearest(name, list(LEVERS))}")
        values = self.values | {name: (value,) for name, value in fixed.items()}
        return Space(values=values, reasons={name: why for name, why in self.reasons.items() if name not in fixed})
