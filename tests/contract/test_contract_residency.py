"""Whose weights are on the device when: the replay's word against a ledger of what the hooks really do."""

from __future__ import annotations

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

from autotune.flow.job import job_for
from autotune.guard import applying
from autotune.records.placement import placed
from autotune.records.plan import Plan
from autotune.records.trace import EventKind
from autotune.simulate.residency import Move, residency
from autotune.trace.session import Session
from tests.contract.families import CPU, FAMILIES, build, call_of
from tests.contract.ledger import Call, ComponentLedger, Entry, LeafLedger


def with_safety_checker():
    pipe = build("sd")
    small = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    vision = {**small, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=small, vision_config=vision, projection_dim=16)
    checker = StableDiffusionSafetyChecker(config).eval()
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe.register_modules(safety_checker=checker, feature_extractor=extractor)
    return pipe


def with_controlnet():
    pipe = build("sd")
    torch.manual_seed(0)
    control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 16))
    pipe = StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=control.eval(), requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_excluded_denoiser():
    """Kandinsky's prior is excluded from offload and in its order at once; so is this UNet."""
    pipe = build("sd")
    pipe._exclude_from_cpu_offload = ["safety_checker", "unet"]
    return pipe


CASES = {family: lambda family=family: build(family) for family in FAMILIES} | {
    "safety checker": with_safety_checker,
    "controlnet": with_controlnet,
    "excluded denoiser": with_excluded_denoiser,
}


def call_for(case):
    extra = {"image": torch.zeros(1, 3, 32, 32)} if case == "controlnet" else {}
    return {"prompt": "a cat", "output_type": "pt", **call_of(case if case in FAMILIES else "sd"), **extra}


@pytest.fixture(params=CASES)
def scene(request):
    """The pipeline, its facts, its trace, and a real call of it."""
    pipe, call = CASES[request.param](), call_for(request.param)
    job = job_for(pipe, device=CPU, workload=call, example=None, calls=1, undo=True)
    trace = Session(pipe, denoisers=job.model.denoisers).record(job.calls[0], steps=2)
    assert trace.untraced == {}
    return pipe, job, trace, lambda: pipe(generator=torch.Generator().manual_seed(0), **call)


def test_model_offload_moves_components_as_replayed(scene, monkeypatch):
    pipe, job, trace, run = scene
    ledger = ComponentLedger(pipe, monkeypatch)
    applying.apply(pipe, Plan(offload="model"), device=CPU, workload=job.largest)
    before = len(ledger.entries)
    run()
    callers = [segment.component for segment in trace.segments]
    stays = residency(placed(job.model, Plan(offload="model")), callers)
    hooked = {call.component for call in ledger.calls}
    moves = [Entry(move.direction, move.component) for stay in stays for move in stay.moves]
    present = [Call(who, stay.components) for who, stay in zip(callers, stays, strict=True) if who in hooked]
    assert ledger.entries[before:][: len(moves)] == moves
    assert ledger.calls == present
    aboard = placed(job.model, Plan(offload="model")).resident
    assert {name for name in callers if name} - hooked <= aboard
    assert ledger.present == aboard


def test_sequential_offload_moves_leaves_as_replayed(scene, monkeypatch):
    pipe, job, trace, run = scene
    applying.apply(pipe, Plan(offload="sequential"), device=CPU, workload=job.largest)
    ledger = LeafLedger(pipe, monkeypatch)
    run()
    stays = residency(placed(job.model, Plan(offload="sequential")), [segment.component for segment in trace.segments])
    expected = [
        Entry("in" if kind == EventKind.ENTER else "out", segment.modules[ref], int(size))
        for segment, stay in zip(trace.segments, stays, strict=True)
        if segment.component not in stay.components
        for kind, ref, size in zip(segment.kind, segment.ref, segment.size, strict=True)
        if kind in {EventKind.ENTER, EventKind.EXIT} and size
    ]
    assert ledger.entries == expected
    brought = sum(entry.size_bytes for entry in ledger.entries if entry.direction == "in")
    assert brought == sum(entry.size_bytes for entry in ledger.entries if entry.direction == "out") > 0


def test_a_component_outside_the_order_stays(monkeypatch):
    pipe = with_controlnet()
    job = job_for(pipe, device=CPU, workload=call_for("controlnet"), example=None, calls=1, undo=True)
    callers = ["text_encoder", "controlnet", "unet", "controlnet", "unet", "vae"]
    stays = residency(placed(job.model, Plan(offload="model")), callers)
    assert stays[1].moves == (Move("in", "controlnet"),)
    assert stays[3].moves == ()
    assert stays[5].components == {"controlnet", "vae"}
