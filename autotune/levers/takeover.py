"""What a pipeline's owner had set up before: taken off before a plan is applied, and put on again by `restore`.

Model, sequential and group offload, and a device map onto one device. Several devices are refused: the weights of one pipeline
on several cards are not ours to gather.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers import _upstream
from autotune.levers.base import Undo, nothing

__all__ = ["device_map_refusal", "sequential_without_card", "take_over"]

log = logging.getLogger("autotune")


def take_over(pipe: Any) -> Undo:
    """Takes off the placement that the owner had; the undo puts it on again, on the same device.

    Raises:
        PlanError: a device map over several devices.
    """
    why = device_map_refusal(pipe)
    if why:
        raise PlanError(why)
    if _maps(pipe):
        return _unmapped(pipe)
    mode = _upstream.placement(pipe)
    if mode == "group":
        return _ungrouped(pipe)
    return nothing if mode == "none" else _unhooked(pipe, mode)


def device_map_refusal(pipe: Any) -> str:
    """Why the pipeline's device map cannot be taken over; empty if it can, or if there is none."""
    devices = {str(device) for table in _maps(pipe).values() for device in table.values()}
    if len(devices) < 2:
        return ""
    return (
        f"the pipeline is spread over {', '.join(sorted(devices))} by a device map, which is not supported; "
        "load it without device_map, or call pipe.reset_device_map() first"
    )


def _maps(pipe: Any) -> dict[str, dict[str, Any]]:
    """The device maps of the pipeline ("") and of its networks."""
    holders = {"": pipe, **_upstream.networks(pipe)}
    maps = {name: getattr(holder, "hf_device_map", None) for name, holder in holders.items()}
    return {name: dict(table) for name, table in maps.items() if table}


def _unmapped(pipe: Any) -> Undo:
    """One device: what the map did is what a plan does itself."""
    holders = {"": pipe, **_upstream.networks(pipe)}
    before = {name: holders[name].hf_device_map for name in _maps(pipe)}
    hooks = [pair for part in _upstream.networks(pipe).values() for pair in _upstream.hooks_of(part)]
    all_hooks = pipe.__dict__.get("_all_hooks")
    log.info("the device map is set aside while the plan is applied; restore brings it back")
    _upstream.forget_hooks(pipe)
    for name in before:
        holders[name].hf_device_map = None

    def map_again() -> None:
        for name, table in before.items():
            holders[name].hf_device_map = table
        for module, hook in hooks:
            _upstream.put_hook(module, hook)
        if all_hooks is not None:
            pipe.__dict__["_all_hooks"] = all_hooks

    return map_again


def _ungrouped(pipe: Any) -> Undo:
    configs = {name: _upstream.ungroup(part) for name, part in _upstream.networks(pipe).items()}

    def group_again() -> None:
        for name, part in _upstream.networks(pipe).items():
            if configs.get(name) is not None:
                _upstream.regroup(part, configs[name])

    return group_again


def _unhooked(pipe: Any, mode: str) -> Undo:
    device = _upstream.placement_device(pipe)
    before = {name: _upstream.is_sequential(part) for name, part in _upstream.networks(pipe).items()}
    _upstream.forget_hooks(pipe)

    def enable_again() -> None:
        if mode == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif device is not None and device.type != "cpu":
            pipe.enable_sequential_cpu_offload(device=device)
        else:
            sequential_without_card(pipe, [name for name, offloaded in before.items() if offloaded])

    return enable_again


def sequential_without_card(pipe: Any, names: list[str]) -> None:
    """Sequential offload on the CPU, where diffusers would ask accelerate for "cpu:0" and fail (docs/upstream.md)."""
    import accelerate

    for name, part in _upstream.networks(pipe).items():
        if name in names:
            accelerate.cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)
