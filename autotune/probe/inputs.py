"""What a call needs beyond words, made up from the workload: blank pictures and zero tensors, for only shapes count.

A call needs an input that has no default, or whose annotation does not allow the None that is its default (this is how
diffusers writes image-to-image signatures), or that alone tells its size (Qwen-Image-Edit). Of a pipeline that takes an image
or a video neither is made up: both are optional there. Lists of ControlNets and adapters want a list of as many images.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from autotune.errors import WorkloadError
from autotune.probe.code import fallbacks, worked_out
from autotune.records.described import Described
from autotune.records.workload import Workload
from autotune.upstream.port import parameters_of

__all__ = [
    "PICTURES",
    "follows_picture",
    "made_up",
    "missing_inputs",
    "named_inputs",
    "needs_image",
    "of_description",
]

_IMAGES = ("image", "control_image", "conditioning_image", "init_image", "original_image", "reference_image",
           "example_image", "images", "input_images")  # fmt: skip
_MASKS = ("mask_image", "control_mask", "mask")
_VIDEOS = ("video", "control_video", "pose_video", "face_video", "conditioning_frames")
_ADAPTED = "ip_adapter_image"
PICTURES = (*_IMAGES, *_MASKS, *_VIDEOS)
"""Arguments that are images, masks or lists of frames."""
_SAID = {"image": _IMAGES, "mask": _MASKS, "video": _VIDEOS}
# Edge of the image that Stable Cascade's prior makes embeddings for (default of StableCascadePriorPipeline.__call__).
_CASCADE_EDGE_PX = 1024
# Pixels for each of the decoder's latents: PaellaVQModel has two levels, and its blocks are 2x2 pixels.
_VQGAN_SCALE = 4
# What CLIP's image encoders of published IP-Adapters resize pictures to (CLIPVisionConfig.image_size).
_ADAPTER_EDGE_PX = 224


def missing_inputs(pipe: Any, call: Mapping[str, Any]) -> list[str]:
    """Inputs such as images that this pipeline takes and this call does not have."""
    parameters = parameters_of(pipe)
    return [name for name in (*PICTURES, *_EMBEDDINGS) if name in parameters and call.get(name) is None]


def needs_image(pipe: Any) -> bool:
    """Whether no call of the pipeline can do without an image."""
    parameters = parameters_of(pipe)
    return any(_is_needed(pipe, name, parameters) for name in (*_IMAGES, *_VIDEOS) if name in parameters)


def follows_picture(pipe: Any) -> bool:
    """Whether the call takes its size from its picture before it falls back to a size of its own."""
    height = parameters_of(pipe).get("height")
    first = next(fallbacks(type(pipe), "height"), None) if height is not None and height.default is None else None
    return first is not None and worked_out(first, pipe, {}) is None


def named_inputs(pipe: Any, inputs: Mapping[str, str]) -> dict[str, str]:
    """Inputs under the pipeline's names for them: "image" is the first kind of image that it takes, and so are masks, videos.

    Raises:
        WorkloadError: the pipeline takes no such input.
    """
    parameters = parameters_of(pipe)
    named = {}
    for said, text in inputs.items():
        name = said if said in parameters else next((n for n in _SAID.get(said, ()) if n in parameters), None)
        if name is None:
            takes = [name for name in (*PICTURES, _ADAPTED) if name in parameters]
            there = f"it takes {', '.join(takes)}" if takes else "it makes pictures of words alone"
            raise WorkloadError(f"{type(pipe).__name__} takes no {said}; {there}")
        count = _wanted(pipe, name)
        described = Described.read(text)
        one_for_all = count > 1 and described is not None and described.is_picture and not described.count
        named[name] = f"{count} x {text}" if one_for_all else text
    return named


def of_description(name: str, text: str) -> Any:
    """A blank picture, a list of them, or a tensor of zeros.

    Raises:
        WorkloadError: the text tells a type and no shape.

    >>> of_description("mask_image", "64x32 L").size
    (64, 32)
    """
    described = Described.read(text)
    if described is None:
        raise WorkloadError(
            f"{name} is known as {text!r} only, of which nobody knows the shape; pass example={{{name!r}: ...}} with a real one"
        )
    value: Any = _picture(described) if described.is_picture else _tensor(described)
    for length in reversed(described.count):
        value = [value] * length
    return value


def made_up(pipe: Any, workload: Workload, call: Mapping[str, Any]) -> dict[str, Any]:
    """Stand-ins for the inputs that the call needs, does not have, and whose shape the workload tells."""
    parameters = parameters_of(pipe)
    height, width, frames = workload.size
    made: dict[str, Any] = {}
    for name in (name for name in missing_inputs(pipe, call) if _is_needed(pipe, name, parameters)):
        if name in _EMBEDDINGS:
            made[name] = _EMBEDDINGS[name](pipe, workload)
        elif height and width:
            picture = _blank(pipe, name, width, height)
            if name not in _VIDEOS:
                made[name] = _as_many(pipe, name, picture)
            elif frames:
                made[name] = _as_many(pipe, name, [picture] * frames)
    if _ADAPTED in parameters and not any(call.get(name) is not None for name in (_ADAPTED, f"{_ADAPTED}_embeds")):
        made |= _for_adapters(pipe, _wanted(pipe, _ADAPTED))
    return made | _scales(pipe, parameters, call) | _modes(pipe, parameters, call)


def _is_needed(pipe: Any, name: str, parameters: Mapping[str, inspect.Parameter]) -> bool:
    parameter = parameters[name]
    if parameter.default is inspect.Parameter.empty or name in {"mask_image", "control_mask"}:
        return True
    if name in _EMBEDDINGS or {"image", "video"} <= parameters.keys() or name in {"mask", "images", "input_images"}:
        return False
    if name == "image" and ("mask_image" in parameters or _alone_tells_size(pipe, parameters)):
        return True
    return not re.search("None|Optional", str(parameter.annotation))


def _alone_tells_size(pipe: Any, parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether the call's size can come from its image and from nowhere else."""
    if "height" not in parameters or parameters["height"].default is not None:
        return False
    known = [worked_out(expression, pipe, {}) for expression in fallbacks(type(pipe), "height")]
    return bool(known) and all(value is None for value in known)


def _wanted(pipe: Any, name: str) -> int:
    """How many pictures this argument has to list; 0 for one picture that lies in no list."""
    if name == _ADAPTED:
        return _adapters(pipe)
    parts = [getattr(pipe, "controlnet", None), getattr(pipe, "adapter", None)]
    several = [getattr(part, "nets", None) or getattr(part, "adapters", None) for part in parts if part is not None]
    control = "control_image" if "control_image" in parameters_of(pipe) else "image"
    is_control = name == control or name in {"conditioning_frames", "control_mask"}
    return next((len(nets) for nets in several if nets is not None and is_control), 0)


def _as_many(pipe: Any, name: str, value: Any) -> Any:
    count = _wanted(pipe, name)
    return [value] * count if count else value


def _adapters(pipe: Any) -> int:
    """How many IP-Adapters are loaded."""
    for part in (getattr(pipe, "unet", None), getattr(pipe, "transformer", None)):
        projection = getattr(part, "encoder_hid_proj", None)
        layers = getattr(projection, "image_projection_layers", None)
        if layers is not None:
            return len(layers)
        if getattr(part, "image_proj", None) is not None:  # Stable Diffusion 3
            return 1
    return 0


def _for_adapters(pipe: Any, count: int) -> dict[str, Any]:
    if not count:
        return {}
    blank = _blank(pipe, _ADAPTED, _ADAPTER_EDGE_PX, _ADAPTER_EDGE_PX)
    return {_ADAPTED: [blank] * count if count > 1 else blank}


def _scales(pipe: Any, parameters: Mapping[str, inspect.Parameter], call: Mapping[str, Any]) -> dict[str, Any]:
    """A scale for each of several ControlNets or adapters: FLUX and T2I-Adapters take no single one for them."""
    made = {}
    for part, parts in (("controlnet", "nets"), ("adapter", "adapters")):
        name, several = f"{part}_conditioning_scale", getattr(getattr(pipe, part, None), parts, None)
        if several is not None and name in parameters and name not in call:
            made[name] = [parameters[name].default] * len(several)
    return made


def _modes(pipe: Any, parameters: Mapping[str, inspect.Parameter], call: Mapping[str, Any]) -> dict[str, Any]:
    """The kind of control that ControlNets of several kinds have to be told: the first."""
    if "control_mode" not in parameters or call.get("control_mode") is not None:
        return {}
    controlnet = getattr(pipe, "controlnet", None)
    nets = list(getattr(controlnet, "nets", None) or [controlnet])
    union = [getattr(net, "union", False) or "Union" in type(net).__name__ for net in nets]
    if not any(union):
        return {}
    return {"control_mode": [0 if one else None for one in union] if len(nets) > 1 else 0}


def _blank(pipe: Any, name: str, width_px: int, height_px: int) -> Any:
    adapter = getattr(pipe, "adapter", None)
    config = getattr(next(iter(getattr(adapter, "adapters", None) or [adapter])), "config", None)
    channels = getattr(config, "in_channels", 3)  # T2I-Adapters of edges look at one
    mode = "L" if name in _MASKS or (channels == 1 and name in _IMAGES) else "RGB"
    return _picture(Described(shape=(width_px, height_px), kind=mode))


def _picture(described: Described) -> Any:
    from PIL import Image

    width_px, height_px = described.shape
    return Image.new(described.kind, (width_px, height_px), 255 if described.kind == "L" else 0)  # a mask of all


def _tensor(described: Described) -> Any:
    import torch

    dtype = getattr(torch, described.kind.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise WorkloadError(f"{described.kind!r} is not a dtype of torch; write for example 1x4x64x64 torch.float16")
    zeros = torch.zeros(described.shape, dtype=dtype)
    return zeros if described.kind.startswith("torch.") else zeros.numpy()


def _image_embeds(pipe: Any, _: Workload) -> Any:
    """What Kandinsky's prior hands to its decoder."""
    import torch

    return torch.zeros((1, pipe.unet.config.encoder_hid_dim), dtype=pipe.unet.dtype)


def _image_embeddings(pipe: Any, workload: Workload) -> Any:
    """What Stable Cascade's prior hands to its decoder: a small image that the decoder and the VQGAN enlarge."""
    import torch

    scale = pipe.config.latent_dim_scale * _VQGAN_SCALE
    rows, columns = (ceil((edge or _CASCADE_EDGE_PX) / scale) for edge in (workload.height, workload.width))
    return torch.zeros((1, pipe.decoder.config.effnet_in_channels, rows, columns), dtype=pipe.decoder.dtype)


_EMBEDDINGS: dict[str, Callable[[Any, Workload], Any]] = {
    "image_embeds": _image_embeds,
    "negative_image_embeds": _image_embeds,
    "image_embeddings": _image_embeddings,
}
