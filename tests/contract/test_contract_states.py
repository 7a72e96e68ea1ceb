"""Every state that a user's pipeline can be in: it is traced, a plan applies, the image is right, and restore is exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch

import autotune
from autotune.flow.planning import as_it_is, estimates
from autotune.records.estimate import Estimate
from autotune.records.model import Model
from autotune.records.plan import Plan
from tests.contract.families import build, job, run
from tests.contract.states import STATES, Seen, State, entered, mix, workload


class Scene(NamedTuple):
    """A pipeline in a state that has run once: a first call leaves marks of its own."""

    family: str
    state: State
    pipe: Any
    image: torch.Tensor


@pytest.fixture(params=[(s, f) for s in STATES for f in STATES[s].families], ids=lambda case: "-".join(case))
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    name, family = request.param
    with torch.compiler.set_stance("force_eager"):  # whether it is compiled stands in the state
        pipe = entered(name, family, build)
        yield Scene(family, STATES[name], pipe, run(family, pipe, batch=2))


def test_it_is_traced_and_left_alone(scene: Scene) -> None:
    before = Seen(scene.pipe)
    asked = job(scene.family, scene.pipe, batch=2)
    estimate = estimates(asked, [Plan()])[0] if scene.state.placed else as_it_is(asked).estimate
    assert estimate.notes == ()
    before.assert_same(scene.pipe)
    if scene.state.placed:
        assert (asked.model, estimate) == plain_facts(scene.family)


@cache
def plain_facts(family: str) -> tuple[Model, Estimate]:
    plain = job(family, build(family), batch=2)
    return plain.model, estimates(plain, [Plan()])[0]


def test_plans_apply_and_are_taken_back(scene: Scene) -> None:
    pipe, before = scene.pipe, Seen(scene.pipe)
    for plan in (mix(scene.family), *(Plan(offload=mode) for mode in ("sequential", "group:leaf", "group:block"))):
        if plan.offload in scene.state.refused:
            with pytest.raises(autotune.PlanError, match=r"^offload='.*' cannot be applied: \w+ (is compiled|uses weight_norm)"):
                autotune.apply(pipe, plan, workload=workload(scene.family))
        else:
            autotune.apply(pipe, plan, workload=workload(scene.family))
            image = run(scene.family, pipe, batch=2)
            bit_equal = plan.changes.keys() == {"offload"}
            torch.testing.assert_close(image, scene.image, rtol=0, atol=0 if bit_equal else scene.state.tolerance)
            autotune.restore(pipe)
        before.assert_same(pipe)
    assert torch.equal(run(scene.family, pipe, batch=2), scene.image)
