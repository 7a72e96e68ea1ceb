"""The plans worth looking at, as a product of domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from math import prod
from typing import Any

from autotune.errors import PlanError, nearest
from autotune.records.base import Record
from autotune.records.plan import LEVERS, Plan

__all__ = ["Space"]


class Space(Record):
    """For each lever the values to try, and why those."""

    values: dict[str, tuple[Any, ...]]
    """Values by lever, the default or present one first."""
    reasons: dict[str, str] = {}
    """Why a lever has these values and no others."""

    @property
    def size(self) -> int:
        """Number of plans."""
        return prod(len(values) for values in self.values.values())

    def plans(self) -> Iterator[Plan]:
        """Every plan, named by its place: p0, p1 and so on."""
        names = list(self.values)
        for number, chosen in enumerate(product(*self.values.values())):
            yield Plan(**dict(zip(names, chosen, strict=True)), id=f"p{number}")

    def restricted(self, *, keep: Mapping[str, Any] | None = None, forbid: tuple[str, ...] = ()) -> Space:
        """The space with some levers fixed at a value, others left at their first.

        Raises:
            PlanError: no such lever.
        """
        values = dict(self.values)
        for name in (*(keep or {}), *forbid):
            if name not in values:
                raise PlanError(f"no lever {name!r}; nearest: {nearest(name, list(LEVERS))}")
        for name in forbid:
            values[name] = values[name][:1]
        for name, value in (keep or {}).items():
            values[name] = (value,)
        return self.model_copy(update={"values": values})
