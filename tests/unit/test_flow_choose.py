"""Choosing from a front: the best under the caps, and the words where there is none."""

from __future__ import annotations

import pytest

from autotune.errors import DoesNotFitError, PlanError
from autotune.flow.advice import advice
from autotune.flow.budget import Budget
from autotune.flow.choose import choose
from autotune.records.estimate import AttentionUse
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from tests.unit.handmade import CARD, candidate, front

GB = 10**9
RESIDENT = candidate(Plan(id="p0"), process_bytes=8 * GB, latency_s=10.0)
HALF = candidate(
    Plan(id="p1", dtype="float16"), process_bytes=4 * GB, latency_s=5.0, host_ram_bytes=3 * GB, undo_bytes=3 * GB
)
OFFLOADED = candidate(Plan(id="p2", offload="model"), process_bytes=5 * GB, latency_s=20.0, host_ram_bytes=6 * GB)
TILED = candidate(
    Plan(id="p3", dtype="float16", vae_tiling=512), process_bytes=3 * GB, latency_s=6.0, host_ram_bytes=3 * GB,
    margin_bytes=GB // 5,
)  # fmt: skip
FRONT = front(RESIDENT, HALF, OFFLOADED, TILED)


def budget(vram, ram=64, **more):
    return Budget(vram_bytes=int(vram * GB), ram_bytes=int(ram * GB), **more)


def chosen(vram, ram=64, **options):
    usual = {"quality": "near", "objective": "latency", "nearest": lambda plan, cap: None}
    return choose(FRONT, budget(vram, ram), **{**usual, **options})


@pytest.mark.parametrize(
    ("vram", "ram", "options", "plan"),
    [
        (12, 64, {}, "p1"),
        (12, 2, {}, "p0"),
        (12, 64, {"quality": "exact"}, "p0"),
        (6, 64, {"quality": "exact"}, "p2"),
        (3.5, 64, {}, "p3"),
        (12, 64, {"objective": "memory"}, "p1"),  # untiled before tiled
    ],
)
def test_the_best_under_the_caps(vram, ram, options, plan):
    assert chosen(vram, ram, **options).plan.id == plan


def refusal(*caps, **options):
    with pytest.raises(DoesNotFitError) as caught:
        chosen(*caps, **options)
    return caught.value


PARTS = "(weights 0 B + activations 3.00 GB + workspaces 0 B + overhead 0 B + margin 200 MB)"


def test_nothing_fits_the_card():
    error = refusal(2)
    assert str(error) == (
        "max_vram=2.00 GB, but the smallest plan for a model at 512x512, 10 steps needs 3.20 GB in denoising "
        f"{PARTS}. Try max_vram='3.2GB'. No smaller workload fits this cap."
    )
    assert (error.smallest_bytes, error.phase) == (3_200_000_000, "denoising")


def test_nothing_fits_but_a_smaller_call_does():
    asked = []

    def nearest(plan, cap_bytes):
        asked.append((plan.id, cap_bytes))
        return Workload(height=384, width=384, steps=10)

    assert str(refusal(2, nearest=nearest)) == (
        "max_vram=2.00 GB, but the smallest plan for a model at 512x512, 10 steps needs 3.20 GB in denoising "
        f"{PARTS}. Try max_vram='3.2GB', or 384x384, 10 steps under this cap."
    )
    assert asked == [("p3", 2 * GB)]


def test_nothing_fits_but_another_lane_does():
    assert str(refusal(4.5, quality="exact")) == (
        "max_vram=4.50 GB, but the smallest plan for a model at 512x512, 10 steps needs 5.00 GB in denoising "
        "(weights 0 B + activations 5.00 GB + workspaces 0 B + overhead 0 B + margin 0 B). "
        "Try max_vram='5.0GB', or quality='near'. No smaller workload fits this cap."
    )


def test_the_cap_to_type_is_never_too_small():
    tight = front(candidate(Plan(), process_bytes=3_200_000_001), candidate(Plan(id="p1"), process_bytes=3_300_000_000))
    with pytest.raises(DoesNotFitError, match=r"Try max_vram='3\.3GB'"):
        choose(tight, budget(1), quality="near", objective="latency", nearest=lambda *_: None)
    small = front(candidate(Plan(), process_bytes=1_000_001))
    with pytest.raises(DoesNotFitError, match=r"Try max_vram='2MB'"):
        choose(small, budget(1e-6), quality="near", objective="latency", nearest=lambda *_: None)


def no_ram(candidates, *caps, **more):
    with pytest.raises(DoesNotFitError) as caught:
        choose(front(*candidates), budget(*caps, **more), quality="near", objective="latency", nearest=lambda *_: None)
    return str(caught.value)


def test_not_enough_ram():
    assert no_ram((HALF, OFFLOADED, TILED), 4.5, 2) == (
        "max_ram=2.00 GB, but the plans for a model at 512x512, 10 steps that stay under 4.50 GB of VRAM keep at least "
        "3.00 GB of weights in RAM. Try max_ram='3.0GB' (5.0 s), or undo=False, which gives up an exact restore and saves "
        "3.00 GB of RAM."
    )


def test_not_enough_ram_but_more_of_either_would_do():
    fast = candidate(
        Plan(id="p4", offload="group:leaf+stream"), process_bytes=2 * GB, latency_s=9.0, host_ram_bytes=12 * GB
    )
    assert no_ram((RESIDENT, OFFLOADED, fast), 6, 2, ram_option="ram") == (
        "ram=2.00 GB, but the plans for a model at 512x512, 10 steps that stay under 6.00 GB of VRAM keep at least 6.00 GB "
        "of weights in RAM. Try ram='6.0GB' (20.0 s), or ram='12.0GB' (9.0 s), or max_vram='8.0GB'."
    )
    assert no_ram((OFFLOADED,), 6, 2, ram_option="ram", ram_assumed=True).startswith(
        "2.00 GB of RAM assumed, but the plans"
    )


def test_quantised_weights_are_told_as_what_comes():
    told = front(OFFLOADED).model_copy(update={"parameters": 3 * GB})
    with pytest.raises(
        DoesNotFitError, match=r"Quantised, which is to come, the weights would take 1\.68 GB in 4-bit\.$"
    ):
        choose(told, budget(6, 2), quality="near", objective="latency", nearest=lambda *_: None)


UNSAFE = candidate(Plan(id="p9", dtype="float16"), process_bytes=3 * GB, latency_s=1.0)
NAMED = front(OFFLOADED).model_copy(update={"named": (UNSAFE,), "caution": "it gave black frames"})
TOLD = "keep={'dtype': 'fp16'} would need 3.00 GB and take 1.0 s, but is not chosen: it gave black frames"


def test_a_precision_that_may_give_wrong_images_is_named_and_not_chosen():
    assert choose(NAMED, budget(12), quality="near", objective="latency", nearest=lambda *_: None) == OFFLOADED
    assert advice(NAMED, OFFLOADED, budget(12), "near") == (TOLD,)
    for caps, starts in (((4, 64), "max_vram=4.00 GB"), ((12, 1), "max_ram=1.00 GB")):
        with pytest.raises(DoesNotFitError) as caught:
            choose(NAMED, budget(*caps), quality="near", objective="latency", nearest=lambda *_: None)
        assert str(caught.value).startswith(starts)
        assert f"{TOLD}." in str(caught.value)


def test_scores_that_decide_are_told():
    use = AttentionUse(kernels=(), scores_bytes=7 * GB, unfused="no fused kernel", component="transformer")
    held = OFFLOADED.model_copy(update={"estimate": OFFLOADED.estimate.model_copy(update={"attention": use})})
    with pytest.raises(DoesNotFitError, match=r"No fused kernel: scores of the transformer take 7\.00 GB\."):
        choose(front(held), budget(4), quality="near", objective="latency", nearest=lambda *_: None)


def test_where_memory_is_shared_both_come_out_of_one_budget():
    shared = front(OFFLOADED, RESIDENT).model_copy(update={"device": CARD.model_copy(update={"shares_ram": True})})
    assert shared.best(max_vram="10GB") == RESIDENT
    assert shared.best(max_vram="7GB") is None


def test_a_fair_baseline_is_model_offload_where_it_fits_else_the_fastest_mode_that_does():
    usual = [
        candidate(
            Plan(id="model", dtype="fp16", offload="model"), process_bytes=5 * GB, latency_s=9.0, host_ram_bytes=4 * GB
        ),
        candidate(Plan(id="none", dtype="fp16"), process_bytes=7 * GB, latency_s=5.0),
        candidate(
            Plan(id="leaf", dtype="fp16", offload="sequential"), process_bytes=GB, latency_s=90.0, host_ram_bytes=GB
        ),
        candidate(Plan(id="exact", offload="model"), process_bytes=9 * GB, latency_s=20.0),
    ]
    compared = front(RESIDENT).model_copy(update={"usual": tuple(usual)})
    for caps, quality, plan in (
        ((12, 64), "near", "model"), ((12, 2), "near", "none"), ((4, 64), "near", "leaf"), ((0.5, 64), "near", "leaf"),
        ((12, 64), "exact", "exact"),
    ):  # fmt: skip
        max_vram, max_ram = (int(cap * GB) for cap in caps)
        assert compared.against(max_vram=max_vram, max_ram=max_ram, quality=quality).plan.id == plan
    assert front(RESIDENT).against() is None


WITHOUT_UNDO = "undo=False would take 5.0 s: it gives up an exact restore, and 3.00 GB of originals in RAM"


@pytest.mark.parametrize(
    ("pick", "caps", "quality", "said"),
    [
        (HALF, (12,), "near", ()),
        (RESIDENT, (12,), "exact", ("quality='near' would take 5.0 s",)),
        (OFFLOADED, (6,), "exact", ("quality='near' would take 5.0 s", "max_vram='8.0GB' would take 10.0 s")),
        (TILED, (3.5,), "near", ("max_vram='4.0GB' would take 5.0 s",)),
        (RESIDENT, (12, 2), "near", ("with 3.0 GB of RAM it would take 5.0 s", WITHOUT_UNDO)),
    ],
)
def test_advice_says_what_would_buy_more(pick, caps, quality, said):
    assert advice(FRONT, pick, budget(*caps), quality) == said


def test_tiles_are_told_where_they_would_be_much_faster():
    leaf = candidate(Plan(id="p7", offload="sequential"), process_bytes=3 * GB, latency_s=60.0, host_ram_bytes=GB)
    both = front(leaf, TILED)
    assert both.best(max_vram=4 * GB) == leaf
    assert advice(both, leaf, budget(4), "near") == ("keep={'vae_tiling': 512} would take 6.0 s",)
    assert advice(both, TILED, budget(4), "near") == ()


def test_what_is_told_is_faster_than_what_is_shown():
    """A first call that compiles makes another plan the faster one in all, and the slower one as printed."""
    compiled = candidate(Plan(id="p8", compile="blocks"), process_bytes=5 * GB, latency_s=8.0, setup_s=20.0)
    roomy = candidate(Plan(id="p9", offload="model"), process_bytes=8 * GB, latency_s=20.0)
    faster = candidate(Plan(id="p10", compile="trace"), process_bytes=9 * GB, latency_s=6.0, setup_s=15.0)
    assert advice(front(compiled, roomy), compiled, budget(6), "near") == ()
    told = ("max_vram='9.0GB' would take 6.0 s (first call 15.0 s more)",)
    assert advice(front(compiled, roomy, faster), compiled, budget(6), "near") == told


PLAIN = candidate(Plan(id="p0"), latency_s=10.0)
COMPILED = candidate(Plan(id="p1", compile="blocks"), latency_s=8.0, setup_s=20.0)


@pytest.mark.parametrize(("calls", "plan"), [(1, "p0"), (9, "p0"), (11, "p1"), (1000, "p1")])
def test_compiling_is_chosen_where_the_calls_to_come_pay_for_it(calls, plan):
    asked = Workload(height=512, width=512, steps=10, calls=calls)
    assert front(PLAIN, COMPILED, workload=asked).best().plan.id == plan
    assert front(PLAIN, COMPILED).best(calls=calls).plan.id == plan


def test_advice_says_from_how_many_calls_on_compiling_pays():
    assert advice(front(PLAIN, COMPILED), PLAIN, budget(8), "near") == (
        "compiling would pay from 10 calls on: calls=10",
    )
    barely = candidate(Plan(id="p1", compile="trace"), latency_s=9.9, setup_s=10.0)
    assert advice(front(PLAIN, barely), PLAIN, budget(8), "near") == ()


def test_the_ladder_has_what_best_answers_with_as_the_cap_falls():
    ladder = FRONT.ladder(quality="near")
    assert [step.plan.id for step in ladder] == [
        plan
        for plan in dict.fromkeys(
            getattr(getattr(FRONT.best(max_vram=cap * GB // 10), "plan", None), "id", None) for cap in range(100, 0, -1)
        )
        if plan is not None
    ]
    assert all(step.plan.lane == "exact" for step in FRONT.ladder(quality="exact"))


def test_runs_of_frames_are_taken_only_where_nothing_else_fits():
    whole = candidate(Plan(id="p0"), process_bytes=4 * GB, latency_s=20.0)
    runs = candidate(Plan(id="p1", vae_framewise=True), process_bytes=2 * GB, latency_s=10.0)
    both = front(whole, runs)
    assert (both.best(max_vram=5 * GB).plan.id, both.best(max_vram=3 * GB).plan.id) == ("p0", "p1")
    assert both.best(max_vram=3 * GB, quality="exact") is None


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: FRONT.best(quality="perfect"), "no quality 'perfect'; it is one of exact, near, int8, int4; nearest: exact"),
        (lambda: FRONT.smallest(quality="in4"), "no quality 'in4'; it is one of exact, near, int8, int4; nearest: int4"),
        (lambda: FRONT.against(quality=None), "no quality None; it is one of exact, near, int8, int4; nearest: near"),
        (lambda: FRONT.ladder(quality="x"), "no quality 'x'; it is one of exact, near, int8, int4; nearest: exact"),
        (lambda: FRONT.best(objective="speed"), "no objective 'speed'; it is one of latency, memory; nearest: latency"),
    ],
)  # fmt: skip
def test_a_front_is_asked_in_the_same_words_as_optimize(ask, words):
    with pytest.raises(PlanError) as caught:
        ask()
    assert str(caught.value) == words
