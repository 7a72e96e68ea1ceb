"""What calls need beyond a prompt: made up where the workload tells its shape, left alone elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from autotune.errors import WorkloadError
from autotune.probe.inputs import missing_inputs, needs_image
from autotune.probe.workload import call_arguments, resolve_workload
from autotune.records.workload import Workload
from autotune.zoo.build import build
from autotune.zoo.recipes import recipes
from benchmarks.coverage_classes import CLASSES, shrunk
from benchmarks.tiny import sd


def zoo(name: str) -> Any:
    return build(recipes()[name])


def of_class(name: str) -> Any:
    return shrunk(next(known for known in CLASSES if known.pipeline_class == name))


def arguments(pipe: Any, **fields: Any) -> dict[str, Any]:
    return call_arguments(pipe, resolve_workload(pipe, Workload(**fields)))


def pictures(call: dict[str, Any]) -> dict[str, Any]:
    return {name: (value.size, value.mode) for name, value in call.items() if isinstance(value, Image.Image)}


@pytest.mark.parametrize(
    ("make", "name", "expected"),
    [
        (zoo, "controlnet-sd15-canny", {"image": "RGB"}),
        (zoo, "sd15-inpainting", {"image": "RGB", "mask_image": "L"}),
        (zoo, "t2i-adapter-sd15", {"image": "L"}),
        (zoo, "t2i-adapter-sdxl", {"image": "RGB"}),
        (zoo, "svd-xt", {"image": "RGB"}),
        (of_class, "StableDiffusionImg2ImgPipeline", {"image": "RGB"}),
        (of_class, "FluxControlNetPipeline", {"control_image": "RGB"}),
        (of_class, "FluxFillPipeline", {"image": "RGB", "mask_image": "L"}),
        (of_class, "WanImageToVideoPipeline", {"image": "RGB"}),
        (of_class, "FluxKontextPipeline", {}),  # it edits an image or makes one of words alone
        (zoo, "flux2-klein-4b", {}),
        (zoo, "ltx-video-0.9.7-13b", {}),
        (zoo, "sdxl-base-1.0", {}),
    ],
)
def test_images_of_the_size_of_the_workload(make: Any, name: str, expected: dict[str, str]) -> None:
    call = arguments(make(name), height=192, width=320)
    assert pictures(call) == {argument: ((320, 192), mode) for argument, mode in expected.items()}


def test_the_size_of_image_to_image_is_that_of_its_image() -> None:
    pipe = of_class("StableDiffusionImg2ImgPipeline")
    assert needs_image(pipe)
    call = arguments(pipe, height=192, width=320)
    assert "height" not in call
    assert pictures(arguments(pipe)) == {"image": ((512, 512), "RGB")}
    given = {"image": Image.new("RGB", (256, 128))}
    resolved = resolve_workload(pipe, given)
    assert (resolved.height, resolved.width) == (128, 256)
    assert call_arguments(pipe, resolved, given)["image"] is given["image"]


def test_what_a_prior_hands_to_its_decoder() -> None:
    call = arguments(zoo("kandinsky-2.2-decoder"), batch=3)
    assert {name: tuple(call[name].shape) for name in ("image_embeds", "negative_image_embeds")} == {
        "image_embeds": (1, 1280),
        "negative_image_embeds": (1, 1280),
    }
    assert call["num_images_per_prompt"] == 3
    assert "prompt" not in call
    embeddings = arguments(zoo("stable-cascade-decoder"))["image_embeddings"]
    assert (tuple(embeddings.shape), embeddings.dtype) == ((1, 16, 24, 24), torch.bfloat16)


def test_videos_have_the_frames_of_the_workload() -> None:
    class Restyle:
        def __call__(self, video: list[Any], num_frames: int = 16) -> None: ...

    call = call_arguments(Restyle(), Workload(height=32, width=64, frames=5))
    assert [frame.size for frame in call["video"]] == [(64, 32)] * 5
    assert "video" not in call_arguments(Restyle(), Workload(height=32, width=64))


def test_what_no_rule_makes_up_is_missing() -> None:
    assert missing_inputs(zoo("flux2-klein-4b"), {}) == ["image"]
    assert missing_inputs(zoo("flux2-klein-4b"), {"image": "an image"}) == []
    assert missing_inputs(sd(), {}) == []


def test_a_size_that_nothing_takes_is_refused() -> None:
    with pytest.raises(WorkloadError) as error:
        resolve_workload(zoo("stable-cascade-decoder"), Workload(height=512))
    assert str(error.value) == "StableCascadeDecoderPipeline takes no height; leave height out of the workload"
    with pytest.raises(WorkloadError, match="StableDiffusionPipeline takes no num_frames; leave frames out"):
        resolve_workload(sd(), Workload(frames=5))
