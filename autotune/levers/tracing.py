"""A UNet's forward as a `torch.jit` trace, made at the first call of each shape with that call's own arguments.

What is baked in may change afterwards (FreeU, a submodule exchanged, a hook registered): the UNet then runs untraced, with a
line in the log, until it is as it was.

A trace bakes in Python values, the device and the code path. So there is one for each shape, dtype and device, and for each set
of attention processors, which perturbed attention guidance exchanges for the time of a call. Arguments that choose another path
(ControlNet residuals, IP-Adapter, a LoRA scale) are refused by name when the plan is applied, and run untraced, with a line in
the log, when a call brings them later.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch

from autotune.levers.fingerprint import Fingerprint
from autotune.levers.forwarding import Around
from autotune.upstream import internals, port

__all__ = ["Traced", "untraceable"]

log = logging.getLogger("autotune")

_POSITIONAL = ("sample", "timestep", "encoder_hidden_states")
_ADDED = ("text_embeds", "time_ids")  # what SDXL passes in added_cond_kwargs
_HARMLESS = ("return_dict", "added_cond_kwargs")


def untraceable(pipe: Any, unet: torch.nn.Module) -> str:
    """Why the pipeline's calls would bring what a trace cannot follow; empty if they would not."""
    components = set(port.networks(pipe))
    if any(name.startswith("controlnet") for name in components):
        return "ControlNet residuals change from call to call and a trace takes none"
    if getattr(unet, "encoder_hid_proj", None) is not None:
        return "IP-Adapter passes image embeddings, which a trace does not take"
    if getattr(unet, "peft_config", None):
        return "a LoRA is loaded, and a trace would fix its scale; fuse it first"
    if getattr(unet.config, "time_cond_proj_dim", None) is not None:
        return "guidance is embedded by timestep_cond, which a trace does not take"
    return ""


class _Plain(torch.nn.Module):
    """The UNet with tensors in and a tensor out, which is what `torch.jit` takes."""

    def __init__(self, unet: torch.nn.Module, forward: Callable[..., Any], added: tuple[str, ...]) -> None:
        super().__init__()
        self.unet = unet
        self._forward, self._added = forward, added

    def forward(self, sample: Any, timestep: Any, states: Any, *added: Any) -> Any:
        extra = {"added_cond_kwargs": dict(zip(self._added, added, strict=True))} if self._added else {}
        return self._forward(sample, timestep, states, return_dict=False, **extra)[0]


class Traced(Around):
    """Stands around a UNet's forward: `(batch, channels, height/8, width/8)` in and out, as before."""

    def __init__(self, unet: torch.nn.Module, name: str) -> None:
        super().__init__(unet, mark="trace")
        self._name = name
        self._attentions: list[Any] = [module for module in unet.modules() if hasattr(module, "processor")]
        self._traces: dict[Any, Any] = {}
        self._baked_in: Fingerprint | None = None
        self._said: set[str] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """The same around the module's copy, without traces: those run the original's weights."""
        memo[id(self._traces)], memo[id(self._baked_in)] = {}, None
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[str, Any]:
        """Without traces, which cannot be pickled."""
        return vars(self) | {"_traces": {}, "_baked_in": None}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the trace for these shapes, makes it first if there is none, or runs the UNet itself."""
        call = dict(zip(_POSITIONAL, args, strict=False)) | kwargs
        tensors, why = self._tensors(call)
        why = why and f"the call brings {why}"
        if len(args) > len(_POSITIONAL):
            why = why or "the call brings positional arguments beyond the first three"
        why = why or self._changed()
        if why:
            self._say(why)
            return self.forward(*args, **kwargs)
        added = tuple(name for name in _ADDED if name in (call.get("added_cond_kwargs") or {}))
        shapes = tuple((tuple(t.shape), t.dtype, str(t.device)) for t in tensors)
        kind = tensors[0].device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        key = (shapes, cast, tuple(_described(module.processor) for module in self._attentions))
        if self._baked_in is None:
            self._baked_in = Fingerprint(self.module, processors=False)
        with _optimising(tensors[0].is_cuda):  # fusing takes seconds, and only CUDA has a fuser
            if key not in self._traces:
                self._traces[key] = self._traced(self.forward, tensors, added)
            sample = self._traces[key](*tensors)
        if call.get("return_dict", True):
            return internals.unet_output(sample)
        return (sample,)

    def _changed(self) -> str:
        """What is no longer as it was when the first trace was made; empty if nothing is."""
        if self._baked_in is None:
            return ""
        change = self._baked_in.change()
        return f"since it was traced, {change}" if change else ""

    def _tensors(self, call: Mapping[str, Any]) -> tuple[list[torch.Tensor], str]:
        """The tensors of a call that a trace can take, or the name of what it cannot."""
        known = {*_POSITIONAL, *_HARMLESS}
        strange = next((name for name, value in call.items() if name not in known and not _is_nothing(value)), "")
        added = call.get("added_cond_kwargs") or {}
        strange = strange or next((name for name in added if name not in _ADDED), "")
        if getattr(self.module, "peft_config", None):
            strange = "a LoRA that was loaded later"
        timestep = call["timestep"]
        if not isinstance(timestep, torch.Tensor):
            timestep = torch.tensor(timestep, device=call["sample"].device)
        if timestep.dim():
            strange = strange or "timestep, one for each sample"
        tensors = [call["sample"], timestep, call["encoder_hidden_states"]]
        return [*tensors, *(added[name] for name in _ADDED if name in added)], strange

    def _traced(self, forward: Callable[..., Any], tensors: list[torch.Tensor], added: tuple[str, ...]) -> Any:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter(
                "ignore"
            )  # of Python values that become constants: that is why the shapes are the key
            plain = _Plain(self.module, forward, added)
            plain.training = self.module.training
            return torch.jit.trace(plain, tuple(tensors), check_trace=False)  # type: ignore[no-untyped-call]

    def _say(self, why: str) -> None:
        if why not in self._said:
            self._said.add(why)
            log.warning("%s runs untraced: %s", self._name, why)


def _described(processor: Any) -> Any:
    """What a processor computes: guidance makes new ones of a class at each call. One with weights is none but itself."""
    if isinstance(processor, torch.nn.Module):
        return id(processor)
    plain = (bool, int, float, str, type(None))
    return type(processor), tuple((name, v if isinstance(v, plain) else id(v)) for name, v in vars(processor).items())


def _optimising(wanted: bool) -> Any:
    return torch.jit.optimized_execution(wanted)  # type: ignore[attr-defined]


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and not value)
