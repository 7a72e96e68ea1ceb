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
from autotune.zoo.additions import with_additions
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


@pytest.mark.parametrize("name", ["controlnet_conditioning_scale", "image"])
def test_a_list_of_controlnets_wants_a_list_of_as_many(name: str) -> None:
    pipe = with_additions(of_class("StableDiffusionPipeline"), controlnets=["controlnet-sd15-canny"] * 3)
    assert len(arguments(pipe)[name]) == 3
    assert len(arguments(pipe, inputs={"image": "320x192"})["image"]) == 3
    assert isinstance(arguments(pipe, inputs={"image": "2 x 320x192 RGB"})["image"], list)


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("StableDiffusionImg2ImgPipeline", {"image": "320x192"}, {"image": ((320, 192), "RGB")}),
        ("FluxControlNetPipeline", {"image": "320x192"}, {"control_image": ((320, 192), "RGB")}),
        ("FluxFillPipeline", {"image": "64x64", "mask": "32x64 L"},
         {"image": ((64, 64), "RGB"), "mask_image": ((32, 64), "L")}),
        ("Flux2KleinPipeline", {"image": "320x192"}, {"image": ((320, 192), "RGB")}),
        ("ZImageImg2ImgPipeline", {}, {"image": ((1024, 1024), "RGB")}),
    ],
)  # fmt: skip
def test_a_workload_alone_gives_the_call_again(name: str, said: dict[str, str], expected: dict[str, Any]) -> None:
    assert pictures(arguments(of_class(name), inputs=said)) == expected


def test_what_was_seen_can_be_made_again_from_its_description() -> None:
    pipe = of_class("Flux2KleinPipeline")
    given = {"image": [Image.new("RGB", (64, 32))] * 2, "latents": torch.ones(1, 16, 128, dtype=torch.float16)}
    workload = resolve_workload(pipe, given)
    assert workload.inputs == {"image": "2 x 64x32 RGB", "latents": "1x16x128 torch.float16"}
    call = call_arguments(pipe, workload)
    assert [image.size for image in call["image"]] == [(64, 32)] * 2
    assert (call["latents"].shape, call["latents"].dtype) == ((1, 16, 128), torch.float16)
    assert resolve_workload(pipe, {"image": ["64x32", "64x32"]}).inputs == {"image": "2 x 64x32 RGB"}
    with pytest.raises(WorkloadError, match="pass example="):
        call_arguments(pipe, Workload(inputs={"image": "Thing"}))


def test_a_picture_gives_the_size_where_the_pipeline_lets_it() -> None:
    klein, inpaint = of_class("Flux2KleinPipeline"), of_class("StableDiffusionInpaintPipeline")
    image = {"image": "320x192"}
    seen = resolve_workload(klein, Workload(inputs=image), defaults=Workload(height=1024, width=1024))
    assert (seen.height, seen.width, seen.size) == (None, None, (192, 320, None))
    assert "height" not in call_arguments(klein, seen)
    said = resolve_workload(klein, Workload(height=512, width=512, inputs=image))
    assert said.size == (512, 512, None)
    assert resolve_workload(inpaint, Workload(inputs=image)).size == (512, 512, None)


def test_a_prompt_has_as_many_tokens_as_were_said() -> None:
    pipe = of_class("ZImagePipeline")
    call = arguments(pipe, prompt_tokens=300, batch=2, arguments={"negative_prompt": ["text"]})
    assert [len(pipe.tokenizer(prompt).input_ids) for prompt in call["prompt"]] == [300, 300]


def test_inputs_and_arguments_that_the_pipeline_does_not_take_are_refused() -> None:
    pipe = of_class("StableDiffusionPipeline")
    for fields, message in (
        ({"inputs": {"video": "64x64x5"}}, "takes no video"),
        ({"inputs": {"image": "64x64"}}, "takes no image"),
        ({"arguments": {"etta": 1.0}}, "takes no argument 'etta'; nearest: eta"),
    ):
        with pytest.raises(WorkloadError, match=message):
            resolve_workload(pipe, Workload(**fields))


def test_sizes_come_from_the_code_where_nothing_else_says_them() -> None:
    assert resolve_workload(zoo("z-image-turbo"), None).size == (1024, 1024, None)  # `height or 1024` in its call
    assert resolve_workload(zoo("allegro"), None).size == (720, 1280, 88)  # sample_frames counts latents


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
