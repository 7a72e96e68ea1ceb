"""Programs on the compiled allocator and raw events on the one in Python take the same bytes: real traces, every placement."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest

from autotune.flow.planning import space_of
from autotune.flow.recordings import Recordings
from autotune.records.plan import EXECUTION_LEVERS
from autotune.search.grid import Grid
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.replay import Replayer
from benchmarks.reference.call import Reference
from tests.contract.families import CARD, CPU, FAMILIES, build, job

SETTINGS = {
    "defaults": None,
    "expandable": Settings(expandable_segments=True),
    "rounded": Settings(roundup_power2_divisions=(8,) * 16),
}
PLANS = 25  # of each family and setting, by chance
RECORDED_AGAIN = ("batch_split", "vae_tiling")  # the denoiser's calls and the VAE's


@cache
def recorded(family):
    """The model, a space of all placements with a few variants, and the traces of these."""
    planned = job(family, build(family), device=CARD, batch=2)
    space = space_of(planned)
    few = {n: space.values[n][-1] for n in EXECUTION_LEVERS if n not in RECORDED_AGAIN}
    space = space.restricted(few | {"compile": None, "tf32": None})
    recordings = Recordings(planned, planned.largest, planned.calls[0])
    traces = recordings.traces(space)
    return planned.model, space.running(frozenset(traces), recordings.refused), traces


def usages(family, settings, plans):
    """Some plans, each with its timeline and its reference."""
    model, space, traces = recorded(family)
    parts = {"model": model, "device": CARD, "settings": settings}
    replayer = Replayer(traces, **parts, found=space.found, steps=2, undo=True)
    everything = list(space.plans())
    for plan in random.Random(family).sample(everything, min(plans, len(everything))):
        whole = plan.over(space.found)
        reference = Reference(traces[plan.execution], **parts, plan=whole, attention=whole.attention or "sdpa")
        yield plan, replayer.timeline(plan), reference


@pytest.mark.parametrize("settings", list(SETTINGS))
@pytest.mark.parametrize("family", FAMILIES)
def test_both_counts_agree(family, settings):
    placements = set()
    for plan, timeline, reference in usages(family, SETTINGS[settings], PLANS):
        placements.add((plan.offload, plan.text_encoders))
        for calls in (1, 2):
            assert timeline.run(calls=calls) == reference.run(calls=calls), plan.changes
    assert len(placements) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_costs_are_those_of_the_estimates_and_bytes_no_more(family):
    """Seconds and RAM are added up another way; what is live is a lower bound of what is reserved."""
    model, space, traces = recorded(family)
    space = space.model_copy(
        update={"values": space.values | {"compile": (None, "blocks"), "tf32": (None, False, True)}}
    )
    for device in (CARD, CPU):
        replayer = Replayer(traces, model=model, device=device, found=space.found, steps=7, undo=True)
        grid = Grid(space)
        estimates, costs = (
            replayer([grid.plan(row) for row in range(len(grid))]),
            replayer.costs(space.values, grid.codes),
        )
        assert costs.latency_s == pytest.approx([one.latency_s for one in estimates])
        assert costs.ram_bytes.tolist() == [one.host_ram_bytes for one in estimates]
        assert costs.setup_s.tolist() == [one.setup_s for one in estimates]
        needed = np.array([one.needed_bytes for one in estimates])
        assert (costs.needed_bytes <= needed).all()
        assert device.kind == "cuda" or (costs.needed_bytes == needed).all()


@pytest.mark.parametrize("settings", ["defaults", "rounded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_both_get_through_under_the_smallest_limit(family, settings):
    for plan, timeline, reference in usages(family, SETTINGS[settings], 4):
        limit = timeline.smallest_limit()
        assert timeline.run(limit, calls=2) == reference.run(limit, calls=2), plan.changes
