"""A grid holds the plans that a space allows, and knows what it knows without putting them in words."""

from __future__ import annotations

import pytest

from autotune.records.plan import Plan
from autotune.search.grid import Grid
from autotune.search.space import Space

VALUES = {
    "dtype": (None, "float16", "bfloat16, vae=float32"),
    "feed_forward_chunks": (None, 2),
    "vae_tiling": (None, False, 512),
    "compile": (None, "trace", "blocks"),
    "offload": (None, "none", "model", "sequential", "group:leaf+stream"),
    "text_encoders": (None, "leave"),
}
EVERYTHING = Space(values=VALUES)
RUNNING = frozenset({
    Plan(dtype=dtype, vae_tiling=tiling, feed_forward_chunks=chunks).execution
    for dtype in (None, "float16")
    for tiling, chunks in ((None, None), (512, 2), (256, None))
})  # fmt: skip
SPACES = {
    "all": EVERYTHING,
    "found offloaded": EVERYTHING.model_copy(update={"found": Plan(offload="sequential", compile="none")}),
    "some run": EVERYTHING.model_copy(update={"executions": RUNNING}),
    "none runs": EVERYTHING.model_copy(update={"executions": frozenset()}),
    "one value each": EVERYTHING.restricted({name: values[0] for name, values in VALUES.items()}),
}


@pytest.mark.parametrize("space", list(SPACES.values()), ids=list(SPACES))
def test_it_holds_the_plans_of_the_space(space):
    grid, plans = Grid(space), list(space.plans())
    assert [grid.plan(row) for row in range(len(grid))] == plans
    assert grid.ranks.tolist() == [plan.quality_rank for plan in plans]
    assert grid.set_levers.tolist() == [len(plan.changes) for plan in plans]


@pytest.mark.parametrize("space", list(SPACES.values()), ids=list(SPACES))
def test_neighbours_differ_in_one_lever(space):
    grid = Grid(space)
    plans = [grid.plan(row) for row in range(len(grid))]
    rows = {tuple(plan.values.items()): row for row, plan in enumerate(plans)}
    for row in range(0, len(grid), 7):
        for lever, values in space.values.items():
            others = [plans[row].model_copy(update={lever: getattr(Plan(**{lever: value}), lever)}) for value in values]
            there = {rows[key] for plan in others if (key := tuple(plan.values.items())) in rows}
            assert set(grid.beside(row, lever).values()) == there - {row}
