"""The search: enumerated or proposed, the front is the same, and Optuna keeps quiet."""

from __future__ import annotations

import logging
import warnings

import optuna
import pytest

from autotune.records.plan import Plan
from autotune.records.precision import Precision
from autotune.search.front import objectives
from autotune.search.space import Space
from autotune.search.study import search, to_study
from tests.unit.handmade import candidate, estimate

SPACE = Space(
    values={
        "dtype": (None, Precision("float16")),
        "vae_slicing": (False, True),
        "vae_tiling": (False, 512, 256),
        "offload": ("none", "model", "sequential"),
    }
)


def priced(plans):
    """Every lever saves memory and costs something else, each by its own amount."""
    answers = []
    for plan in plans:
        half = plan.dtype is not None
        vram = 8 * 10**9 // (2 if half else 1)
        vram -= {"none": 0, "model": 10**9, "sequential": 2 * 10**9}[plan.offload]
        vram -= 10**8 * (plan.vae_slicing + 3 * (plan.vae_tiling == 512) + 5 * (plan.vae_tiling == 256))
        seconds = (10 if half else 30) * {"none": 1.0, "model": 1.3, "sequential": 5.0}[plan.offload]
        seconds *= 1 + 0.05 * plan.vae_slicing + 0.1 * (plan.vae_tiling == 512) + 0.2 * (plan.vae_tiling == 256)
        ram = (2 * 10**9 if half else 0) + (3 * 10**9 if plan.offload != "none" else 0)
        answers.append(estimate(process_bytes=vram, latency_s=seconds, host_ram_bytes=ram))
    return answers


def levers(candidates):
    return {tuple(c.plan.values.items()) for c in candidates}


def test_enumeration_estimates_every_plan_once_in_batches():
    asked, told = [], []
    big = Space(
        values={
            **SPACE.values,
            "tf32": (False, True),
            "attention": (None, "sdpa"),
            "vae_tiling": (False, *range(8, 88, 8)),
        }
    )

    def counting(plans):
        asked.append(len(plans))
        return priced(plans)

    found = search(big, counting, progress=lambda done, total: told.append((done, total)))
    assert sum(asked) == big.size == len(found.evaluated) == 528
    assert asked == [256, 256, 16]
    assert told == [(256, 528), (512, 528), (528, 528)]


def test_proposals_reach_the_same_front():
    enumerated, proposed = search(SPACE, priced), search(SPACE, priced, enumerable=0, proposals=600)
    assert len(enumerated.evaluated) == SPACE.size == 36
    assert len(proposed.evaluated) <= 36
    assert levers(proposed.front) == levers(enumerated.front)


def test_a_plan_proposed_again_is_not_estimated_again():
    asked = []

    def counting(plans):
        asked.extend(tuple(plan.values.items()) for plan in plans)
        return priced(plans)

    search(SPACE, counting, enumerable=0, proposals=300)
    assert len(asked) == len(set(asked))


def test_proposals_are_the_same_each_time():
    first, second = (search(SPACE, priced, enumerable=0, proposals=80) for _ in range(2))
    assert first == second


def test_the_front_carries_reasons():
    for one in search(SPACE, priced).front:
        assert set(one.plan.reasons) == set(SPACE.values)


@pytest.mark.parametrize(
    ("vram", "ram"), [(None, None), (4 * 10**9, None), (None, 10**9), (5 * 10**9, 10**9), (10**6, None)]
)
def test_a_studys_best_trials_are_the_feasible_front(vram, ram):
    evaluated = search(SPACE, priced).evaluated
    study = to_study(evaluated, max_vram_bytes=vram, max_ram_bytes=ram)
    feasible = [c for c in evaluated if c.fits(vram, ram)]
    unbeaten = {c.plan.id for c in feasible if not any(dominates(other, c) for other in feasible)}
    assert {trial.user_attrs["plan"] for trial in study.best_trials} == unbeaten
    assert len(study.trials) == 36


def dominates(one, other):
    a, b = objectives(one), objectives(other)
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def test_optunas_own_tools_read_the_study():
    study = to_study(search(SPACE, priced).evaluated, max_vram_bytes=4 * 10**9)
    importances = optuna.importance.get_param_importances(study, target=lambda trial: trial.values[0])
    assert importances["dtype"] > importances["vae_slicing"] >= 0


def test_optuna_keeps_quiet(caplog, capfd):
    before = optuna.logging.get_verbosity()
    caplog.set_level(logging.DEBUG)
    logging.getLogger("optuna").addHandler(caplog.handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            search(SPACE, priced, enumerable=0, proposals=30)
            to_study([candidate(Plan()), candidate(Plan(vae_tiling=512))], max_vram_bytes=1)
    finally:
        logging.getLogger("optuna").removeHandler(caplog.handler)
    assert optuna.logging.get_verbosity() == before
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
