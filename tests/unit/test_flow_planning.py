"""From a question to a front: profiles answer without work, lists are planned for the worst, the nearest fit is real."""

from __future__ import annotations

from dataclasses import replace

import pytest

import autotune
from autotune.flow import planning
from autotune.flow.ask import front_for
from autotune.flow.job import job_for
from autotune.flow.planning import as_it_is, estimates, front_of, space_of
from autotune.flow.question import Question
from autotune.flow.recall import open_store, recalled
from autotune.flow.shrink import nearest_fit
from autotune.records.plan import LEVERS, Plan
from autotune.records.profile import Profile
from autotune.records.workload import Workload
from benchmarks.tiny import CALLS, ltx, sd
from tests.unit.handmade import CARD, CPU, candidate

SMALL, LARGE = ({"height": edge, "width": edge, "num_inference_steps": 2} for edge in (32, 64))


def job(pipe, workload, device=CARD, **options):
    usual = {"example": None, "calls": 1, "undo": True}
    return job_for(pipe, device=device, workload=workload, **{**usual, **options})


def fails(*_, **__):
    raise AssertionError("nothing is to be traced or searched")


def test_a_profile_answers_without_tracing_or_searching(tmp_path, monkeypatch):
    pipe = sd()
    question = Question(pipe, workload=SMALL, profiles=tmp_path, device="cpu")
    first = front_for(question)
    assert list(tmp_path.rglob("*.json"))
    monkeypatch.setattr(planning, "front_of", fails)
    monkeypatch.setattr("autotune.flow.fronts.search", fails)
    monkeypatch.setattr("autotune.trace.session.Session.__init__", fails)
    again = front_for(question)
    assert again.candidates == first.candidates
    optimised = autotune.optimize(pipe, workload=SMALL, profiles=tmp_path, device="cpu")
    assert autotune.explain(optimised).chosen.plan.values in [c.plan.values for c in first.candidates]
    with pytest.raises(AssertionError):
        front_for(Question(pipe, workload=LARGE, profiles=tmp_path, device="cpu"))


def test_a_search_is_asked_for_once(tmp_path):
    asked = []
    one, store = job(sd(), SMALL), open_store(tmp_path)

    found = front_of(one, keep={"dtype": "as_is", "vae_tiling": False, "compile": "none", "channels_last": False})

    def searching():
        asked.append(1)
        return found

    assert recalled(store, one, searching).candidates == recalled(store, one, searching).candidates
    assert asked == [1]
    other = job(sd(), SMALL, undo=False)
    recalled(store, other, searching)
    assert asked == [1, 1]


def test_a_profile_of_a_machine_with_other_packages_gives_the_next_plan(tmp_path, monkeypatch):
    """The fastest plan compiles, for which there is no compiler here: the next is applied, and nothing searched."""
    remember(tmp_path, compile="blocks")
    assert front_for(Question(sd(), workload=SMALL, profiles=tmp_path, device="cpu")).best().plan.id == "fast"
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(planning, "front_of", fails)
    pipe = autotune.optimize(sd(), workload=SMALL, profiles=tmp_path, device="cpu")
    assert autotune.explain(pipe).chosen.plan.id == "next"


def test_where_the_next_plan_may_be_hidden_the_search_is_made_anew(tmp_path):
    """A plan with xformers may have beaten the same one without, which is then in no front."""
    remember(tmp_path, attention="xformers")
    pipe = autotune.optimize(sd(), workload=SMALL, profiles=tmp_path, device="cpu")
    assert autotune.explain(pipe).chosen.plan.attention is None
    (path,) = tmp_path.rglob("*.json")
    assert {plan.attention for plan in Profile.model_validate_json(path.read_bytes()).front.plans()} == {None}


def remember(folder, **changes):
    """A search as another machine would have made it: its fastest plan has these values."""
    front_for(Question(sd(), workload=SMALL, profiles=folder, device="cpu"))
    (path,) = folder.rglob("*.json")
    profile = Profile.model_validate_json(path.read_bytes())
    two = (
        candidate(Plan(id="fast", **changes), latency_s=1.0),
        candidate(Plan(id="next", vae_tiling=16), latency_s=2.0),
    )
    front = profile.front.model_copy(update={"candidates": two})
    path.write_text(profile.model_copy(update={"front": front}).model_dump_json())


@pytest.mark.parametrize(
    "options", [{"keep": {"vae_tiling": False}}, {"forbid": ("dtype",)}, {"workload": [SMALL, LARGE]}]
)
def test_an_answer_to_a_special_question_is_no_profile(tmp_path, options):
    front_for(Question(sd(), **{"workload": SMALL, "profiles": tmp_path, "device": "cpu", **options}))
    assert not list(tmp_path.rglob("*.json"))


def test_profiles_can_be_refused():
    assert open_store(False) is None


def test_several_workloads_are_planned_for_the_worst():
    pipe = sd()
    both, small, large = (job(pipe, workload) for workload in ([SMALL, LARGE], SMALL, LARGE))
    space = space_of(both).restricted({"dtype": None})
    plans = list(space.plans())[::29]
    answers = [estimates(one, plans) for one in (both, small, large)]
    assert both.largest == large.largest
    for worst, little, much in zip(*answers, strict=True):
        assert worst in (little, much)
        assert worst.needed_bytes == max(little.needed_bytes, much.needed_bytes)


def test_the_space_holds_every_lever_with_its_reason():
    space = space_of(job(sd(), LARGE))
    assert set(space.values) == set(space.reasons) == set(LEVERS)
    assert space.values["offload"][:3] == (None, "model", "sequential")
    assert all(value.startswith("group:") for value in space.values["offload"][3:])
    assert space.values["text_encoders"] == (None, "leave", "cpu")
    assert space.values["compile"] == (None, "trace", "blocks")
    assert space.values["attention"] == (None,)
    assert space.values["vae_tiling"] == (None, 32)
    assert space.values["dtype"] == (None, "float16")


def test_a_kept_value_that_cannot_be_applied_is_refused_before_anything_is_traced(monkeypatch):
    monkeypatch.setattr("autotune.trace.session.Session.__init__", fails)
    with pytest.raises(autotune.PlanError, match="vae_tiling=12 cannot be applied"):
        front_of(job(sd(), LARGE), keep={"vae_tiling": 12})


def test_the_baseline_is_what_people_would_do():
    kept = {"channels_last": False, "vae_tiling": False}
    found = front_of(job(sd(), SMALL), keep=kept)
    assert found.against().plan.changes == {**kept, "dtype": "float16", "offload": "model"}
    assert found.against(quality="exact").plan.changes == {**kept, "offload": "model"}
    assert front_of(job(sd(), SMALL, CPU), keep=kept).against(quality="exact").plan.changes == {
        **kept,
        "offload": "none",
    }


def test_the_pipeline_as_it_is():
    pipe = sd()
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 32, 16
    found = job(pipe, LARGE)
    tiled = as_it_is(found)
    planned = estimates(job(sd(), LARGE), [Plan(vae_tiling=32)])[0]
    assert (tiled.plan.changes, found.found.vae_tiling) == ({}, 32)
    assert tiled.estimate == planned


def test_progress_is_told():
    told = []
    question = Question(sd(), workload=SMALL, profiles=False, device="cpu", progress=lambda *now: told.append(now))
    front_for(question)
    assert [stage for stage, *_ in told] == sorted((stage for stage, *_ in told), reverse=True)
    for stage in ("tracing", "searching"):
        assert [done == total for name, done, total in told if name == stage][-1]


def plan_bytes(pipe, workload, plan):
    return estimates(job(pipe, workload), [plan])[0].needed_bytes


@pytest.mark.slow
def test_the_nearest_fit_really_fits():
    pipe, plan = sd(), Plan(dtype="float16")
    asked = Workload(height=128, width=128, steps=2, batch=2)
    need = {edge: plan_bytes(pipe, Workload(height=edge, width=edge, steps=2), plan) for edge in (64, 128)}
    for edge, cap in need.items():
        assert nearest_fit(job(pipe, asked), plan, cap).label == f"{edge}x{edge}, 2 steps"
    assert nearest_fit(job(pipe, asked), plan, need[64] - 1) is None


def test_a_video_loses_frames_first():
    call = {**CALLS["ltx"], "num_frames": 17, "height": 64, "width": 64}
    fitting = nearest_fit(job(ltx(), call), Plan(), plan_bytes(ltx(), {**call, "num_frames": 9}, Plan()))
    assert (fitting.frames, fitting.height) == (9, 64)


def test_a_call_with_inputs_has_no_nearest():
    asked = Workload(height=256, width=256, steps=2, inputs={"image": "256x256 RGB"})
    one = job(sd(), Workload(height=256, width=256, steps=2))
    assert nearest_fit(replace(one, workloads=(asked,)), Plan(), 10**12) is None


def test_the_environment_sets_the_allocator_of_a_card_that_is_here(monkeypatch):
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    here, elsewhere = (
        job(sd(), SMALL, CARD.model_copy(update={"free_bytes": free_bytes})) for free_bytes in (10**10, None)
    )
    assert here.allocator is not None
    assert here.allocator.expandable_segments
    assert elsewhere.allocator is None
