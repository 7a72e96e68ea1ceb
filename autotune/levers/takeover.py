"""What a pipeline's owner had set up before: taken off before a plan is applied, and put on again by `restore`.

Model, sequential and group offload, for the whole pipeline or by hand for some networks, and a device map onto one device.
Several devices are refused: the weights of one pipeline on several cards are not ours to gather. So is what waits on disk:
who put it there has no RAM for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Undo, nothing
from autotune.upstream import groups, port, weight_hooks

__all__ = ["device_map_refusal", "sequential_without_card", "take_over"]

log = logging.getLogger("autotune")


def take_over(pipe: Any) -> Undo:
    """Takes off the placement that the owner had; the undo puts it on again, on the same devices.

    Raises:
        PlanError: a device map over several devices, or weights that wait on disk.
    """
    why = device_map_refusal(pipe) or _disk_refusal(pipe)
    if why:
        raise PlanError(why)
    undos = [_ungrouped(pipe), _unhooked(pipe), _unmapped(pipe)]

    def give_back() -> None:
        for undo in reversed(undos):
            undo()

    return give_back


def device_map_refusal(pipe: Any) -> str:
    """Why the pipeline's device map cannot be taken over; empty if it can, or if there is none."""
    tables = (table if isinstance(table, Mapping) else {"": table} for table in _maps(pipe).values())
    devices = {_device_named(device) for table in tables for device in table.values()}
    if len(devices) < 2:
        return ""
    return (
        f"the pipeline is spread over {', '.join(sorted(devices))} by a device map, which is not supported; "
        "load it without device_map, or call pipe.reset_device_map() first"
    )


def _device_named(device: Any) -> str:
    """One name for a device: a map may call the first card 0, "cuda" or "cuda:0"."""
    name = f"cuda:{device}" if isinstance(device, int) else str(device)
    return "cuda:0" if name == "cuda" else name


def _disk_refusal(pipe: Any) -> str:
    name = next((name for name, part in port.networks(pipe).items() if weight_hooks.waits_on_disk(part)), "")
    return (
        f"{name} is offloaded to disk, which cannot be taken over; load it without that and give max_ram"
        if name
        else ""
    )


def _maps(pipe: Any) -> dict[str, Any]:
    """The device maps of the pipeline ("") and of its networks: tables, or the one device that the pipeline was loaded to."""
    holders = {"": pipe, **port.networks(pipe)}
    maps = {name: getattr(holder, "hf_device_map", None) for name, holder in holders.items()}
    return {name: table for name, table in maps.items() if table}


def _unmapped(pipe: Any) -> Undo:
    """One device: what the map did is what a plan does itself."""
    before = _maps(pipe)
    if not before:
        return nothing
    holders = {"": pipe, **port.networks(pipe)}
    log.info("the device map is set aside while the plan is applied; restore brings it back")
    for name in before:
        holders[name].hf_device_map = None

    def map_again() -> None:
        for name, table in before.items():
            holders[name].hf_device_map = table

    return map_again


def _ungrouped(pipe: Any) -> Undo:
    configs = {name: groups.ungroup(part) for name, part in port.networks(pipe).items()}

    def group_again() -> None:
        for name, part in port.networks(pipe).items():
            if configs.get(name) is not None:
                groups.regroup(part, configs[name])

    return group_again


def _unhooked(pipe: Any) -> Undo:
    """Hooks of accelerate's, whoever hung them. Those that load weights on call are made anew, for by then the network may have
    others, such as a LoRA's; the rest hold none and are hung again as they were."""
    parts = port.networks(pipe).values()
    hooks = [pair for part in parts for pair in weight_hooks.hooks_of(part)]
    if not hooks:
        return nothing
    streams = [stream for part in parts for stream in weight_hooks.streams_of(part)]
    streamed = {module for root, _, _ in streams for module in root.modules()}
    guards = [guard for part in parts for guard in weight_hooks.guards_of(part)]
    remembered = weight_hooks.offload_remembered(pipe)
    weight_hooks.forget_hooks(pipe)
    for root, _, _ in streams:
        weight_hooks.tie_again(root)

    def hook_again() -> None:
        for module, hook in hooks:
            if module not in streamed:
                weight_hooks.put_hook(module, hook)
        for root, device, buffers in streams:
            weight_hooks.stream(root, device, buffers=buffers)
        for module, attributes in guards:
            module.__dict__.update(attributes)
        pipe.__dict__.update(remembered)

    return hook_again


def sequential_without_card(pipe: Any, names: list[str]) -> None:
    """Sequential offload on the CPU, where diffusers would ask accelerate for "cpu:0" and fail (docs/upstream.md)."""
    for name, part in port.networks(pipe).items():
        if name in names:
            weight_hooks.stream(part, torch.device("cpu"), buffers=len(part._parameters) > 0)
