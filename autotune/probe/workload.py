"""From what a person says about a call to a resolved `Workload` and the arguments to trace it with.

Only shapes are read: the prompt's words do not matter, an example image's size does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from autotune.errors import WorkloadError, nearest
from autotune.probe.code import fallbacks, worked_out
from autotune.probe.guidance import guided_arguments, is_guidable, is_guided
from autotune.probe.inputs import (
    PICTURES,
    follows_picture,
    made_up,
    missing_inputs,
    named_inputs,
    needs_image,
    of_description,
)
from autotune.records.described import Described, picture
from autotune.records.workload import SCALES, Workload, with_defaults
from autotune.upstream.port import parameters_of

__all__ = ["call_arguments", "missing_inputs", "resolve_workload", "said_by"]

_PROMPT = "a photo of an astronaut riding a horse on mars"
_WORD = "a"  # one token of every vocabulary
_PER_PROMPT = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")
_FIELDS = {
    "height": "height",
    "width": "width",
    "num_frames": "frames",
    "frames": "frames",  # Sana Video
    "video_length": "frames",  # Latte
    "num_inference_steps": "steps",
}
_NOT_SHAPES = {"prompt", "generator", "output_type", "return_dict", "callback_on_step_end", "callback"}
_NEVER_TRACED = ("generator", "callback_on_step_end", "callback", "callback_steps")  # state and code of the caller
_SIZED = (*PICTURES, "ip_adapter_image", "last_image", "reference_images")


def resolve_workload(
    pipe: Any, given: Workload | Mapping[str, Any] | None, *, calls: int = 1, defaults: Workload | None = None
) -> Workload:
    """The workload with the pipeline's own defaults filled in.

    Args:
        pipe: a `DiffusionPipeline`.
        given: a `Workload`, a dict of arguments of the pipeline's `__call__`, or None for its defaults.
        calls: how many calls are to come.
        defaults: the call that the model's card recommends, for what was not said.

    Raises:
        WorkloadError: an argument the pipeline does not take, or guidance that it does not have.
    """
    parameters = parameters_of(pipe)
    said = given if isinstance(given, Workload) else said_by(pipe, given or {})
    said = said.model_copy(update={"inputs": named_inputs(pipe, said.inputs)})
    _check_names(pipe, said.arguments, parameters)
    usual = defaults or Workload()
    known = {name: value for name, value in usual.arguments.items() if name in parameters}
    merged = with_defaults(said, usual.model_copy(update={"arguments": known}))
    taken = parameters.keys() | ({"height", "width"} if needs_image(pipe) else set())  # it works at its image's size
    edges = {} if said.height or said.width else _edges_of(merged.inputs)
    updates: dict[str, Any] = {"calls": max(calls, merged.calls)}
    for field in dict.fromkeys(_FIELDS.values()):
        argument = next((name for name, of in _FIELDS.items() if of == field and name in taken), None)
        if argument is None and getattr(said, field) is not None:
            raise WorkloadError(f"{type(pipe).__name__} takes no {_argument(field)}; leave {field} out of the workload")
        default = parameters[argument].default if argument in parameters else None
        fallback = _default_of(pipe, field) if argument else None
        # Where no call can say a size it is the card's (Stable Cascade's decoder).
        of_card = field in {"height", "width"}
        usually = getattr(merged, field) if argument or of_card else None
        updates[field] = usually or (default if isinstance(default, int) else None) or fallback
    if edges and "height" not in parameters:
        updates |= edges
    elif edges and follows_picture(pipe):  # it makes of the picture's size what its rules say; this is where they begin
        updates |= {"height": None, "width": None, "computed": (*edges.values(), updates["frames"])}
    updates["guidance"] = _guidance_of(pipe, said, merged)
    updates["arguments"] = {name: value for name, value in merged.arguments.items() if name not in SCALES}
    return merged.model_copy(update=updates)


def call_arguments(pipe: Any, workload: Workload, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments for a traced call: what was given where it was, made up from the workload elsewhere (`inputs.py`)."""
    parameters = parameters_of(pipe)
    stated = {name: of_description(name, text) for name, text in workload.inputs.items() if name not in (given or {})}
    real = {name: _real(name, value) for name, value in (given or {}).items()}
    call = {name: _stand_in(value) for name, value in (workload.arguments | stated | real).items()}
    for name in _NEVER_TRACED:
        call.pop(name, None)
    for argument, field in _FIELDS.items():
        if argument in parameters and getattr(workload, field) is not None:
            call[argument] = getattr(workload, field)
    words = " ".join([_WORD] * workload.prompt_tokens) if workload.prompt_tokens else _PROMPT
    if "prompt" in parameters and "prompt" not in call and "prompt_embeds" not in call:
        call["prompt"] = words
    if "strength" in parameters and "strength" not in call:
        call["strength"] = parameters["strength"].default
    if workload.guidance is not None:
        call |= guided_arguments(pipe, call, guided=workload.guidance)
    call |= made_up(pipe, workload, call)
    if _batch_of(call) != workload.batch:
        per_prompt = next((name for name in _PER_PROMPT if name in parameters), None)
        call |= _batched(call, words, workload.batch, per_prompt)
    if "output_type" in parameters and call.get("output_type") != "latent":
        call["output_type"] = "pt"
    return call


def said_by(pipe: Any, given: Mapping[str, Any]) -> Workload:
    """What a dict of the call's arguments says, with nothing filled in. Pictures may be given by their sizes.

    Raises:
        WorkloadError: an argument that the pipeline does not take, or a value that it cannot have.
    """
    call = dict(given)
    _check_names(pipe, call, parameters_of(pipe))
    fields: dict[str, Any] = {
        field: call[argument] for argument, field in _FIELDS.items() if call.get(argument) is not None
    }
    for field, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise WorkloadError(f"{field}={value!r} is not a positive whole number; write for example {field}=512")
    for name in _PER_PROMPT:
        each = call.get(name, 1)
        if isinstance(each, bool) or not isinstance(each, int) or each < 1:
            raise WorkloadError(f"{name}={each!r} is not a positive whole number; write for example {name}=1")
    if isinstance(call.get("prompt"), list | tuple) and not call["prompt"]:
        raise WorkloadError("prompt=[] holds no prompt; give at least one")
    if call.get("prompt_embeds") is not None and not hasattr(call["prompt_embeds"], "shape"):
        raise WorkloadError(f"prompt_embeds={call['prompt_embeds']!r} is no tensor; pass prompt= for words")
    rest = {k: v for k, v in call.items() if k not in {*_FIELDS, *_PER_PROMPT, *_NOT_SHAPES} and v is not None}
    shapes = {name: _outside(name, value) for name, value in rest.items() if name in _SIZED or not _is_scalar(value)}
    return Workload(
        batch=_batch_of(call),
        arguments={name: _unworded(name, value) for name, value in rest.items() if name not in shapes},
        inputs=shapes,
        **fields,
    )


def _check_names(pipe: Any, names: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    for name in names:
        if name not in parameters:
            raise WorkloadError(
                f"{type(pipe).__name__} takes no argument {name!r}; nearest: {nearest(name, list(parameters))}"
            )


def _argument(field: str) -> str:
    return next(argument for argument, of in _FIELDS.items() if of == field)


def _guidance_of(pipe: Any, said: Workload, merged: Workload) -> bool | None:
    """Whether the call is guided; None where nobody says so and no negative prompt is usual."""
    call = merged.arguments | merged.inputs  # a negative prompt may come as embeddings
    if merged.guidance is None:
        return is_guided(pipe, call) or (False if is_guidable(pipe, unsaid=True) else None)
    if said.guidance is not None:
        guided_arguments(pipe, call, guided=said.guidance)  # refuses what it cannot do
    return merged.guidance if not merged.guidance or is_guidable(pipe) else None


def _batched(call: Mapping[str, Any], words: str, batch: int, per_prompt: str | None) -> dict[str, Any]:
    """Arguments that make the call a batch: several images of one prompt, or several prompts where some come in lists."""
    listed = {name: value for name, value in call.items() if "prompt" in name and isinstance(value, list)}
    if per_prompt and not listed:
        return {per_prompt: batch} | ({"prompt": words} if "prompt" in call else {})
    lists = {name: value[:1] * batch for name, value in listed.items()}
    return lists | {"prompt": [words] * batch} | ({per_prompt: 1} if per_prompt else {})


def _edges_of(inputs: Mapping[str, str]) -> dict[str, int]:
    """Height and width in pixels of the first picture, video or tensor `(..., height, width)` among the inputs."""
    for name in (name for name in PICTURES if name in inputs):
        described = Described.read(inputs[name])
        if described is not None and len(described.shape) >= (2 if described.is_picture else 3):
            width, height = described.shape if described.is_picture else described.shape[:-3:-1]
            return {"height": height, "width": width}
    return {}


def _real(name: str, value: Any) -> Any:
    """What was given; a blank picture for one that is given by its size."""
    return of_description(name, _outside(name, value)) if name in _SIZED and _is_scalar(value) and value else value


def _stand_in(value: Any) -> Any:
    """Zeros on the CPU for a tensor, wherever it lies; anything else as it is."""
    import torch

    if isinstance(value, torch.Tensor):
        return torch.zeros(value.shape, dtype=value.dtype)
    if isinstance(value, list | tuple):
        return type(value)(_stand_in(item) for item in value)
    if isinstance(value, dict):
        return {key: _stand_in(item) for key, item in value.items()}
    return value


def _unworded(name: str, value: Any) -> Any:
    """Prompts without their words, so that a profile answers all of them."""
    if "prompt" in name and isinstance(value, str):
        return "text"
    if "prompt" in name and isinstance(value, list):
        return ["text"] * len(value)
    return value


def _batch_of(call: Mapping[str, Any]) -> int:
    prompt = call.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list | tuple) else 1
    if call.get("prompt_embeds") is not None:
        prompts = call["prompt_embeds"].shape[0]
    each = next((call[name] for name in _PER_PROMPT if call.get(name)), 1)
    return int(prompts * each)


def _is_scalar(value: Any) -> bool:
    plain = str | int | float | bool | None
    return isinstance(value, plain) or (isinstance(value, list) and all(isinstance(item, plain) for item in value))


def _outside(name: str, value: Any) -> str:
    """Shape of a tensor or picture, length of a list of them; of a picture's size in words the picture."""
    if name in _SIZED and _is_scalar(value):
        return picture(name, value, mode="L" if "mask" in name else "RGB")
    if isinstance(value, list | tuple) and value:
        return f"{len(value)} x {_outside(name, value[0])}"
    if hasattr(value, "shape"):
        return "x".join(map(str, value.shape)) + f" {value.dtype}"
    if hasattr(value, "size") and hasattr(value, "mode"):  # a tensor has both, as methods
        return f"{value.size[0]}x{value.size[1]} {value.mode}"
    return type(value).__name__


def _default_of(pipe: Any, field: str) -> int | None:
    """What the pipeline's call falls back to by its own code; else what most diffusers pipelines do: in pixels a latent size
    times the VAE's scale, or what the VAE was trained on."""
    stated = (worked_out(expression, pipe, {}) for expression in fallbacks(type(pipe), _argument(field)))
    found = next((value for value in stated if isinstance(value, int) and value > 0), None)
    if found is not None or field == "steps":
        return found
    configs = [getattr(getattr(pipe, name, None), "config", None) for name in ("unet", "transformer")]
    known = {name: value for config in configs for name, value in (config or {}).items() if isinstance(value, int)}
    if field == "frames":  # SVD's UNet knows it
        return known.get("num_frames")
    size = getattr(pipe, "default_sample_size", None) or known.get(f"sample_{field}") or known.get("sample_size")
    if hasattr(pipe, "low_res_scheduler"):  # an upscaler's latents have the size of the image that it is given
        return size
    scale = getattr(pipe, "vae_scale_factor", None) or getattr(pipe, "vae_scale_factor_spatial", None)
    if isinstance(size, int) and isinstance(scale, int):
        return size * scale
    trained_px = getattr(getattr(getattr(pipe, "vae", None), "config", None), "sample_size", None)
    return trained_px if isinstance(trained_px, int) else None
