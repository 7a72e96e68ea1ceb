"""The allowed plans of a space as rows of numbers, a hundred thousand of them in less time than a hundred plans in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.rules import RULES
from autotune.search.space import Space

__all__ = ["Grid"]

_Ints = NDArray[np.int64]
_Flags = NDArray[np.bool_]


class Grid:
    """Every allowed plan of a space.

    >>> grid = Grid(Space(values={"vae_tiling": (False, 512), "offload": ("none", "model")}))
    >>> len(grid), grid.codes.tolist()
    (4, [[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> grid.plan(2).id, grid.plan(2).changes
    ('p2', {'vae_tiling': 512, 'offload': 'none'})
    """

    def __init__(self, space: Space) -> None:
        self._space, self._names = space, list(space.values)
        self._sizes = [len(values) for values in space.values.values()]
        everything = np.indices(self._sizes, dtype=np.int16).reshape(len(self._sizes), -1)
        allowed = np.flatnonzero(self._runs(everything) & self._obeys(everything))
        self.codes: _Ints = everything[:, allowed].T.astype(np.int64)
        """Which value of each lever each plan has, shape `(plans, levers)`."""
        self.numbers: _Ints = allowed
        """Each plan's place in the product of all values, shape `(plans,)`."""

    def __len__(self) -> int:
        return len(self.numbers)

    def plan(self, row: int) -> Plan:
        """The plan in words, named by its place."""
        chosen = zip(self._names, self.codes[row].tolist(), strict=True)
        return Plan(**{name: self._space.values[name][code] for name, code in chosen}, id=f"p{self.numbers[row]}")

    def beside(self, row: int, lever: str) -> dict[Any, int]:
        """The rows of plans that differ from this one in that lever alone, by its value."""
        place = self._names.index(lever)
        step, own = int(np.prod(self._sizes[place + 1 :], dtype=np.int64)), int(self.codes[row, place])
        found = {}
        for code, value in enumerate(self._space.values[lever]):
            number = int(self.numbers[row]) + (code - own) * step
            at = int(np.searchsorted(self.numbers, number))
            if code != own and at < len(self) and self.numbers[at] == number:
                found[value] = at
        return found

    @property
    def set_levers(self) -> _Ints:
        """How many levers each plan sets, shape `(plans,)`."""
        figures = [self._figures(name, lambda plan: len(plan.changes)) for name in self._names]
        levers: _Ints = np.stack(figures).sum(axis=0)
        return levers

    @property
    def ranks(self) -> _Ints:
        """`Plan.quality_rank` of each, which is the worst that one of its values has; shape `(plans,)`."""
        figures = [self._figures(name, lambda plan: plan.quality_rank) for name in self._names]
        worst: _Ints = np.stack(figures).max(axis=0)
        return worst

    def _figures(self, lever: str, figure: Callable[[Plan], int]) -> _Ints:
        """What the lever's value by itself comes to in each plan."""
        table = np.array([figure(Plan(**{lever: value})) for value in self._space.values[lever]], dtype=np.int64)
        return table[self.codes[:, self._names.index(lever)]]

    def _runs(self, everything: NDArray[np.int16]) -> _Flags:
        """Whether what a plan executes runs."""
        if self._space.executions is None:
            return np.ones(everything.shape[1], dtype=np.bool_)
        places = [place for place, name in enumerate(self._names) if name in EXECUTION_LEVERS]
        ordered = [EXECUTION_LEVERS.index(self._names[place]) for place in places]
        running = np.zeros([self._sizes[place] for place in places], dtype=np.bool_)
        for execution in self._space.executions:
            chosen = [execution[index] for index in ordered]
            values = [self._space.values[self._names[place]] for place in places]
            if all(value in there for value, there in zip(chosen, values, strict=True)):
                running[tuple(there.index(value) for value, there in zip(chosen, values, strict=True))] = True
        runs: _Flags = running[tuple(everything[place] for place in places)]
        return runs

    def _obeys(self, everything: NDArray[np.int16]) -> _Flags:
        """Whether no rule refuses it."""
        refused = np.zeros(everything.shape[1], dtype=np.bool_)
        for rule in RULES:
            refused |= self._matches(everything, rule.one, rule.one_matches) & self._matches(
                everything, rule.other, rule.other_matches
            )
        return ~refused

    def _matches(self, everything: NDArray[np.int16], lever: str, matches: Callable[[Any], bool]) -> _Flags:
        """Whether a rule is about the plan's value; what a plan leaves as found is what was found."""
        found = getattr(self._space.found, lever)
        if lever not in self._names:
            return np.full(everything.shape[1], bool(matches(found)))
        table = [bool(matches(found if value is None else value)) for value in self._space.values[lever]]
        matching: _Flags = np.array(table)[everything[self._names.index(lever)]]
        return matching
