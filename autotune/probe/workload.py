"""From what a person says about a call to a resolved `Workload` and the arguments to trace it with.

Only shapes are read: the prompt's words do not matter, an example image's size does.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from autotune.errors import WorkloadError, nearest
from autotune.probe.inputs import PICTURES, made_up, missing_inputs, needs_image, parameters_of
from autotune.records.workload import Workload

__all__ = ["call_arguments", "missing_inputs", "resolve_workload"]

_PROMPT = "a photo of an astronaut riding a horse on mars"
_PER_PROMPT = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt")
_FIELDS = {"height": "height", "width": "width", "num_frames": "frames", "num_inference_steps": "steps"}
_NOT_SHAPES = {
    "prompt",
    "generator",
    "output_type",
    "return_dict",
    "callback_on_step_end",
    "callback",
    "guidance_scale",
}
_NEVER_TRACED = ("generator", "callback_on_step_end", "callback", "callback_steps")  # state and code of the caller


def resolve_workload(pipe: Any, given: Workload | Mapping[str, Any] | None, *, calls: int = 1) -> Workload:
    """The workload with the pipeline's own defaults filled in.

    Args:
        pipe: a `DiffusionPipeline`.
        given: a `Workload`, a dict of arguments of the pipeline's `__call__`, or None for its defaults.
        calls: how many calls are to come.

    Raises:
        WorkloadError: an argument the pipeline does not take.
    """
    parameters = parameters_of(pipe)
    said = given if isinstance(given, Workload) else _from_call(pipe, dict(given or {}), parameters)
    taken = parameters.keys() | ({"height", "width"} if needs_image(pipe) else set())  # it works at its image's size
    updates: dict[str, Any] = {"calls": max(calls, said.calls)}
    for argument, field in _FIELDS.items():
        value = getattr(said, field)
        if value is not None and argument not in taken:
            raise WorkloadError(f"{type(pipe).__name__} takes no {argument}; leave {field} out of the workload")
        default = parameters[argument].default if argument in parameters else None
        fallback = _default_of(pipe, field) if argument in taken else None
        updates[field] = value or (default if isinstance(default, int) else None) or fallback
    if "height" not in parameters and isinstance(given, Mapping):
        updates |= _image_edges(given)
    scale = parameters["guidance_scale"].default if "guidance_scale" in parameters else None
    if said.guidance is None and isinstance(scale, int | float):
        updates["guidance"] = scale > 1
    return said.model_copy(update=updates)


def call_arguments(pipe: Any, workload: Workload, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments for a traced call: what was given where it was, made up from the workload elsewhere (`inputs.py`)."""
    parameters = parameters_of(pipe)
    call = {name: _stand_in(value) for name, value in (workload.arguments | dict(given or {})).items()}
    for name in _NEVER_TRACED:
        call.pop(name, None)
    for argument, field in _FIELDS.items():
        if argument in parameters and getattr(workload, field) is not None:
            call[argument] = getattr(workload, field)
    if "prompt" in parameters and "prompt" not in call and "prompt_embeds" not in call:
        call["prompt"] = _PROMPT
    if "guidance_scale" in parameters and "guidance_scale" not in call and workload.guidance is False:
        call["guidance_scale"] = 1.0
    if "strength" in parameters and "strength" not in call:
        call["strength"] = parameters["strength"].default
    call |= made_up(pipe, workload, call)
    if _batch_of(call) != workload.batch:
        call |= _batched(call, workload.batch, next((name for name in _PER_PROMPT if name in parameters), None))
    if "output_type" in parameters and call.get("output_type") != "latent":
        call["output_type"] = "pt"
    return call


def _batched(call: Mapping[str, Any], batch: int, per_prompt: str | None) -> dict[str, Any]:
    """Arguments that make the call a batch: several images of one prompt, or several prompts where some come in lists."""
    listed = {name: value for name, value in call.items() if "prompt" in name and isinstance(value, list)}
    if per_prompt and not listed:
        return {per_prompt: batch} | ({"prompt": _PROMPT} if "prompt" in call else {})
    lists = {name: value[:1] * batch for name, value in listed.items()}
    return lists | {"prompt": [_PROMPT] * batch} | ({per_prompt: 1} if per_prompt else {})


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


def _from_call(pipe: Any, call: dict[str, Any], parameters: Mapping[str, inspect.Parameter]) -> Workload:
    for name in call:
        if name not in parameters:
            raise WorkloadError(
                f"{type(pipe).__name__} takes no argument {name!r}; nearest: {nearest(name, list(parameters))}"
            )
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
    if isinstance(call.get("guidance_scale"), int | float):
        fields["guidance"] = call["guidance_scale"] > 1
    rest = {k: v for k, v in call.items() if k not in {*_FIELDS, *_PER_PROMPT, *_NOT_SHAPES} and v is not None}
    return Workload(
        batch=_batch_of(call),
        arguments={k: _unworded(k, v) for k, v in rest.items() if _is_scalar(v)},
        inputs={k: _outside(v) for k, v in rest.items() if not _is_scalar(v)},
        **fields,
    )


def _unworded(name: str, value: Any) -> Any:
    """Prompts without their words, so that a profile answers all of them."""
    if "prompt" in name and isinstance(value, str):
        return "text"
    if "prompt" in name and isinstance(value, list):
        return ["text"] * len(value)
    return value


def _image_edges(call: Mapping[str, Any]) -> dict[str, int]:
    """Height and width in pixels of the first input image, a PIL image or a tensor `(..., height, width)`."""
    image: Any = next((call[name] for name in PICTURES if call.get(name) is not None), None)
    if isinstance(image, list | tuple) and image:
        image = image[0]
    if hasattr(image, "shape"):
        return {"height": int(image.shape[-2]), "width": int(image.shape[-1])} if len(image.shape) >= 3 else {}
    if hasattr(image, "mode") and hasattr(image, "size"):  # a tensor has both, as methods
        return {"width": image.size[0], "height": image.size[1]}
    return {}


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


def _outside(value: Any) -> str:
    """Shape of a tensor or image, length of a list of them."""
    if isinstance(value, list | tuple) and value:
        return f"{len(value)} x {_outside(value[0])}"
    if hasattr(value, "shape"):
        return "x".join(map(str, value.shape)) + f" {value.dtype}"
    if hasattr(value, "size") and hasattr(value, "mode"):
        return f"{value.size[0]}x{value.size[1]} {value.mode}"
    return type(value).__name__


def _default_of(pipe: Any, field: str) -> int | None:
    """What diffusers pipelines fall back to: in pixels a latent size times the VAE's scale, in frames what SVD and CogVideoX
    were made for."""
    configs = [getattr(getattr(pipe, name, None), "config", None) for name in ("unet", "transformer")]
    known = {name: value for config in configs for name, value in (config or {}).items() if isinstance(value, int)}
    if field == "frames":  # Allegro, which has no such ratio, counts `sample_frames` in latents
        return known.get("num_frames") or (
            known.get("sample_frames") if "temporal_compression_ratio" in known else None
        )
    scale = getattr(pipe, "vae_scale_factor", None) or getattr(pipe, "vae_scale_factor_spatial", None)
    size = getattr(pipe, "default_sample_size", None) or known.get(f"sample_{field}") or known.get("sample_size")
    fixed_px = getattr(pipe, f"default_{field}", None)  # Mochi
    return fixed_px or (size * scale if isinstance(size, int) and isinstance(scale, int) else None)
