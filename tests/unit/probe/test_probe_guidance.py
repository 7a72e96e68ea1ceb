"""Guidance is what the pipeline's own code makes of the call's arguments."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotune.errors import WorkloadError
from autotune.probe.guidance import guided_arguments, is_guidable, is_guided
from autotune.probe.workload import call_arguments, resolve_workload
from autotune.records.workload import Workload
from benchmarks import tiny
from benchmarks.coverage_classes import CLASSES, shrunk


def of_class(name: str) -> Any:
    return shrunk(next(known for known in CLASSES if known.pipeline_class == name))


class Local:
    """Decides in its call, as older pipelines do."""

    def __call__(self, guidance_scale: float = 7.5, image_guidance_scale: float = 1.5) -> bool:
        do_classifier_free_guidance = guidance_scale > 1.0 and image_guidance_scale >= 1.0
        return do_classifier_free_guidance  # noqa: RET504 - the name is what is read


class Distilled:
    """Its scale is an input of the model; a true one and a negative prompt double the calls."""

    def __call__(
        self, guidance_scale: float = 3.5, true_cfg_scale: float = 1.0, negative_prompt: str | None = None
    ) -> bool:
        has_neg_prompt = negative_prompt is not None
        do_true_cfg = true_cfg_scale > 1 and has_neg_prompt
        return do_true_cfg  # noqa: RET504


class Zero:
    """Compares with 0, as Z-Image does."""

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale > 0  # type: ignore[attr-defined,no-any-return]

    def __call__(self, guidance_scale: float = 5.0) -> None: ...


@pytest.mark.parametrize(
    ("pipe", "call"),
    [
        (Local(), {}), (Local(), {"guidance_scale": 1.0}), (Local(), {"image_guidance_scale": 0.5}),
        (Distilled(), {}), (Distilled(), {"true_cfg_scale": 4.0}), (Distilled(), {"negative_prompt": ""}),
        (Distilled(), {"true_cfg_scale": 4.0, "negative_prompt": ""}),
    ],
)  # fmt: skip
def test_it_is_what_the_call_itself_decides(pipe, call):
    assert is_guided(pipe, call) is pipe(**call)
    if "image_guidance_scale" in call:
        return
    for wanted in (True, False):
        assert pipe(**{**call, **guided_arguments(pipe, call, guided=wanted)}) is wanted


def test_a_scale_of_one_guides_where_the_code_compares_with_zero():
    assert is_guided(Zero(), {"guidance_scale": 1.0})
    assert guided_arguments(Zero(), {}, guided=False) == {"guidance_scale": 0.0}


def test_without_classifier_free_guidance_there_is_nothing_to_switch():
    class Plain:
        def __call__(self, guidance_scale: float = 3.5) -> None: ...

    assert not is_guidable(Plain())
    assert guided_arguments(Plain(), {}, guided=False) == {}
    with pytest.raises(WorkloadError, match="Plain has no classifier-free guidance"):
        guided_arguments(Plain(), {}, guided=True)


def test_a_guider_decides_where_there_is_one():
    class Guided:
        guider = SimpleNamespace(_enabled=True, num_conditions=2)

        def __call__(self, prompt: str) -> None: ...

    assert is_guided(Guided(), {})
    assert guided_arguments(Guided(), {}, guided=True) == {}
    with pytest.raises(WorkloadError, match=r"pipe.guider = pipe.guider.new\(guidance_scale=1.0\)"):
        guided_arguments(Guided(), {}, guided=False)


@pytest.mark.parametrize(
    ("name", "usual", "off", "on"),
    [
        ("StableDiffusionPipeline", True, {"guidance_scale": 1.0}, {}),
        ("ZImagePipeline", True, {"guidance_scale": 0.0}, {}),
        ("WanPipeline", True, {"guidance_scale": 1.0, "guidance_scale_2": 1.0}, {}),
        ("StableVideoDiffusionPipeline", True, {"min_guidance_scale": 1.0, "max_guidance_scale": 1.0}, {}),
        ("QwenImagePipeline", None, {}, {"true_cfg_scale": 5.0, "negative_prompt": "text"}),
        ("FluxPipeline", None, {}, {"true_cfg_scale": 5.0, "negative_prompt": "text"}),
        ("LatentConsistencyModelPipeline", None, {}, None),
        ("Flux2KleinPipeline", None, {}, None),
    ],
)
def test_every_family_is_switched_by_its_own_arguments(name, usual, off, on):
    pipe = of_class(name)
    assert resolve_workload(pipe, None).guidance is usual
    for wanted, expected in ((False, off), (True, on)):
        if expected is None:
            with pytest.raises(WorkloadError, match=f"{name} has no classifier-free guidance"):
                resolve_workload(pipe, Workload(guidance=wanted))
            continue
        workload = resolve_workload(pipe, Workload(guidance=wanted))
        call = call_arguments(pipe, workload)
        assert {k: v for k, v in call.items() if "guidance" in k or "cfg" in k or "negative" in k} == expected
        assert is_guided(pipe, call) is wanted


def test_a_scale_that_was_said_decides_and_is_no_other_argument():
    sd, flux = tiny.sd(), tiny.flux()
    for said, guided in [({"guidance_scale": 1.0}, False), ({"guidance_scale": 3.0}, True)]:
        for given in (said, Workload(arguments=said)):
            resolved = resolve_workload(sd, given)
            assert (resolved.guidance, resolved.arguments) == (guided, {})
    resolved = resolve_workload(flux, {"true_cfg_scale": 4.0, "negative_prompt": "blurred"})
    assert (resolved.guidance, resolved.arguments) == (True, {"negative_prompt": "text"})
    assert resolve_workload(flux, {"true_cfg_scale": 4.0}).guidance is None  # without a negative prompt it does nothing
    embedded = {"negative_prompt_embeds": torch.zeros(1, 8, 32), "negative_pooled_prompt_embeds": torch.zeros(1, 32)}
    assert resolve_workload(flux, {"true_cfg_scale": 4.0, **embedded}).guidance is True
