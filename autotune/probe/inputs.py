"""What a call needs beyond words, made up from the workload: blank images and zero embeddings, for only shapes count.

A call needs an input that has no default, or whose annotation does not allow the None that is its default (this is how
diffusers writes image-to-image signatures). Of a pipeline that takes an image or a video neither is made up: both are
optional there.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

from autotune.records.workload import Workload

__all__ = ["PICTURES", "made_up", "missing_inputs", "needs_image", "parameters_of"]

_IMAGES = ("image", "control_image", "conditioning_image", "init_image", "original_image")
_MASKS = ("mask_image", "control_mask")
_VIDEOS = ("video", "control_video", "pose_video", "face_video", "conditioning_frames")
PICTURES = (*_IMAGES, *_MASKS, *_VIDEOS)
"""Arguments that are images, masks or lists of frames."""
# Edge of the image that Stable Cascade's prior makes embeddings for (default of StableCascadePriorPipeline.__call__).
_CASCADE_EDGE_PX = 1024
# Pixels for each of the decoder's latents: PaellaVQModel has two levels, and its blocks are 2x2 pixels.
_VQGAN_SCALE = 4


def parameters_of(pipe: Any) -> dict[str, inspect.Parameter]:
    """Named arguments of the pipeline's call; `**kwargs` is not one: diffusers keeps it for deprecated names."""
    known = inspect.signature(type(pipe).__call__).parameters
    return {name: p for name, p in known.items() if name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD}


def missing_inputs(pipe: Any, call: Mapping[str, Any]) -> list[str]:
    """Inputs such as images that this pipeline takes and this call does not have."""
    parameters = parameters_of(pipe)
    return [name for name in (*PICTURES, *_EMBEDDINGS) if name in parameters and call.get(name) is None]


def needs_image(pipe: Any) -> bool:
    """Whether no call of the pipeline can do without an image."""
    parameters = parameters_of(pipe)
    return any(_is_needed(name, parameters) for name in (*_IMAGES, *_VIDEOS) if name in parameters)


def made_up(pipe: Any, workload: Workload, call: Mapping[str, Any]) -> dict[str, Any]:
    """Stand-ins for the inputs that the call needs, does not have, and whose shape the workload tells."""
    parameters = parameters_of(pipe)
    made: dict[str, Any] = {}
    for name in (name for name in missing_inputs(pipe, call) if _is_needed(name, parameters)):
        if name in _EMBEDDINGS:
            made[name] = _EMBEDDINGS[name](pipe, workload)
        elif workload.height and workload.width:
            if name in _MASKS:
                made[name] = _mask(workload.height, workload.width)
            elif name in _IMAGES:
                made[name] = _image(pipe, workload.height, workload.width)
            elif workload.frames:
                made[name] = [_image(pipe, workload.height, workload.width)] * workload.frames
    return made


def _is_needed(name: str, parameters: Mapping[str, inspect.Parameter]) -> bool:
    parameter = parameters[name]
    if parameter.default is inspect.Parameter.empty or name in _MASKS:
        return True
    if name in _EMBEDDINGS or {"image", "video"} <= parameters.keys():
        return False
    is_inpainted = name == "image" and "mask_image" in parameters
    return is_inpainted or not re.search("None|Optional", str(parameter.annotation))


def _image(pipe: Any, height_px: int, width_px: int) -> Any:
    from PIL import Image

    adapter = getattr(getattr(pipe, "adapter", None), "config", None)
    channels = getattr(adapter, "in_channels", 3)  # T2I-Adapters of edges look at one
    return Image.new("L" if channels == 1 else "RGB", (width_px, height_px))


def _mask(height_px: int, width_px: int) -> Any:
    from PIL import Image

    return Image.new("L", (width_px, height_px), 255)


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
