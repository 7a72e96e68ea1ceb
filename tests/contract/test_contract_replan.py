"""A pipeline that is no longer what was planned for is planned anew at its next call, under the caps that were asked."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
import torch

import autotune
from autotune.errors import DoesNotFitError, PlanError
from autotune.flow import applying
from autotune.guard.applying import optimized_of
from tests.contract.families import build, call_of, run
from tests.contract.states import add_lora

CALL = {"prompt": "a cat", **call_of("sd")}
BIGGER = {
    "taller": {"height": 64},
    "more": {"num_images_per_prompt": 3},
    "prompts": {"prompt": ["a cat", "a dog"]},
    "generator": {"width": 64, "generator": torch.Generator().manual_seed(1)},
    "callback": {"width": 64, "callback_on_step_end": lambda pipe, step, time, tensors: tensors},
}


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the logger says."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("autotune")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def optimised(**asked: Any) -> Any:
    return autotune.optimize(build("sd"), **{"workload": CALL, "profiles": False, "verbose": False} | asked)


@pytest.mark.parametrize("how", BIGGER)
def test_a_bigger_call_is_planned_for_once(how: str, told: list[str]) -> None:
    pipe, call = optimised(), CALL | BIGGER[how]
    area = optimized_of(pipe).workload.area
    for _ in range(2):
        pipe(**call, output_type="pt")
    pipe(**CALL, output_type="pt")  # a smaller one is covered
    (line,) = told
    assert line.startswith("this call (")
    assert ") is bigger than the one that was planned (32x32, 2 steps): at least " in line
    assert " by the recorded sizes (cap " in line
    assert ": planned anew in " in line
    now = optimized_of(pipe)
    assert now.workload.area > area
    assert now.story.state == "optimised"
    autotune.restore(pipe)
    assert type(pipe) is type(build("sd"))


def test_the_callers_generator_is_not_used_up() -> None:
    """The image is the one that a plain pipeline makes."""
    pipe, generator = optimised(quality="exact"), torch.Generator().manual_seed(7)
    made = pipe(**CALL | {"height": 64, "generator": generator}, output_type="pt").images
    plain = build("sd")(**CALL | {"height": 64, "generator": torch.Generator().manual_seed(7)}, output_type="pt").images
    assert torch.equal(made, plain) or torch.allclose(made, plain, atol=1e-4)


def test_an_exchanged_component_is_planned_for(told: list[str]) -> None:
    pipe = optimised()
    pipe.unet = build("sd").unet
    run("sd", pipe)
    (line,) = told
    assert line.startswith("unet is another UNet2DConditionModel now: planned anew in ")
    assert optimized_of(pipe).changes(pipe) == ()
    run("sd", pipe)
    assert len(told) == 1


def test_what_is_altered_is_told_and_the_plan_stays(told: list[str]) -> None:
    """A LoRA that comes and goes with every image is no reason to plan every image."""
    pipe = optimised()
    before = optimized_of(pipe)
    add_lora(pipe)
    run("sd", pipe)
    assert optimized_of(pipe) is before
    assert "the plan goes on for the rest" in told[0]


def test_what_took_long_is_not_planned_while_a_call_waits(told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "_QUICK_S", 0.0)
    pipe = optimised()
    before = optimized_of(pipe)
    pipe(**CALL | {"height": 64}, output_type="pt")
    assert optimized_of(pipe) is before
    assert told[0].endswith("; call autotune.optimize(pipe, workload=...) to plan for this size")


def test_where_nothing_fits_the_call_is_refused_and_the_plan_stays() -> None:
    pipe = optimised()
    before = optimized_of(pipe)
    tight = before.story.chosen.estimate.needed_bytes + 2**20
    pipe = autotune.optimize(pipe, workload=CALL, profiles=False, verbose=False, max_vram=tight)
    before = optimized_of(pipe)
    with pytest.raises(DoesNotFitError):
        pipe(**CALL | {"height": 1024, "width": 1024}, output_type="pt")
    assert optimized_of(pipe) is before
    assert pipe(**CALL, output_type="pt").images.isfinite().all()


def test_the_caps_and_levers_that_were_asked_are_kept(told: list[str]) -> None:
    pipe = optimised(keep={"vae_slicing": True}, forbid="dtype")
    pipe(**CALL | {"height": 64}, output_type="pt")
    assert ": planned anew in " in told[0]
    assert optimized_of(pipe).runs.vae_slicing is True
    assert optimized_of(pipe).plan.dtype is None


def test_where_planning_fails_the_plan_goes_on(told: list[str]) -> None:
    pipe = optimised()
    before = optimized_of(pipe)

    def failing(*_: Any) -> Any:
        raise PlanError("no way")

    before.replan = failing
    pipe(**CALL | {"height": 64}, output_type="pt")
    assert told[0].endswith(": it could not be planned for: no way")
    assert optimized_of(pipe) is before


def test_a_plan_that_was_written_by_hand_is_not_replaced(told: list[str]) -> None:
    pipe = autotune.optimize(build("sd"), plan=autotune.Plan(vae_slicing=True), workload=CALL, verbose=False)
    pipe(**CALL | {"height": 64}, output_type="pt")
    assert optimized_of(pipe).plan == autotune.Plan(vae_slicing=True)
    assert len(told) == 1
    with pytest.raises(PlanError, match=r"^apply knows no caps to plan under, so on_change='replan' is for optimize; "):
        autotune.apply(build("sd"), autotune.Plan(), on_change="replan")


def test_nothing_of_it_keeps_a_pipeline_alive() -> None:
    pipe = optimised()
    pipe(**CALL | {"height": 64}, output_type="pt")
    gone = ref(pipe.unet)
    del pipe
    gc.collect()
    assert gone() is None
