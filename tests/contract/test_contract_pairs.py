"""Every pair of lever values that may meet, and some 170 plans by chance: applied, run, and taken back to the bit.

The stand-in is a card by its facts and the CPU by its name, so that TF32 may be switched too. Blocks are compiled by dynamo and
run as it captured them; what inductor makes of them is tried once a family.
"""

from __future__ import annotations

from functools import partialmethod

import pytest
import torch

from autotune.errors import PlanError
from autotune.flow.applying import apply_plan
from autotune.flow.planning import facts_for
from autotune.guard import applying
from autotune.levers import engine
from autotune.levers.base import Subject
from autotune.records.plan import Plan
from autotune.records.rules import conflict
from tests.contract.families import CARD, FAMILIES, build, job, run, values_of
from tests.contract.pairs import allowed_pairs, covering, sampled
from tests.contract.test_contract_levers import EXACT_TOLERANCE, Snapshot

pytestmark = pytest.mark.slow

STAND_IN = CARD.model_copy(update={"torch_device": "cpu"})
BATCH = 2
SAMPLED = 28  # for each of six families
PARTS = 4  # of a family's plans, so that two processes share them


def values_for(family):
    return {**values_of(family, batch=BATCH), "tf32": (None, False, True)}


def plans_for(family):
    values = values_for(family)
    return [*covering(values), *sampled(values, SAMPLED)]


@pytest.fixture
def captured(monkeypatch):
    """`module.compile()` with dynamo and without inductor."""
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("family", FAMILIES)
def test_plans_apply_run_and_restore(family, part, captured):
    pipe = build(family, processors=True)
    image = run(family, pipe, batch=BATCH)
    workload, facts = job(family, pipe, batch=BATCH).largest, facts_for(job(family, pipe, batch=BATCH))
    before = Snapshot(pipe)
    for plan in plans_for(family)[part::PARTS]:
        torch.compiler.reset()
        applying.apply(pipe, plan, device=STAND_IN, workload=workload, denoisers=facts)
        result = run(family, pipe, batch=BATCH)
        assert result.shape == image.shape, plan.changes
        assert result.isfinite().all(), plan.changes
        if plan.lane == "exact":
            torch.testing.assert_close(result, image, rtol=0, atol=EXACT_TOLERANCE, msg=str(plan.changes))
        applying.restore(pipe)
        before.assert_same(pipe)
    torch.testing.assert_close(run(family, pipe, batch=BATCH), image, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_refused_pairs_say_the_rules_reason(family):
    values, pipe = values_for(family), build(family, processors=True)
    every, may_meet = allowed_pairs(values, lambda plan: True), allowed_pairs(values)
    refused = [Plan(**{a: x, b: y}) for a, x, b, y in every - may_meet]
    subject = Subject(pipe, STAND_IN, job(family, pipe, batch=BATCH).largest)
    assert len(refused) >= 4
    for plan in refused:
        with pytest.raises(PlanError) as caught:
            engine.check(subject, plan)
        assert str(caught.value) == conflict(plan).words(plan)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_that_inductor_compiled_compute_the_same(family):
    pipe = build(family)
    image = run(family, pipe)
    workload = job(family, pipe).largest
    apply_plan(pipe, Plan(compile="blocks"), device=STAND_IN, workload=workload, example={})
    torch.testing.assert_close(run(family, pipe), image, rtol=0, atol=EXACT_TOLERANCE)
    applying.restore(pipe)
    torch.testing.assert_close(run(family, pipe), image, rtol=0, atol=0)
    torch.compiler.reset()
