"""Whether a call is guided, as its pipeline's own code decides it, and the arguments that make it so or not.

Guided means classifier-free guidance: the denoiser sees the negative prompt as well, in a batch of twice the size or in a
second call. A `guidance_scale` that is an input of the model (FLUX) costs nothing and is none.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from autotune.errors import WorkloadError
from autotune.probe.code import assigned, worked_out
from autotune.records.workload import SCALES

__all__ = ["guided_arguments", "is_guidable", "is_guided"]

_ON, _OFF = 5.0, (1.0, 0.0)  # pipelines compare with 1, Z-Image with 0
_SWITCHES = ("do_classifier_free_guidance", "do_true_cfg")
_NEGATIVE = ("negative_prompt", "negative_prompt_embeds")


class _AsCalled:
    """The pipeline in the middle of a call: what its properties read is what the call was given."""

    def __init__(self, pipe: Any, arguments: Mapping[str, Any]) -> None:
        self._pipe, self._arguments = pipe, arguments

    def __getattr__(self, name: str) -> Any:
        argument = name.removeprefix("_")
        return self._arguments[argument] if argument in self._arguments else getattr(self._pipe, name)


def is_guided(pipe: Any, call: Mapping[str, Any]) -> bool:
    """Whether the denoiser sees the negative prompt in this call."""
    guider = getattr(pipe, "guider", None)
    if guider is not None:
        return bool(guider._enabled and guider.num_conditions > 1)
    arguments = {name: p.default for name, p in inspect.signature(type(pipe).__call__).parameters.items()} | dict(call)
    arguments.setdefault("guidance_scale", arguments.get("max_guidance_scale"))  # SVD's first is its last frame's
    arguments["has_neg_prompt"] = any(arguments.get(name) is not None for name in _NEGATIVE)
    return any(_is_on(pipe, switch, arguments) for switch in _SWITCHES)


def is_guidable(pipe: Any, *, unsaid: bool = False) -> bool:
    """Whether any call of the pipeline is guided; with `unsaid`, one that gives no negative prompt."""
    trials = [trial for trial in ({}, *_trials(pipe)) if not (unsaid and "negative_prompt" in trial)]
    return any(is_guided(pipe, trial) for trial in trials)


def guided_arguments(pipe: Any, call: Mapping[str, Any], *, guided: bool) -> dict[str, Any]:
    """Arguments that make the call guided, or not guided.

    Raises:
        WorkloadError: the pipeline cannot do that by arguments of the call.
    """
    if is_guided(pipe, call) == guided:
        return {}
    trials = _trials(pipe) if guided else (dict.fromkeys(_scales(pipe), off) for off in _OFF)
    for trial in trials:
        if is_guided(pipe, {**call, **trial}) == guided:
            return trial
    name = type(pipe).__name__
    if getattr(pipe, "guider", None) is not None:
        scale = _ON if guided else _OFF[0]
        raise WorkloadError(
            f"{name} takes its guidance from its guider and not from the call; set "
            f"pipe.guider = pipe.guider.new(guidance_scale={scale}) and pass the pipeline"
        )
    raise WorkloadError(
        f"{name} has no classifier-free guidance: a guidance_scale that it takes is an input of the model and costs "
        "nothing; leave guidance out"
    )


def _trials(pipe: Any) -> Iterator[dict[str, Any]]:
    """Calls that may be guided: by the pipeline's scales, then by its true scale and a negative prompt."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    scales = [name for name in _scales(pipe) if name != "true_cfg_scale"]
    for name in scales:
        default = parameters[name].default
        yield {name: default if isinstance(default, int | float) and default > 1 else _ON}
    yield dict.fromkeys(scales, _ON)
    if {"true_cfg_scale", "negative_prompt"} <= parameters.keys():
        yield {"true_cfg_scale": _ON, "negative_prompt": "text"}


def _scales(pipe: Any) -> list[str]:
    parameters = inspect.signature(type(pipe).__call__).parameters
    return [name for name in SCALES if name in parameters]


def _is_on(pipe: Any, switch: str, arguments: Mapping[str, Any]) -> bool:
    decides = getattr(type(pipe), switch, None)
    if isinstance(decides, property) and decides.fget is not None:
        try:
            return bool(decides.fget(_AsCalled(pipe, arguments)))
        except (AttributeError, TypeError):  # it reads what only a call under way has
            return False
    return any(bool(worked_out(value, pipe, arguments)) for value in assigned(type(pipe), switch))
