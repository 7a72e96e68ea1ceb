"""The plans worth looking at, as a product of domains."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from autotune.errors import PlanError, nearest
from autotune.records.base import Record
from autotune.records.plan import EXECUTION_LEVERS, LEVERS, PLAIN, Plan
from autotune.records.rules import conflict
from autotune.records.values import typed

__all__ = ["Space"]


class Space(Record):
    """For each lever the values to try, and why those."""

    values: dict[str, tuple[Any, ...]]
    """Values by lever."""
    reasons: dict[str, str] = {}
    """Why a lever has these values and no others."""
    found: Plan = PLAIN
    """The pipeline without a plan: what plans leave as found."""
    executions: frozenset[tuple[Any, ...]] | None = None
    """The combinations of execution levers that run (`Plan.execution`); None for all."""

    @property
    def size(self) -> int:
        """Number of combinations, those that a rule refuses included."""
        return prod(len(values) for values in self.values.values())

    @property
    def wanted(self) -> frozenset[tuple[Any, ...]]:
        """The combinations of execution levers that its plans have (`Plan.execution`)."""
        asked = frozenset(product(*(self.values.get(name, (None,)) for name in EXECUTION_LEVERS)))
        return asked if self.executions is None else asked & self.executions

    def plans(self) -> Iterator[Plan]:
        """Every plan that is allowed, named by its place: p0, p1 and so on."""
        names = list(self.values)
        for number, chosen in enumerate(product(*self.values.values())):
            plan = Plan(**dict(zip(names, chosen, strict=True)), id=f"p{number}")
            if self.allows(plan):
                yield plan

    def allows(self, plan: Plan) -> bool:
        """Whether no rule refuses the plan, and what it executes runs."""
        return conflict(plan, self.found) is None and (self.executions is None or plan.execution in self.executions)

    def running(self, executions: Collection[tuple[Any, ...]], refused: Mapping[tuple[str, Any], str]) -> Space:
        """The space with these executions only, and without values that none of them has.

        Args:
            executions: those that run.
            refused: why values do not, by lever and value.
        """
        running = {name: {key[place] for key in executions} for place, name in enumerate(EXECUTION_LEVERS)}
        values = {
            name: tuple(value for value in chosen if value in running.get(name, chosen))
            for name, chosen in self.values.items()
        }
        reasons = dict(self.reasons)
        for (name, value), why in refused.items():
            if value in self.values[name] and value not in values[name]:
                reasons[name] = "; ".join(filter(None, (reasons.get(name), f"{typed(value)} does not run: {why}")))
        return self.model_copy(update={"values": values, "reasons": reasons, "executions": frozenset(executions)})

    def restricted(self, fixed: Mapping[str, Any]) -> Space:
        """The space with some levers fixed at a value.

        Raises:
            PlanError: no such lever.
        """
        for name in fixed:
            if name not in self.values:
                raise PlanError(f"no lever {name!r}; nearest: {nearest(name, list(LEVERS))}")
        values = self.values | {name: (value,) for name, value in fixed.items()}
        reasons = {name: why for name, why in self.reasons.items() if name not in fixed}
        return self.model_copy(update={"values": values, "reasons": reasons})
