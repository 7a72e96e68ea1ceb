"""The Pareto front of a whole space, exactly, from a part of its estimates.

Plans are looked at from the fastest on. One that is no better in anything than an estimate that is there, even by what it costs
at least, cannot be on the front, and is not estimated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autotune.records.costs import Costs
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate
from autotune.records.plan import Plan
from autotune.search.front import objectives
from autotune.search.grid import Grid

__all__ = ["Estimator", "Known", "Progress", "undominated"]

Estimator = Callable[[Sequence[Plan]], list[Estimate]]
Progress = Callable[[int, int], None]

_BATCH = 256


class Known:
    """Estimates of a grid's plans, made when they are asked for."""

    def __init__(self, grid: Grid, estimate: Estimator) -> None:
        self._grid, self._estimate = grid, estimate
        self._made: dict[int, Candidate] = {}

    def __getitem__(self, row: int) -> Candidate:
        if row not in self._made:
            self._add([row])
        return self._made[row]

    @property
    def made(self) -> Mapping[int, Candidate]:
        """Those that were asked for, by row."""
        return self._made

    def estimate_all(self, progress: Progress | None) -> None:
        """Every plan of the grid, in batches."""
        for start in range(0, len(self._grid), _BATCH):
            self._add(range(start, min(start + _BATCH, len(self._grid))))
            if progress:
                progress(len(self._made), len(self._grid))

    def _add(self, rows: Sequence[int]) -> None:
        plans = [self._grid.plan(row) for row in rows]
        for row, plan, estimate in zip(rows, plans, self._estimate(plans), strict=True):
            self._made[row] = Candidate(plan=plan, estimate=estimate)


def undominated(grid: Grid, costs: Costs, known: Known, *, progress: Progress | None = None) -> list[Candidate]:
    """The plans that may be on the front, estimated.

    What beats a plan, within the front's tolerance for times, also beats all that this plan dominates: so leaving out what is
    dominated changes no front. Of two that cost the same the one that sets fewer levers stays.
    """
    ranks, levers = grid.ranks, grid.set_levers
    order = np.lexsort((levers, ranks, costs.setup_s, costs.ram_bytes, costs.needed_bytes, costs.latency_s))
    there = _There(len(order))
    for done, row in enumerate(order.tolist()):
        least = costs.needed_bytes[row], costs.ram_bytes[row], costs.setup_s[row], ranks[row], costs.latency_s[row]
        if not there.dominates((*least, levers[row], row)):
            needed, ram, latency_s, rank = objectives(known[row])
            there.add((needed, ram, known[row].estimate.setup_s, rank, latency_s, levers[row], row))
        if progress and (done + 1) % _BATCH == 0:
            progress(done + 1, len(order))
    if progress:
        progress(len(order), len(order))
    return list(known.made.values())


class _There:
    """What was estimated: bytes of VRAM and RAM, seconds of setup, loss of quality, seconds, levers that are set, the row."""

    def __init__(self, most: int) -> None:
        self._rows = np.empty((most, 7))
        self._count = 0

    def add(self, row: tuple[float, ...]) -> None:
        """One more."""
        self._rows[self._count] = row
        self._count += 1

    def dominates(self, least: tuple[float, ...]) -> bool:
        """Whether one of them is nowhere worse than a plan that costs at least so much, and comes before it on a front: with
        less of anything but time, else with fewer levers, else sooner."""
        rows = self._rows[: self._count]
        rows = rows[(rows[:, :5] <= least[:5]).all(axis=1)]
        if (rows[:, :4] < least[:4]).any():
            return True
        seconds, levers, number = least[4:]
        return any((row[5], row[4], row[6]) < (levers, seconds, number) for row in rows.tolist())
