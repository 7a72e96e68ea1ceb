"""What is refused before anything is read: the tables that decide it agree with the libraries."""

from __future__ import annotations

import re
from pathlib import Path

import diffusers
import pytest

from autotune.errors import AutotuneError, PlanError, WorkloadError
from autotune.flow.asked import asked
from autotune.flow.checks import EDGES_PX, check_values
from autotune.flow.question import Question
from autotune.records.plan import LEVERS, Plan
from autotune.records.workload import Workload


@pytest.mark.parametrize("name", EDGES_PX)
def test_edges_are_those_that_the_pipeline_refuses(name):
    files = (Path(diffusers.__file__).parent / "pipelines").rglob("pipeline_*.py")
    source = next(text for file in files if f"class {name}(" in (text := file.read_text(encoding="utf-8")))
    edge_px = EDGES_PX[name]
    refused = rf"if height % {edge_px} != 0 or width % {edge_px} != 0:\n\s+raise ValueError"
    assert re.search(refused, source), f"{name} does not refuse edges that are no multiple of {edge_px}"


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"width": 513}, "width=513 is not; nearest: 512"),
        (Workload(height=1017), "height=1017 is not; nearest: 1016"),
        (Workload(height=3), "height=3 is not; nearest: 8"),
        ({"height": "tall"}, "height='tall' is not a positive whole number; write for example height=512"),
        ({"num_inference_steps": 0}, "num_inference_steps=0 is not a positive whole number"),
        ({"width": True}, "width=True is not a positive whole number"),
        ({"width": float("nan")}, "width=nan is not a positive whole number"),
        ({"num_inference_steps": 10**7}, "num_inference_steps=10000000 is too large; nearest: 10000"),
        ([Workload(), {"width": 10**9}], "width=1000000000 is too large; nearest: 65535"),
    ],
)
def test_numbers_of_the_call(workload, words):
    with pytest.raises(WorkloadError) as caught:
        Question("sd15", gpu="T4", workload=workload)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "field"),
    [("height", "height"), ("width", "width"), ("num_frames", "frames"), ("num_inference_steps", "steps")],
)
@pytest.mark.parametrize("number", [0, -1, 10**9])
def test_an_argument_is_bounded_as_the_field_of_a_workload(argument, field, number):
    said = []
    for build in (
        lambda: Question("flux-dev", gpu="T4", workload={argument: number}),
        lambda: Workload(**{field: number}),
    ):
        with pytest.raises(WorkloadError) as caught:
            build()
        said.append((str(caught.value).partition(";")[0].partition("=")[2], caught.value.nearest))
    assert said[0] == said[1]


def test_a_pipeline_that_rounds_its_edges_is_not_refused():
    assert Question("flux-dev", gpu="RTX 4070", workload={"width": 1020}).workload == {"width": 1020}


@pytest.mark.parametrize("model", ["", " ", "sd16", "a/b/c", "\x00", "x" * 5000, "https://example.com/model", "-"])
def test_what_names_no_model(model):
    with pytest.raises(AutotuneError):
        Question(model, gpu="T4")


@pytest.mark.parametrize("lever", LEVERS)
@pytest.mark.parametrize("value", ["nonsense", -1, 3.5, float("nan"), [], {"a": 1}, "\u0664"], ids=repr)
def test_a_value_that_no_lever_has_is_one_sentence(lever, value):
    if lever in {"dtype"} and isinstance(value, dict):
        value = {"unet": "nonsense"}
    with pytest.raises(PlanError) as caught:
        check_values({lever: value})
    assert lever in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pattern" not in str(caught.value)


def test_what_was_asked_can_be_repeated():
    question = Question(
        "sd15",
        gpu="T4",
        max_vram="4GB",
        quality="exact",
        keep={"vae_tiling": False},
        workload=Workload(width=768, batch=2),
    )
    assert asked(question) == {
        "max_vram": "4GB",
        "workload": {"num_images_per_prompt": 2, "width": 768},
        "quality": "exact",
        "keep": {"vae_tiling": False},
    }
    assert asked(Question("sd15", gpu="T4", workload=Workload())) == {}


def test_known_values_pass():
    check_values(Plan().values)
