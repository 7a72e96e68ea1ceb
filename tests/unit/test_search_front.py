"""The Pareto front: nobody in it is beaten, whoever was dropped is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autotune.records.plan import Plan
from autotune.search.front import among, objectives, pareto, with_reasons
from autotune.search.space import Space
from tests.unit.handmade import candidate

PLANS = [Plan(), Plan(dtype="float16"), Plan(vae_tiling=512), Plan(dtype="float16", vae_tiling=256)]
CANDIDATES = st.lists(
    st.builds(
        lambda plan, vram, ram, seconds: candidate(
            plan, process_bytes=vram * 10**9, host_ram_bytes=ram * 10**9, latency_s=seconds
        ),
        st.sampled_from(PLANS),
        st.integers(1, 3),
        st.integers(0, 1),
        st.one_of(st.integers(1, 8).map(float), st.floats(1.0, 1.2)),
    ),
    max_size=12,
)


def beats(one, other):
    """Nowhere worse; times within max(1 %, 50 ms) are equal."""
    *bytes_and_rank, seconds = (objectives(one)[i] for i in (0, 1, 3, 2))
    *others, other_seconds = (objectives(other)[i] for i in (0, 1, 3, 2))
    no_worse = all(a <= b for a, b in zip(bytes_and_rank, others, strict=True))
    return no_worse and seconds <= other_seconds + max(0.01 * other_seconds, 0.05)


@given(CANDIDATES)
def test_nobody_in_the_front_is_beaten(candidates):
    front = pareto(candidates)
    assert not any(beats(one, other) for one in front for other in front if one is not other)


@given(CANDIDATES)
def test_whoever_was_dropped_is_beaten(candidates):
    kept = {id(c) for c in pareto(candidates)}
    for dropped in (c for c in candidates if id(c) not in kept):
        assert any(beats(other, dropped) for other in candidates if other is not dropped)


@given(CANDIDATES)
def test_the_front_goes_from_fast_to_small(candidates):
    front = pareto(candidates)
    assert bool(front) == bool(candidates)
    assert list(front) == sorted(front, key=lambda c: (c.estimate.latency_s, c.estimate.needed_bytes))


def test_of_equal_plans_the_simpler_stays():
    simple = candidate(Plan(dtype="float16"), latency_s=1.04)
    busy = candidate(Plan(dtype="float16", offload="model"), latency_s=1.0)
    assert pareto([busy, simple]) == (simple,)


def test_a_busier_plan_that_is_much_faster_stays_instead():
    simple, busy = candidate(Plan(vae_tiling=512), latency_s=9.0), candidate(PLANS[3], latency_s=1.0)
    assert pareto([simple, busy]) == pareto([busy, simple]) == (busy,)


def test_the_margin_counts_as_needed():
    sure, unsure = candidate(process_bytes=100), candidate(process_bytes=90, margin_bytes=20)
    assert pareto([sure, unsure]) == (sure,)


def test_each_lever_has_a_reason():
    space = Space(
        values={"dtype": (None, "float16"), "offload": (None, "model"), "tf32": (None,)},
        reasons={"tf32": "the card has none"},
    )
    resident = candidate(Plan(dtype="float16"), process_bytes=4 * 10**9, latency_s=10.0)
    others = [
        candidate(Plan(), process_bytes=8 * 10**9, latency_s=30.0),
        candidate(
            Plan(dtype="float16", offload="model"), process_bytes=3 * 10**9, host_ram_bytes=10**9, latency_s=12.0
        ),
    ]
    beside = among((resident, *others))
    assert with_reasons(resident, beside(resident), space).plan.reasons == {
        "dtype": "against what was found: 4.00 GB less VRAM, 20.0 s faster",
        "offload": "against model: 1.00 GB more VRAM, 2.0 s faster, 1.00 GB less RAM",
        "tf32": "the card has none",
    }


def test_a_value_the_caller_fixed_says_so_and_one_that_nothing_was_compared_with_too():
    one = candidate(Plan(dtype="float16"))
    kept = Space(values={"dtype": ("float16",), "offload": (None, "model")}, reasons={"offload": "weights can wait"})
    reasons = with_reasons(one, among([])(one), kept).plan.reasons
    assert reasons == {"dtype": "fixed by the caller", "offload": "other values were not looked at"}


def test_a_value_without_alternatives_says_what_refuses_them():
    """Never why the lever has no further values, such as that only a UNet is traced."""
    one = candidate(Plan(offload="sequential"))
    space = Space(values={"compile": (None, "blocks")}, reasons={"compile": "only a UNet is traced"})
    assert "breaks its graph" in with_reasons(one, among([])(one), space).plan.reasons["compile"]


def test_only_the_simpler_of_two_equal_plans_is_called_simpler():
    space = Space(values={"batch_split": (None, 2)})
    whole, split = candidate(Plan(), latency_s=10.0), candidate(Plan(batch_split=2), latency_s=10.001)
    beside = among((whole, split))
    assert with_reasons(whole, beside(whole), space).plan.reasons == {
        "batch_split": "against 2: no difference, and simpler"
    }
    assert with_reasons(split, beside(split), space).plan.reasons == {
        "batch_split": "against what was found: no difference"
    }


def test_reasons_tell_what_is_needed_margin_included():
    space = Space(values={"offload": (None, "model")})
    sure = candidate(Plan(), process_bytes=4 * 10**9, margin_bytes=10**8, latency_s=1.0)
    unsure = candidate(Plan(offload="model"), process_bytes=3 * 10**9, margin_bytes=2 * 10**9, latency_s=1.0)
    beside = among((sure, unsure))
    assert with_reasons(sure, beside(sure), space).plan.reasons == {"offload": "against model: 900 MB less VRAM"}
