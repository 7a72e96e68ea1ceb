"""The 40 classes of diffusers 0.42 that most people use to make images and videos, and how each is made small.

One rule shrinks them all: a class takes its networks' configurations from the zoo model it is nearest to, with at most two
layers wherever a network of diffusers counts its layers. A network that the model lacks, or has in another class, takes
the defaults of its own class and of the model's denoiser what both have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, NamedTuple, get_args

import torch
from diffusers import SchedulerMixin
from transformers import ImageProcessingMixin, PreTrainedModel, ProcessorMixin

from autotune.zoo.build import assemble, class_of, network, quiet
from autotune.zoo.precisions import common
from autotune.zoo.recipe import Recipe, TokenizerRecipe
from autotune.zoo.recipes import recipes

__all__ = ["CLASSES", "Known", "shrunk"]

_LAYERS = 2


class Known(NamedTuple):
    """A pipeline class and the zoo model whose networks it shares."""

    pipeline_class: str
    relative: str
    changes: Mapping[str, Mapping[str, Any]] = {}
    """By network, what its published configuration has otherwise than the relative's."""


# ViT-H/14, with which Wan looks at the first frame.
_VIT_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
}

CLASSES = (
    # text to image
    Known("StableDiffusionPipeline", "sd15"),
    Known("StableDiffusionXLPipeline", "sdxl-base-1.0"),
    Known("StableDiffusion3Pipeline", "sd3-medium"),
    Known("FluxPipeline", "flux1-dev"),
    Known("Flux2Pipeline", "flux2-dev"),
    Known("Flux2KleinPipeline", "flux2-klein-4b"),
    Known("QwenImagePipeline", "qwen-image"),
    Known("ZImagePipeline", "z-image-turbo"),
    Known("ChromaPipeline", "chroma"),
    Known("PixArtSigmaPipeline", "pixart-sigma"),
    Known("SanaPipeline", "sana-1600m-1024"),
    Known("CogView4Pipeline", "cogview4"),
    Known("Lumina2Pipeline", "lumina2"),
    Known("LatentConsistencyModelPipeline", "sd15", {"unet": {"time_cond_proj_dim": 256}}),
    Known("StableDiffusionControlNetPipeline", "controlnet-sd15-canny"),
    Known("StableDiffusionXLControlNetPipeline", "controlnet-sdxl-canny"),
    Known("StableDiffusion3ControlNetPipeline", "sd3-medium"),
    Known("FluxControlNetPipeline", "flux1-dev"),
    # image to image
    Known("StableDiffusionImg2ImgPipeline", "sd15"),
    Known("StableDiffusionXLImg2ImgPipeline", "sdxl-base-1.0"),
    Known("StableDiffusion3Img2ImgPipeline", "sd3-medium"),
    Known("FluxImg2ImgPipeline", "flux1-dev"),
    Known("FluxKontextPipeline", "flux1-dev"),
    Known("QwenImageEditPipeline", "qwen-image"),
    Known("ZImageImg2ImgPipeline", "z-image-turbo"),
    Known("StableDiffusionInstructPix2PixPipeline", "sd15", {"unet": {"in_channels": 8}}),
    Known("StableDiffusionInpaintPipeline", "sd15-inpainting"),
    Known("StableDiffusionXLInpaintPipeline", "sdxl-base-1.0", {"unet": {"in_channels": 9}}),
    Known("FluxInpaintPipeline", "flux1-dev"),
    Known("FluxFillPipeline", "flux1-dev", {"transformer": {"in_channels": 384, "out_channels": 64}}),
    # video
    Known("WanPipeline", "wan2.1-t2v-1.3b"),
    Known(
        "WanImageToVideoPipeline",
        "wan2.1-t2v-14b",
        {"transformer": {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}, "image_encoder": _VIT_H},
    ),
    Known("WanVACEPipeline", "wan2.1-t2v-1.3b", {"transformer": {"vace_layers": [0]}}),
    Known("LTXPipeline", "ltx-video-0.9.5"),
    Known("LTXImageToVideoPipeline", "ltx-video-0.9.5"),
    Known("CogVideoXPipeline", "cogvideox-2b"),
    Known("CogVideoXImageToVideoPipeline", "cogvideox-5b", {"transformer": {"in_channels": 32}}),
    Known("HunyuanVideoPipeline", "hunyuanvideo"),
    Known("StableVideoDiffusionPipeline", "svd-xt"),
    Known("AnimateDiffPipeline", "animatediff-v1-5-2"),
)


def shrunk(known: Known) -> Any:
    """The pipeline of that class on the meta device."""
    recipe = recipes()[known.relative]
    dtype = common({part.dtype for part in recipe.components})
    with quiet():
        taken = _constructor(known.pipeline_class)
        networks = {
            name: network(cls, _configuration(recipe, known, name, cls), dtype=dtype)
            for name, cls in _networks(recipe, known, taken).items()
        }
        adapted = _adapted(recipe, known.pipeline_class, taken)
    return assemble(adapted, networks)


def _constructor(pipeline_class: str) -> Mapping[str, Parameter]:
    import diffusers

    return signature(getattr(diffusers, pipeline_class).__init__).parameters


def _networks(recipe: Recipe, known: Known, taken: Mapping[str, Parameter]) -> dict[str, Any]:
    """The class of each network: the relative's, unless the pipeline asks for another; what is optional if it is changed."""
    own = {part.name: class_of(part) for part in recipe.components}
    found = {}
    for name, parameter in taken.items():
        asked = _classes(parameter, torch.nn.Module)
        if name in own and (not asked or issubclass(own[name], asked)):
            found[name] = own[name]
        elif asked and (name in own or name in known.changes or name == "controlnet"):
            found[name] = asked[0]
    return found


def _configuration(recipe: Recipe, known: Known, name: str, cls: Any) -> dict[str, Any]:
    """The relative's values for that network, or else for its denoiser, then what differs; few layers."""
    configured = {part.name: part.arguments for part in recipe.components}
    values = configured.get(name, configured.get("transformer", configured.get("unet", {})))
    changes = known.changes.get(name, {})
    if issubclass(cls, PreTrainedModel):
        return {**(values if name in configured else {}), **changes}
    known_here = {key: of.default for key, of in signature(cls.__init__).parameters.items() if key != "self"}
    return {key: _few(key, changes.get(key, values.get(key, default))) for key, default in known_here.items()}


def _few(key: str, value: Any) -> Any:
    """At most two, if the key counts layers."""
    if isinstance(value, list | tuple):
        return [_few(key, item) for item in value]
    return min(value, _LAYERS) if "layers" in key and type(value) is int else value


def _adapted(recipe: Recipe, pipeline_class: str, taken: Mapping[str, Parameter]) -> Recipe:
    """The recipe with the scheduler, image processors and switches that the pipeline takes."""
    scheduler, asked = recipe.scheduler, _classes(taken["scheduler"], SchedulerMixin)
    if scheduler is not None and asked and scheduler.class_name not in {cls.__name__ for cls in asked}:
        scheduler = scheduler.model_copy(update={"class_name": asked[0].__name__})
    images = {name: _classes(parameter, ImageProcessingMixin) for name, parameter in taken.items()}
    processors = _classes(taken["processor"], ProcessorMixin) if "processor" in taken else ()
    others = [TokenizerRecipe(name="processor", class_name=cls.__name__) for cls in processors]
    return recipe.model_copy(
        update={
            "pipeline_class": pipeline_class,
            "scheduler": scheduler,
            "image_processors": {name: classes[0].__name__ for name, classes in images.items() if classes},
            "tokenizers": (*recipe.tokenizers, *others),
            "init_arguments": {name: value for name, value in recipe.init_arguments.items() if name in taken},
        }
    )


def _classes(parameter: Parameter, base: type) -> tuple[Any, ...]:
    """The classes below `base` that the annotation names."""
    named = get_args(parameter.annotation) or (parameter.annotation,)
    return tuple(cls for cls in named if isinstance(cls, type) and issubclass(cls, base))
