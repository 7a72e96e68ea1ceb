"""Placement: where weights wait while they are not needed.

On a card the pipeline's own methods do the work. Without one, model offload runs with device="cpu" and sequential offload
through accelerate component by component (diffusers would ask for "cpu:0", which accelerate does not take): the same hooks,
nothing saved, but every path can be run.
"""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers import _upstream
from autotune.levers.base import Domain, Lever, Subject, Undo, release_cache

__all__ = ["Offload", "take_over"]


class Offload(Lever):
    """Exactly one family per pipeline; hooks that are there already are taken over and given back."""

    name = "offload"
    summary = (
        "weights wait in RAM by component or by leaf module",
        "the card holds one component, or one layer",
        "transfers: a little (model) or a lot (sequential)",
    )

    def domain(self, subject: Subject) -> Domain:
        if subject.device.kind == "cpu":
            return Domain(("none",), "there is no card to keep weights away from")
        refused = [_refusal(subject.pipe, mode) for mode in ("model", "sequential")]
        values = [mode for mode, why in zip(("model", "sequential"), refused, strict=True) if not why]
        return Domain(("none", *values), "; ".join(why for why in refused if why) or "weights can wait in RAM")

    def check(self, subject: Subject, value: Any) -> None:
        why = _refusal(subject.pipe, value)
        if why:
            raise PlanError(f"offload={value!r} cannot be applied: {why}; what works is 'none'")

    def read(self, pipe: Any) -> str:
        return _upstream.placement(pipe)

    def apply(self, subject: Subject, value: Any, *, undo: bool) -> Undo:
        pipe, device = subject.pipe, torch.device(subject.device.torch_device)
        before = _Placement(pipe)
        try:
            if value == "model":
                pipe.enable_model_cpu_offload(device=device)
            elif value == "sequential" and device.type == "cpu":
                _sequential_without_card(pipe)
            elif value == "sequential":
                pipe.to("cpu", silence_dtype_warnings=True)  # diffusers looks at the first network only
                pipe.enable_sequential_cpu_offload(device=device)
            else:
                pipe.to(device, silence_dtype_warnings=True)
        except BaseException:
            before.put_back()
            raise
        release_cache(device)
        return before.put_back


class _Placement:
    """Which tensor objects each module holds and where they lie.

    Offload exchanges parameters for empty ones and, on removal, for new ones: ties would be lost. The objects are kept;
    they share memory with what accelerate keeps, so that costs nothing.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (table, dict(table))
            for part in _upstream.networks(pipe).values()
            for module in part.modules()
            for table in (module._parameters, module._buffers)
            if table
        ]
        tensors = (tensor for _, held in self._tables for tensor in held.values() if tensor is not None)
        self._devices = {id(tensor): (tensor, tensor.device) for tensor in tensors}

    def put_back(self) -> None:
        """Hooks off, the same objects where they were."""
        _upstream.forget_hooks(self._pipe)
        for table, held in self._tables:
            table.clear()
            table.update(held)
        left = {tensor.device for tensor, device in self._devices.values() if tensor.device != device}
        for tensor, device in self._devices.values():
            if tensor.device != device:
                tensor.data = tensor.data.to(device)
        for device in left:
            release_cache(device)


def _sequential_without_card(pipe: Any) -> None:
    import accelerate

    pipe.remove_all_hooks()
    for name, part in _upstream.networks(pipe).items():
        if name not in _upstream.excluded_from_offload(pipe):
            accelerate.cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)


def _refusal(pipe: Any, mode: str) -> str:
    """Why the pipeline cannot be offloaded so; empty if it can."""
    if getattr(pipe, "hf_device_map", None):
        return "the pipeline is spread by a device map; call pipe.reset_device_map() first" if mode != "none" else ""
    if mode == "model" and pipe.model_cpu_offload_seq is None:
        return f"{type(pipe).__name__} declares no order for model offload"
    if mode == "sequential":
        for name, part in _upstream.networks(pipe).items():
            if any(hasattr(module, "weight_g") for module in part.modules()):
                return f"{name} uses weight_norm, which sequential offload cannot empty"
    return ""


def take_over(pipe: Any) -> Undo:
    """Takes off the offload the user had enabled; the undo enables it again on the same device."""
    mode, device = _upstream.placement(pipe), _upstream.placement_device(pipe)
    if mode == "group":
        raise PlanError(
            "the pipeline is group-offloaded, which cannot be taken over yet; load it without group offload"
        )
    if mode == "none":
        return lambda: None
    mapped = [name for name, part in _upstream.networks(pipe).items() if getattr(part, "hf_device_map", None)]
    if mapped and device is None:
        raise PlanError(
            f"{mapped[0]} was loaded with a device map, which cannot be taken over; load it without device_map"
        )
    before = {name: _upstream.is_sequential(part) for name, part in _upstream.networks(pipe).items()}
    _upstream.forget_hooks(pipe)

    def enable_again() -> None:
        if mode == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif device is not None and device.type != "cpu":
            pipe.enable_sequential_cpu_offload(device=device)
        else:
            _sequential_again(pipe, before)

    return enable_again


def _sequential_again(pipe: Any, offloaded: dict[str, bool]) -> None:
    import accelerate

    for name, part in _upstream.networks(pipe).items():
        if offloaded[name]:
            accelerate.cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)
