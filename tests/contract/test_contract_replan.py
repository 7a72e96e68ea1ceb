"""A pipeline that is no longer what was planned for is planned anew at its next call, under the caps that were asked."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch

import autotune
from autotune.errors import DoesNotFitError, PlanError
from autotune.flow import applying
from autotune.guard.applying import optimized_of
from autotune.levers import engine
from tests.contract.families import build, call_of, run
from tests.contract.states import add_lora

CALL = {"prompt": "a cat", **call_of("sd")}
BIGGER = {
    "taller": {"height": 64},
    "more": {"num_images_per_prompt": 3},
    "prompts": {"prompt": ["a cat", "a dog"]},
}


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


def test_what_is_the_callers_is_not_used_while_it_is_planned(told: list[str]) -> None:
    """A callback is called for the steps of the call alone, and a generator gives the numbers that a plain pipeline gets."""
    steps: list[int] = []

    def noted(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return tensors

    def call(pipe: Any) -> Any:
        generator = torch.Generator().manual_seed(7)
        asked = CALL | {"height": 64, "generator": generator, "callback_on_step_end": noted}
        return pipe(**asked, output_type="pt").images

    made = call(optimised(quality="exact"))
    assert ": planned anew in " in told[0]
    assert steps == [0, 1]
    assert torch.allclose(made, call(build("sd")), atol=1e-4)


def test_nothing_that_a_call_was_given_is_kept_alive(told: list[str]) -> None:
    given = torch.randn(1, 4, 32, 32)
    gone = ref(given)
    pipe = optimised()
    pipe(**CALL | {"height": 64, "width": 64, "latents": given}, output_type="pt")
    assert ": planned anew in " in told[0]
    del given
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("family", ["ltx", "flux"])
def test_the_planned_call_is_not_bigger_than_itself(family: str, told: list[str]) -> None:
    """Pipelines round sizes down."""
    call = {"prompt": "a cat", **call_of(family)} | ({"num_frames": 20} if family == "ltx" else {"height": 39})
    pipe = autotune.optimize(build(family), workload=call, profiles=False, verbose=False)
    pipe(**call, output_type="pt")
    assert told == []


def test_calls_that_take_turns_are_planned_for_once(told: list[str]) -> None:
    pipe = optimised(workload=CALL | {"height": 64, "width": 64, "guidance_scale": 1.0})
    for _ in range(2):
        pipe(**CALL | {"guidance_scale": 5.0}, output_type="pt")
        pipe(**CALL | {"height": 64, "width": 64, "guidance_scale": 1.0}, output_type="pt")
    assert told == []
    for _ in range(2):
        pipe(**CALL | {"width": 256, "height": 32}, output_type="pt")  # lower, and wider
        pipe(**CALL | {"height": 64, "width": 64, "guidance_scale": 5.0}, output_type="pt")
    assert sum(": planned anew in " in line for line in told) == len(told) <= 2


def test_a_call_within_a_call_changes_no_plan(told: list[str]) -> None:
    pipe = optimised()
    before, done = optimized_of(pipe), []

    def within(_: Any, __: Any, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if not done:
            done.append(True)
            scheduler, pipe.scheduler = pipe.scheduler, build("sd").scheduler
            pipe(**CALL | {"height": 64}, output_type="pt")
            pipe.scheduler = scheduler
        return tensors

    assert pipe(**CALL, callback_on_step_end=within, output_type="pt").images.isfinite().all()
    assert optimized_of(pipe) is before
    assert told[0].endswith("; call autotune.optimize(pipe, workload=...) to plan for this size")
    pipe(**CALL | {"height": 64}, output_type="pt")
    assert ": planned anew in " in told[-1]


def test_an_example_of_the_first_question_is_not_one_of_the_next(told: list[str]) -> None:
    pipe = optimised(example={"latents": torch.randn(1, 4, 16, 16)})
    for _ in range(2):
        pipe(**CALL | {"height": 64, "width": 64}, output_type="pt")
    (line,) = told
    assert ": planned anew in " in line
    assert "16x16" not in optimized_of(pipe).workload.label


@pytest.mark.parametrize("times", [1, 2])
def test_where_applying_fails_the_call_runs(times: int, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the plan of before, or under none where that cannot be put back."""
    pipe, left = optimised(forbid="batch_split"), [times]
    pull = engine.pull

    def failing(*args: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise PlanError("no way")
        pull(*args)

    monkeypatch.setattr(engine, "pull", failing)
    pipe.unet = build("sd").unet
    for _ in range(2):
        assert run("sd", pipe).isfinite().all()
    assert (optimized_of(pipe) is None) == (times == 2)


@pytest.mark.parametrize("error", [PlanError("no way"), RuntimeError("a bug")])
def test_what_has_failed_is_not_tried_again(error: Exception, told: list[str]) -> None:
    pipe, tried = optimised(), []
    before = optimized_of(pipe)

    def failing(*_: Any) -> Any:
        tried.append(True)
        raise error

    before.replan = failing
    for _ in range(3):
        pipe(**CALL | {"height": 64}, output_type="pt")
    assert len(tried) == 1
    (line,) = told
    assert line.endswith(f": it could not be planned for: {error}")
    assert optimized_of(pipe) is before


@pytest.mark.parametrize(("planned_s", "replans"), [(2.0, True), (300.0, False)])
def test_a_profile_says_how_long_planning_takes(
    planned_s: float, replans: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = autotune.optimize(build("sd"), workload=CALL, profiles=tmp_path, verbose=False)
    assert optimized_of(first).replan is not None
    (path,) = tmp_path.rglob("*.json")
    told = json.loads(path.read_text(encoding="utf-8"))
    assert told["planned_s"] > 0
    path.write_text(json.dumps(told | {"planned_s": planned_s}, indent=2) + "\n", encoding="utf-8")
    monkeypatch.setattr("autotune.trace.session.Session.__init__", None)
    again = autotune.optimize(build("sd"), workload=CALL, profiles=tmp_path, verbose=False)
    assert (optimized_of(again).replan is not None) == replans


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
    tried: list[Any] = []
    replan = before.replan
    before.replan = lambda *args: (tried.append(True), replan(*args))[1]
    for _ in range(2):
        with pytest.raises(DoesNotFitError):
            pipe(**CALL | {"height": 1024, "width": 1024}, output_type="pt")
    assert len(tried) == 1
    assert optimized_of(pipe) is before
    assert pipe(**CALL, output_type="pt").images.isfinite().all()


def test_the_caps_and_levers_that_were_asked_are_kept(told: list[str]) -> None:
    pipe = optimised(keep={"vae_slicing": True}, forbid="dtype")
    pipe(**CALL | {"height": 64}, output_type="pt")
    assert ": planned anew in " in told[0]
    assert optimized_of(pipe).runs.vae_slicing is True
    assert optimized_of(pipe).plan.dtype is None


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


def test_a_split_batch_is_not_put_back_over_a_denoiser_that_nobody_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning anew fails after the earlier plan was taken off: it was proved for another UNet."""
    pipe = optimised(workload=CALL | {"num_images_per_prompt": 2}, keep={"batch_split": 2})
    assert optimized_of(pipe).plan.batch_split == 2
    pipe.unet = build("sd").unet

    pull, left = engine.pull, [1]

    def failing(*args: Any) -> None:
        if left:
            left.pop()
            raise PlanError("no way")
        pull(*args)

    monkeypatch.setattr(engine, "pull", failing)
    assert run("sd", pipe).isfinite().all()
    assert optimized_of(pipe) is None


def test_where_planning_fails_sizes_that_were_recorded_still_refuse() -> None:
    pipe = optimised()
    optimized = optimized_of(pipe)
    tight = optimized.story.model_copy(update={"cap_bytes": optimized.story.chosen.estimate.process_bytes + 1000})
    optimized.tell(pipe, tight, optimized.front)

    def failing(*_: Any) -> Any:
        raise RuntimeError("a bug")

    optimized.replan = failing
    for _ in range(2):
        with pytest.raises(DoesNotFitError, match="by the recorded sizes, more than the cap of"):
            pipe(**CALL | {"height": 512, "width": 512}, output_type="pt")
