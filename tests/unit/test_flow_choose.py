"""Choosing from a front: the best under the caps, and the words where there is none."""

from __future__ import annotations

import pytest

from autotune.errors import DoesNotFitError
from autotune.flow.budget import Budget
from autotune.flow.choose import advice, choose
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from tests.unit.handmade import candidate, front

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


def budget(vram, ram=None):
    return Budget(vram_bytes=int(vram * GB), ram_bytes=None if ram is None else int(ram * GB))


def chosen(vram, ram=None, **options):
    usual = {"quality": "near", "objective": "latency", "nearest": lambda plan, cap: None}
    return choose(FRONT, budget(vram, ram), **{**usual, **options})


@pytest.mark.parametrize(
    ("vram", "ram", "options", "plan"),
    [
        (12, None, {}, "p1"),
        (12, 2, {}, "p0"),
        (12, None, {"quality": "exact"}, "p0"),
        (6, None, {"quality": "exact"}, "p2"),
        (3.5, None, {}, "p3"),
        (12, None, {"objective": "memory"}, "p1"),  # untiled before tiled
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
        "max_vram=2.00 GB, but the smallest plan for a model at 512x512, batch 1, 10 steps needs 3.20 GB in denoising "
        f"{PARTS}. Try max_vram='3.2GB'; no smaller workload fits this cap."
    )
    assert (error.smallest_bytes, error.phase) == (3_200_000_000, "denoising")


def test_nothing_fits_but_a_smaller_call_does():
    asked = []

    def nearest(plan, cap_bytes):
        asked.append((plan.id, cap_bytes))
        return Workload(height=384, width=384, steps=10)

    assert str(refusal(2, nearest=nearest)) == (
        "max_vram=2.00 GB, but the smallest plan for a model at 512x512, batch 1, 10 steps needs 3.20 GB in denoising "
        f"{PARTS}. Try max_vram='3.2GB', or 384x384, batch 1, 10 steps under this cap."
    )
    assert asked == [("p3", 2 * GB)]


def test_nothing_fits_but_another_lane_does():
    assert str(refusal(4.5, quality="exact")) == (
        "max_vram=4.50 GB, but the smallest plan for a model at 512x512, batch 1, 10 steps needs 5.00 GB in denoising "
        "(weights 0 B + activations 5.00 GB + workspaces 0 B + overhead 0 B + margin 0 B). "
        "Try max_vram='5.0GB', or quality='near'; no smaller workload fits this cap."
    )


def test_the_cap_to_type_is_never_too_small():
    tight = front(candidate(Plan(), process_bytes=3_200_000_001), candidate(Plan(id="p1"), process_bytes=3_300_000_000))
    with pytest.raises(DoesNotFitError, match=r"Try max_vram='3\.3GB'"):
        choose(tight, budget(1), quality="near", objective="latency", nearest=lambda *_: None)
    small = front(candidate(Plan(), process_bytes=1_000_001))
    with pytest.raises(DoesNotFitError, match=r"Try max_vram='2MB'"):
        choose(
            small, Budget(vram_bytes=1, ram_bytes=None), quality="near", objective="latency", nearest=lambda *_: None
        )


def no_ram(candidates, *caps):
    with pytest.raises(DoesNotFitError) as caught:
        choose(front(*candidates), budget(*caps), quality="near", objective="latency", nearest=lambda *_: None)
    return str(caught.value)


def test_not_enough_ram():
    assert no_ram((HALF, OFFLOADED, TILED), 4.5, 2) == (
        "max_ram=2.00 GB, but the plans for a model that stay under 4.50 GB of VRAM keep at least 3.00 GB of weights in "
        "RAM. Try max_ram='3.0GB' or a higher max_vram, or undo=False, which gives up an exact restore and saves 3.00 GB."
    )


def test_not_enough_ram_and_undo_is_not_the_reason():
    assert no_ram((OFFLOADED,), 6, 2) == (
        "max_ram=2.00 GB, but the plans for a model that stay under 6.00 GB of VRAM keep at least 6.00 GB of weights in "
        "RAM. Try max_ram='6.0GB' or a higher max_vram."
    )


@pytest.mark.parametrize(
    ("pick", "caps", "quality", "said"),
    [
        (HALF, (12,), "near", ()),
        (RESIDENT, (12,), "exact", ("quality='near' would take 5.0 s",)),
        (OFFLOADED, (6,), "exact", ("quality='near' would take 5.0 s", "max_vram='8.0GB' would take 10.0 s (p0)")),
        (TILED, (3.5,), "near", ("max_vram='4.0GB' would take 5.0 s (p1)",)),
    ],
)
def test_advice_says_what_would_buy_more(pick, caps, quality, said):
    assert advice(FRONT, pick, budget(*caps), quality) == said
