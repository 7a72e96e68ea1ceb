"""Facts about estimates and choices that hold for every size and every cap."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.errors import DoesNotFitError
from autotune.flow import planning
from autotune.flow.budget import Budget
from autotune.flow.choose import choose
from autotune.flow.job import job_for
from autotune.flow.planning import front_of
from autotune.records.device import Device
from autotune.records.plan import LANES, Plan
from autotune.records.precision import Precision
from autotune.records.workload import Workload
from autotune.search.space import Space
from benchmarks.tiny import sd

SLOW = Device(
    name="a slow card",
    kind="cuda",
    torch_device="cuda:0",
    compute_capability=(8, 6),
    total_bytes=2 * 10**9,
    bandwidth_bytes_per_s=1e8,  # so that a tiny model takes seconds
    fp32_flops_per_s=1e9,
    fp16_flops_per_s=2e9,
    bf16_flops_per_s=2e9,
    pcie_generation=1,
    pcie_width=1,
)
EDGES, BATCHES = (32, 64), (1, 2)
SPACE = Space(
    values={
        "dtype": (None, Precision("float16")),
        "batch_split": (None, 2),
        "vae_tiling": (None, 32),
        "offload": (None, "model", "sequential", "group:block", "group:leaf+stream"),
        "text_encoders": (None, "leave"),
    }
)
PLANS = tuple(SPACE.plans())
FEW = settings(max_examples=40, deadline=None)


@cache
def pipeline():
    return sd()


def job(batch, edge):
    call = Workload(batch=batch, height=edge, width=edge, steps=4)
    return job_for(pipeline(), device=SLOW, workload=call, example=None, calls=1, undo=True)


@cache
def estimates(batch, edge):
    return {p.id: e for p, e in zip(PLANS, planning.estimates(job(batch, edge), PLANS), strict=True)}


@cache
def front():
    return front_of(job(2, 64))


def cap_at(share):
    """From below the smallest plan to above the largest."""
    needs = [estimate.needed_bytes for estimate in estimates(2, 64).values()]
    low, high = min(needs) - 10**6, max(needs) + 10**6
    return round(low + share * (high - low))


SEGMENT_BYTES = 20 * 2**20  # of the allocator, for requests of 1 to 10 MiB
plans = st.sampled_from(PLANS)
pairs = st.tuples(st.sampled_from(EDGES), st.sampled_from(EDGES)).map(sorted)
caps = st.floats(0, 1).map(cap_at)


@FEW
@given(plans, pairs, st.sampled_from(BATCHES))
def test_more_pixels_need_no_less(plan, edges, batch):
    small, large = (estimates(batch, edge)[plan.id] for edge in edges)
    assert small.allocated_bytes <= large.allocated_bytes
    assert small.process_bytes <= large.process_bytes + SEGMENT_BYTES  # other sizes leave other gaps between blocks
    assert small.latency_s <= large.latency_s


@FEW
@given(plans, st.sampled_from(EDGES), st.tuples(st.sampled_from(BATCHES), st.sampled_from(BATCHES)).map(sorted))
def test_a_larger_batch_needs_no_less(plan, edge, batches):
    small, large = (estimates(batch, edge)[plan.id] for batch in batches)
    assert small.allocated_bytes <= large.allocated_bytes
    assert small.process_bytes <= large.process_bytes + SEGMENT_BYTES  # other sizes leave other gaps between blocks
    assert small.latency_s <= large.latency_s


@FEW
@given(plans, st.sampled_from(EDGES), st.sampled_from(BATCHES))
def test_moving_weights_away_needs_no_more_and_takes_no_less(plan, edge, batch):
    alike = [p for p in PLANS if p.model_copy(update={"offload": plan.offload}).same_as(plan)]
    alike = [p for p in alike if p.offload in {None, "model", "sequential"}]
    assert [p.offload for p in alike] == ([None, "model", "sequential"] if plan.text_encoders is None else [None])
    chain = [estimates(batch, edge)[p.id] for p in alike]
    for one, other in pairwise(chain):
        assert one.process_bytes >= other.process_bytes
        assert one.latency_s <= other.latency_s


@FEW
@given(plans, st.sampled_from(EDGES), st.sampled_from(BATCHES))
def test_weights_in_parts_need_no_more_than_whole(plan, edge, batch):
    alike = {p.offload: p for p in PLANS if p.model_copy(update={"offload": plan.offload}).same_as(plan)}
    by = {offload: estimates(batch, edge)[p.id] for offload, p in alike.items()}
    for offload in ("group:block", "group:leaf+stream"):
        assert by[offload].process_bytes <= by[None].process_bytes
        assert by[offload].host_ram_bytes >= by[None].host_ram_bytes
        assert by[offload].latency_s >= by[None].latency_s


def chosen(cap, quality="near"):
    budget = Budget(vram_bytes=cap, ram_bytes=10**12)
    return choose(front(), budget, quality=quality, objective="latency", nearest=lambda *_: None)


@FEW
@given(caps, st.sampled_from(LANES))
def test_a_chosen_plan_stays_under_the_cap_and_in_its_lane(cap, quality):
    if front().best(max_vram=cap, quality=quality) is None:
        with pytest.raises(DoesNotFitError) as caught:
            chosen(cap, quality)
        smallest = caught.value.smallest_bytes
        assert smallest > cap
        assert chosen(smallest, quality).estimate.needed_bytes == smallest
    else:
        pick = chosen(cap, quality)
        assert pick.estimate.needed_bytes <= cap
        assert LANES.index(pick.plan.lane) <= LANES.index(quality)


@FEW
@given(st.tuples(caps, caps).map(sorted), st.booleans())
def test_a_smaller_cap_never_buys_a_faster_plan(two_caps, tiled):
    """Among plans that tile alike: an untiled one is preferred whatever it takes. Times within max(1 %, 50 ms) are equal."""
    pool = front().model_copy(
        update={"candidates": tuple(c for c in front().candidates if (c.plan.vae_tiling is not None) == tiled)}
    )
    little, much = (pool.best(max_vram=cap) for cap in two_caps)
    if little is not None:
        seconds = little.estimate.per_call_s(1)
        assert much.estimate.per_call_s(1) <= seconds + max(0.01 * seconds, 0.05)


@FEW
@given(caps)
def test_best_is_as_fast_as_anything_it_could_have_taken(cap):
    best = front().best(max_vram=cap)
    fitting = [c for c in front().candidates if c.fits(cap, None) and c.plan.vae_tiling is None]
    if fitting:
        fastest = min(c.estimate.per_call_s(1) for c in fitting)
        assert best.estimate.per_call_s(1) <= fastest + max(0.01 * fastest, 0.05)
        assert best.plan.vae_tiling is None
    smallest = front().best(max_vram=cap, objective="memory")
    assert (best is None) == (smallest is None)


def test_the_front_is_worth_asking():
    taken = {chosen(c.estimate.needed_bytes).plan.id for c in front().candidates}
    assert len(taken) >= 3
    assert front().best().estimate.latency_s > 1.0
    assert front().best(max_vram="1KB") is None


@pytest.mark.parametrize("plan", [Plan(), Plan(offload="sequential")])
def test_more_steps_take_longer_and_need_nothing(plan):
    def after(steps):
        call = Workload(height=32, width=32, steps=steps)
        one = job_for(pipeline(), device=SLOW, workload=call, example=None, calls=1, undo=True)
        return planning.estimates(one, [plan])[0]

    few, many = after(4), after(40)
    assert few.process_bytes == many.process_bytes
    assert many.latency_s > 5 * few.phase("denoising").latency_s
    assert many.step_s == pytest.approx(few.step_s)
