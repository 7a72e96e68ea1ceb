"""What a pipeline, a card or this machine cannot do, in one sentence each, with nothing half applied."""

from __future__ import annotations

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

import autotune
from autotune.errors import PlanError
from autotune.levers import engine
from autotune.levers.base import Subject
from autotune.levers.compiling import repeated_blocks
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from autotune.upstream import backends
from benchmarks.tiny import flux, ltx, sd, sd3, wan
from tests.contract.test_contract_levers import Snapshot
from tests.unit.handmade import CPU, card

CALL = Workload(height=32, width=32, steps=2)
HOPPER, AMPERE, PASCAL = card((9, 0)), card((8, 6)), card((6, 1))


def refusal(pipe, device=CPU, **values):
    before = Snapshot(pipe)
    with pytest.raises(PlanError) as caught:
        engine.check(Subject(pipe, device, CALL), Plan(**values))
    before.assert_same(pipe)
    return str(caught.value)


@pytest.mark.parametrize(
    ("build", "device", "values", "words"),
    [
        (flux, CPU, {"attention": "sliced:max"}, "FluxTransformer2DModel has no sliced attention"),
        (ltx, CPU, {"attention": "vanilla"}, "the attention of LTXVideoTransformer3DModel has one processor only"),
        (sd, CPU, {"attention": "sliced:64"}, "a slice cannot hold more than the 4 heads of the smallest attention"),
        (
            sd,
            CPU,
            {"attention": "backend:native"},
            "the attention of UNet2DConditionModel does not ask diffusers' dispatcher",
        ),
        (flux, CPU, {"attention": "backend:flesh"}, "diffusers has no attention backend 'flesh'; nearest: flash"),
        (sd, CPU, {"attention": "xformers"}, "xformers needs a CUDA card"),
        (flux, CPU, {"compile": "trace"}, "only a UNet2DConditionModel is traced, and FluxPipeline has none"),
        (sd, PASCAL, {"compile": "blocks"}, "Triton has no code for a card"),
        (sd, CPU, {"vae_framewise": True}, "the VAE has no switch for it that is off"),
        (wan, CPU, {"vae_framewise": True}, "the VAE has no switch for it that is off"),
        (sd, CPU, {"offload": "group:leaf+stream"}, "streams need a CUDA card"),
    ],
)
def test_words(build, device, values, words):
    (name, value), *_ = values.items()
    said = refusal(build(), device, **values)
    assert said.startswith(f"{name}={value!r} cannot be applied: ")
    assert words in said
    assert "; what works is " in said
    assert said.count("\n") == 0


@pytest.mark.parametrize(
    ("value", "package"), [("backend:flash", "flash-attn"), ("backend:sage", "sageattention"), ("xformers", "xformers")]
)
def test_a_package_that_is_missing_or_too_old_is_named_with_the_version_it_takes(value, package):
    said = refusal(flux(), AMPERE, attention=value)
    assert "missing package or the version is too old" in said
    assert f"`{package}>=" in said


def test_a_kernel_that_the_card_lacks(monkeypatch):
    monkeypatch.setattr(backends, "backend_missing", lambda name: "")
    assert "flash_attn has no kernels for" in refusal(flux(), card((7, 5)), attention="backend:flash")
    assert "flash_attn_interface has no kernels for" in refusal(flux(), AMPERE, attention="backend:_flash_3")
    engine.check(Subject(flux(), HOPPER, CALL), Plan(attention="backend:_flash_3"))


def test_what_a_trace_cannot_follow_is_refused_by_name():
    pipe = sd()
    control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 16))
    controlled = StableDiffusionControlNetPipeline(
        **pipe.components, controlnet=control.eval(), requires_safety_checker=False
    )
    assert "ControlNet residuals" in refusal(controlled, compile="trace")
    pipe.unet.encoder_hid_proj = torch.nn.Linear(1, 1)
    assert "IP-Adapter" in refusal(pipe, compile="trace")
    pipe.unet.encoder_hid_proj = None
    pipe.unet.peft_config = {"default": object()}
    assert "a LoRA is loaded" in refusal(pipe, compile="trace")


def test_processors_with_weights_of_their_own_stay():
    pipe = sd()
    attention = next(module for module in pipe.unet.modules() if hasattr(module, "processor"))

    class Adapter(torch.nn.Module):
        pass

    attention.processor = Adapter()
    for value in ("vanilla", "sliced:max"):
        assert "Adapter holds weights of its own" in refusal(pipe, attention=value)


def test_a_plan_of_another_model_is_refused_whole():
    plan = autotune.plan("sd15", gpu="NVIDIA GeForce RTX 3060 12GB", max_vram="4GB").model_copy(
        update={"attention": "sliced:auto"}
    )
    pipe = sd3()
    before = Snapshot(pipe)
    with pytest.raises(PlanError, match="SD3Transformer2DModel has no sliced attention"):
        autotune.apply(pipe, plan, workload={"height": 32, "width": 32}, device="cpu")
    before.assert_same(pipe)


@pytest.mark.parametrize("value", ["sliced:0", "sliced:", "backend:", "flash", "sliced:max; rm", "backend:../x"])
def test_no_attention_of_that_name(value):
    with pytest.raises(PlanError, match="is not a valid value for this lever"):
        autotune.plan(sd(), device="cpu", keep={"attention": value})


@pytest.mark.parametrize(
    "value", ["group", "group:layer", "group:leaf+low_cpu_mem", "group:leaf+record_stream", "disk"]
)
def test_no_offload_of_that_name(value):
    with pytest.raises(PlanError, match="is not a valid value for this lever"):
        autotune.plan(sd(), device="cpu", keep={"offload": value})


def test_levers_that_are_fixed_against_a_rule_say_the_rule():
    with pytest.raises(PlanError, match="compile='blocks' with offload='sequential' cannot be applied"):
        autotune.plan(sd(), device="cpu", profiles=False, keep={"compile": "blocks", "offload": "sequential"})


def test_a_split_batch_needs_one():
    with pytest.raises(PlanError, match="is called with 1 at a time; what works is False"):
        autotune.apply(flux(), Plan(batch_split=2), workload={"height": 8, "width": 8}, device="cpu")


def test_blocks_are_found_where_a_class_names_none():
    assert {type(block).__name__ for block in repeated_blocks(sd().unet)} == {"BasicTransformerBlock"}
    assert {type(block).__name__ for block in repeated_blocks(sd3().transformer)} == {"JointTransformerBlock"}
