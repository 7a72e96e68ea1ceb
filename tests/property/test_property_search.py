"""What is not estimated could not have been on the front: any estimates, ties and times within the tolerance among them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.records.costs import Costs
from autotune.search.grid import Grid
from autotune.search.space import Space
from autotune.search.study import search
from tests.unit.handmade import estimate

SPACE = Space(
    values={
        "dtype": (None, "float16"),
        "vae_slicing": (None, True),
        "vae_tiling": (False, 512),
        "offload": ("none", "model", "sequential"),
    }
)
GRID = Grid(SPACE)
FEW = st.lists(st.integers(0, 4), min_size=len(GRID), max_size=len(GRID))
ROUGH = st.lists(st.integers(0, 3), min_size=len(GRID), max_size=len(GRID))


@given(vram=FEW, slack=ROUGH, ram=FEW, times=st.lists(st.sampled_from([1.0, 1.005, 1.04, 1.1, 2.0, 2.01]),
                                                    min_size=len(GRID), max_size=len(GRID)), setup=ROUGH)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_a_bounded_search_finds_the_whole_front(vram, slack, ram, times, setup):
    made = [
        estimate(
            process_bytes=(1 + needed + more) * 10**9, host_ram_bytes=waiting * 10**9, latency_s=latency_s,
            setup_s=5.0 * first,
        )
        for needed, more, waiting, latency_s, first in zip(vram, slack, ram, times, setup, strict=True)
    ]  # fmt: skip
    numbers = {GRID.plan(row).id: row for row in range(len(GRID))}
    asked = []

    def estimates(plans):
        asked.extend(plan.id for plan in plans)
        return [made[numbers[plan.id]] for plan in plans]

    def costs(values, codes):
        assert codes.shape == (len(GRID), len(values))
        return Costs(
            np.array([(1 + needed) * 10**9 for needed in vram]),
            np.array([one.host_ram_bytes for one in made]),
            np.array([one.latency_s for one in made]),
            np.array([one.setup_s for one in made]),
        )

    whole = search(SPACE, estimates)
    asked.clear()
    bounded = search(SPACE, estimates, costs)
    assert bounded.front == whole.front
    assert bounded.searched == whole.searched == len(whole.evaluated) == len(GRID)
    assert len(asked) == len(set(asked))
