"""A batch in parts gives what the whole batch gives, on every pipeline, and a pipeline whose samples meet is refused."""

from __future__ import annotations

import logging

import pytest
import torch
from diffusers import StableDiffusionPAGPipeline

from autotune.errors import PlanError
from autotune.flow.job import job_for
from autotune.flow.planning import facts_for
from autotune.guard import applying
from autotune.records.plan import Plan
from autotune.upstream import port
from benchmarks.tiny import generate
from tests.contract.families import CPU, FAMILIES, build, call_of, job, run

TOLERANCE = 1e-5
SAMPLES = {  # of one call of the denoiser, by how many images are asked for: guidance doubles them, where it is not embedded
    1: {"sd": 2, "sdxl": 2, "flux": 1, "sd3": 2, "wan": 1, "ltx": 2},
    2: {"sd": 4, "sdxl": 4, "flux": 2, "sd3": 4, "wan": 2, "ltx": 4},
}
SPLITTABLE = [(family, batch) for batch, samples in SAMPLES.items() for family in FAMILIES if samples[family] > 1]


def denoiser(pipe):
    (part,) = port.denoisers(pipe).values()
    return part


def watched(pipe):
    """The batch of each call that reaches the denoiser's own code."""
    part, seen = denoiser(pipe), []
    forward = part.forward

    def spy(*args, **kwargs):
        first = args[0] if args else kwargs["hidden_states"]
        seen.append(first.shape[0])
        return forward(*args, **kwargs)

    part.forward = spy
    return seen


def split(family, pipe, parts, *, batch, facts=None):
    asked = job(family, pipe, batch=batch)
    facts = facts or facts_for(asked)
    applying.apply(pipe, Plan(batch_split=parts), device=CPU, workload=asked.largest, denoisers=facts)


@pytest.mark.parametrize(("family", "batch"), SPLITTABLE)
def test_parts_give_what_the_whole_gives(family, batch):
    pipe, samples = build(family), SAMPLES[batch][family]
    whole = run(family, pipe, batch=batch)
    facts, seen = facts_for(job(family, pipe, batch=batch)), watched(pipe)
    for parts in dict.fromkeys((2, samples)):
        split(family, pipe, parts, batch=batch, facts=facts)
        torch.testing.assert_close(run(family, pipe, batch=batch), whole, rtol=0, atol=TOLERANCE)
        assert set(seen) == {samples // parts}
        applying.restore(pipe)
        seen.clear()
    torch.testing.assert_close(run(family, pipe, batch=batch), whole, rtol=0, atol=0)
    assert set(seen) == {samples}


@pytest.mark.parametrize("family", [family for family in FAMILIES if SAMPLES[1][family] == 1])
def test_a_single_sample_is_not_split(family):
    pipe = build(family)
    with pytest.raises(PlanError, match="is called with 1 at a time; what works is False"):
        split(family, pipe, 2, batch=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_with_another_batch_than_planned_works(family):
    pipe = build(family)
    others = {batch: run(family, pipe, batch=batch) for batch in (1, 3)}
    facts, seen = facts_for(job(family, pipe, batch=2)), watched(pipe)
    split(family, pipe, 2, batch=2, facts=facts)
    for batch, whole in others.items():
        seen.clear()
        torch.testing.assert_close(run(family, pipe, batch=batch), whole, rtol=0, atol=TOLERANCE)
        samples = batch * SAMPLES[1][family]
        assert set(seen) == {samples // 2, -(-samples // 2)} - {0}


def test_an_argument_that_was_not_planned_runs_whole_and_says_so_once(caplog):
    pipe = build("sd")
    inputs, words = torch.randn(2, 4, 16, 16), torch.randn(2, 16, 32)

    def call(**more):
        with torch.no_grad():
            return pipe.unet(inputs, torch.tensor(1), encoder_hidden_states=words, **more).sample

    plain, facts = call(), facts_for(job("sd", pipe))
    seen = watched(pipe)
    split("sd", pipe, 2, batch=1, facts=facts)
    with caplog.at_level(logging.WARNING, logger="autotune"):
        torch.testing.assert_close(call(), plain, rtol=0, atol=TOLERANCE)
        assert (seen, caplog.messages) == ([1, 1], [])
        for _ in range(2):
            torch.testing.assert_close(call(class_labels=torch.zeros(2)), plain, rtol=0, atol=0)
    assert seen == [1, 1, 2, 2]
    assert caplog.messages == [
        "unet runs with its whole batch: argument [1]['class_labels'] was not there when it was planned"
    ]


@pytest.mark.parametrize("family", ["sd", "ltx"])
def test_an_output_keeps_its_class(family):
    """The pipelines ask for tuples; others may ask for the class that the model returns."""
    pipe, kept = build(family), []
    part = denoiser(pipe)
    split(family, pipe, 2, batch=1)
    forward = part.forward

    def asks_for_the_class(*args, **kwargs):
        kept.append(forward(*args, **kwargs | {"return_dict": True}))
        return (kept[-1].sample,)

    part.forward = asks_for_the_class
    run(family, pipe)
    assert {output.sample.shape[0] for output in kept} == {2}


def perturbed(scale):
    """Stable Diffusion with perturbed attention guidance: a third of the batch, and processors that take thirds."""
    parts = {name: part for name, part in build("sd").components.items() if name != "image_encoder"}
    pipe = StableDiffusionPAGPipeline(
        **parts, image_encoder=None, requires_safety_checker=False, pag_applied_layers="mid"
    )
    pipe.set_progress_bar_config(disable=True)
    call = {"prompt": "a cat", "pag_scale": scale, **call_of("sd")}
    return pipe, job_for(pipe, device=CPU, workload=call, example=None, calls=1, undo=True)


def test_perturbed_attention_guidance_is_refused():
    pipe, asked = perturbed(3.0)
    facts = facts_for(asked)
    assert facts["unet"].batch == 3
    assert facts["unet"].mixes == "aten.split.Tensor looks across samples"
    with pytest.raises(PlanError) as caught:
        applying.apply(pipe, Plan(batch_split=3), device=CPU, workload=asked.largest, denoisers=facts)
    assert str(caught.value) == (
        "batch_split=3 cannot be applied: unet: aten.split.Tensor looks across samples; what works is False"
    )


def test_the_same_pipeline_without_it_is_not():
    _, asked = perturbed(0.0)
    facts = facts_for(asked)
    assert facts["unet"].batch == 2
    assert facts["unet"].mixes == ""


def said(caplog):
    """What the lever says; that the call and the pipeline are others is told as well."""
    return [line for line in caplog.messages if line.startswith("unet runs")]


@pytest.mark.parametrize("batch", [1, 2])
def test_guidance_that_was_not_planned_runs_whole_and_says_so_once(batch, caplog):
    """In parts, thirds of a batch of 3 would fail, and those of a batch of 6 would be other samples."""
    pipe, asked = perturbed(0.0)
    facts, call = facts_for(asked), {"pag_scale": 3.0, **call_of("sd", batch=batch)}
    whole = generate("sd", pipe, **call)
    applying.apply(pipe, Plan(batch_split=2), device=CPU, workload=asked.largest, denoisers=facts)
    with caplog.at_level(logging.WARNING, logger="autotune"):
        torch.testing.assert_close(generate("sd", pipe, **call), whole, rtol=0, atol=0)
    assert said(caplog) == [
        "unet runs with its whole batch: its attention processors are not those that it was planned with"
    ]
    caplog.clear()
    seen = []
    pipe.unet.conv_in.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[0]))
    generate("sd", pipe, **call | {"pag_scale": 0.0})
    assert (set(seen), said(caplog)) == ({batch}, [])


def test_a_trace_without_it_is_not_taken_for_one_with_it():
    """Three images of two halves and two images of three thirds have the same shapes."""
    pipe, asked = perturbed(0.0)
    calls = [{"pag_scale": 0.0, **call_of("sd", batch=3)}, {"pag_scale": 3.0, **call_of("sd", batch=2)}]
    whole = [generate("sd", pipe, **call) for call in calls]
    applying.apply(pipe, Plan(compile="trace"), device=CPU, workload=asked.largest)
    for call, image in zip(calls * 2, whole * 2, strict=True):
        torch.testing.assert_close(generate("sd", pipe, **call), image, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_pipeline_is_refused_for_nothing(family):
    facts = facts_for(job(family, build(family), batch=2))
    assert [(fact.batch, fact.mixes) for fact in facts.values()] == [(SAMPLES[2][family], "")]
