"""ControlNets, LoRAs and IP-Adapters on models that are only named."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import pytest
import torch

from autotune.errors import PipelineError
from autotune.flow.ask import Question
from autotune.zoo.additions import in_words, taking, with_additions
from autotune.zoo.build import network
from autotune.zoo.locate import locate
from benchmarks.coverage_classes import CLASSES, shrunk


def of_class(name: str) -> Any:
    return shrunk(next(known for known in CLASSES if known.pipeline_class == name))


@pytest.fixture
def controlnet_folder(tmp_path):
    """A ControlNet for FLUX as a folder that holds its configuration."""
    model = of_class("FluxPipeline").transformer
    shared = (
        "in_channels",
        "num_attention_heads",
        "attention_head_dim",
        "joint_attention_dim",
        "pooled_projection_dim",
    )
    wanted = {name: model.config[name] for name in (*shared, "axes_dims_rope")}
    config = {"_class_name": "FluxControlNetModel", "num_layers": 1, "num_single_layers": 0, **wanted}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_controlnets_make_the_pipeline_of_the_family_that_takes_them():
    pipe = locate("sd15").pipe
    one = with_additions(pipe, controlnets=["controlnet-sd15-canny"])
    assert type(one) is diffusers.StableDiffusionControlNetPipeline
    assert one.unet is pipe.unet
    assert one.controlnet.device.type == "meta"
    assert sum(weight.numel() for weight in one.controlnet.parameters()) == 361_279_120  # as published
    two = with_additions(pipe, controlnets=["LLLYASVIEL/control_v11p_sd15_canny", "controlnet-sd15-canny"])
    assert len(two.controlnet.nets) == 2
    pipe.unet.to(torch.float16)
    half = with_additions(pipe, controlnets=["controlnet-sd15-canny"])
    assert half.controlnet.dtype == torch.float16  # loaded beside the model, in its precision


def test_a_controlnet_from_a_folder(controlnet_folder):
    flux = of_class("FluxPipeline")
    made = with_additions(flux, controlnets=[str(controlnet_folder)])
    assert type(made) is diffusers.FluxControlNetPipeline
    assert made.controlnet.dtype == flux.transformer.dtype
    with pytest.raises(PipelineError, match="a FluxControlNetModel does not go with StableDiffusionPipeline; there is"):
        with_additions(of_class("StableDiffusionPipeline"), controlnets=[str(controlnet_folder)])
    (controlnet_folder / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(PipelineError, match="describes a AutoencoderKL and no ControlNet"):
        with_additions(flux, controlnets=[str(controlnet_folder)])


@pytest.mark.parametrize(
    ("name", "added", "message"),
    [
        ("StableDiffusionPipeline", {"controlnets": ["controlnet-sdxl-canny"]},
         "its cross_attention_dim is 2048, that of this UNet2DConditionModel is 768; there is controlnet-sd15-canny"),
        ("StableDiffusionPipeline", {"controlnets": ["no-such-net"]}, "no ControlNet 'no-such-net'"),
        ("FluxPipeline", {"controlnets": ["controlnet-sd15-canny"]}, "a ControlNetModel does not go with FluxPipeline"),
        ("LTXPipeline", {"controlnets": ["controlnet-sd15-canny"]}, "no pipeline with ControlNets for LTXPipeline"),
        ("StableDiffusionPipeline", {"ip_adapter": "no-such-adapter"}, "no IP-Adapter 'no-such-adapter'"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_said_with_what_does(name, added, message):
    with pytest.raises(PipelineError, match=message) as error:
        with_additions(of_class(name), **added)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline", "WanPipeline",
                                  "QwenImagePipeline", "ZImagePipeline", "StableDiffusion3Pipeline"])  # fmt: skip
def test_a_lora_has_its_rank_on_the_attention_layers_of_the_denoiser(name):
    pipe = with_additions(of_class(name), lora_rank=8)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    added = {path: weight for path, weight in denoiser.named_parameters() if ".lora_" in path}
    assert {min(weight.shape) for weight in added.values()} == {8}
    assert {(weight.device.type, weight.dtype) for weight in added.values()} == {("meta", denoiser.dtype)}
    down, up = ([w.numel() for path, w in added.items() if side in path] for side in ("lora_A", "lora_B"))
    assert len(down) == len(up) > 0
    assert not any(weight.requires_grad for weight in denoiser.parameters())
    assert not any(".lora_" in path for path, _ in pipe.text_encoder.named_parameters())


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        ("StableDiffusionPipeline", {"image"}, "StableDiffusionImg2ImgPipeline"),
        ("StableDiffusionXLPipeline", {"image", "mask"}, "StableDiffusionXLInpaintPipeline"),
        ("FluxPipeline", {"image"}, "FluxImg2ImgPipeline"),
        ("FluxPipeline", {"ip_adapter_image"}, "FluxPipeline"),
        ("Flux2KleinPipeline", {"image"}, "Flux2KleinPipeline"),
        ("StableDiffusionControlNetPipeline", {"image"}, "StableDiffusionControlNetPipeline"),
        ("StableDiffusionPipeline", set(), "StableDiffusionPipeline"),
        ("LTXPipeline", {"image"}, "LTXPipeline"),
    ],
)
def test_a_picture_is_taken_by_the_pipeline_of_the_family_that_takes_one(name, inputs, expected):
    pipe = of_class(name)
    made = taking(pipe, inputs)
    assert type(made).__name__ == expected
    assert made.vae is pipe.vae


def test_additions_have_words_and_belong_to_models_that_are_named():
    assert in_words(controlnets=["/somewhere/pose"], lora_rank=4, ip_adapter="ip-adapter-sd15") == (
        "ControlNet pose", "ip-adapter-sd15", "LoRA rank 4",
    )  # fmt: skip
    question = Question("sd15", gpu="Tesla T4", controlnets="controlnet-sd15-canny", lora_rank=4)
    assert question.additions == {"controlnets": ("controlnet-sd15-canny",), "lora_rank": 4, "ip_adapter": None}


def test_networks_that_are_added_are_built_like_all_others(controlnet_folder):
    config = json.loads((controlnet_folder / "config.json").read_text())
    assert network(diffusers.FluxControlNetModel, config, dtype="bfloat16").dtype == torch.bfloat16
