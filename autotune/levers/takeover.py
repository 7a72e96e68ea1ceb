"""What a pipeline's owner had set up before: taken off before a plan is applied, and put on again by `restore`.

Model, sequential and group offload, for the whole pipeline or by hand for some networks, and a device map onto one device.
Several devices are refused: the weights of one pipeline on several cards are not ours to gather. So is what waits on disk:
who put it there has no RAM for it.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any
from weakref import ref

import torch

from autotune.errors import PlanError
from autotune.levers.base import is_same_device
from autotune.levers.journal import Journal, Slot
from autotune.levers.placed import Functions, Tables
from autotune.records.device import Device
from autotune.upstream import groups, port, weight_hooks

__all__ = ["Taken", "device_map_refusal", "elsewhere", "sequential_without_card", "take_over"]

log = logging.getLogger("autotune")


def take_over(pipe: Any, journal: Journal) -> tuple[Taken, ...]:
    """Takes off the placement that the owner had; the undo puts it on again, on the same devices.

    Returns:
        What was taken off: a plan that leaves placement as found puts it on again, over what it has changed.

    Raises:
        PlanError: a device map over several devices, or weights that wait on disk.
    """
    why = device_map_refusal(pipe) or _disk_refusal(pipe)
    if why:
        raise PlanError(why)
    there = tuple(taken for taken in (_Groups(pipe), _Hooks(pipe)) if taken.is_there)
    for taken in there:
        journal.push(taken.give_back, taken.was)
        taken.take_off()
    _unmap(pipe, journal)
    return there


def elsewhere(pipe: Any, device: Device) -> torch.device | None:
    """Where the owner's offload brings weights, if that is another device than this one, which is here."""
    if not device.is_here:
        return None
    planned = torch.device(device.torch_device)
    there = {one for taken in (_Groups(pipe), _Hooks(pipe)) if taken.is_there for one in taken.devices}
    return next((one for one in there if not is_same_device(one, planned)), None)


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


def _unmap(pipe: Any, journal: Journal) -> None:
    """One device: what the map did is what a plan does itself."""
    before = _maps(pipe)
    holders = {"": pipe, **port.networks(pipe)}
    if before:
        log.info("the device map is set aside while the plan is applied; restore brings it back")
    for name in before:
        journal.set(holders[name], "hf_device_map", None)


class Taken(ABC):
    """A placement of the owner's that was taken off."""

    @property
    @abstractmethod
    def parts(self) -> frozenset[torch.nn.Module]:
        """The networks that it places."""

    @property
    @abstractmethod
    def devices(self) -> frozenset[torch.device]:
        """Where it brings weights."""

    @abstractmethod
    def put_on(self, but: Collection[torch.nn.Module] = ()) -> None:
        """The same again over the weights that are there now, but for some networks."""


class _Groups(Taken):
    """Group offload of the owner's, network by network."""

    def __init__(self, pipe: Any) -> None:
        configs = {part: groups.group_config(part) for part in port.networks(pipe).values()}
        self._configs = {part: config for part, config in configs.items() if config is not None}
        self._found = Functions(tuple(self._configs))
        self._bare: Functions | None = None

    @property
    def is_there(self) -> bool:
        """Whether any network is offloaded so."""
        return bool(self._configs)

    def was(self) -> list[Slot]:
        """The functions and registries that stood there."""
        return self._found.slots()

    def take_off(self) -> None:
        """Away with the groups."""
        for part in self._configs:
            groups.ungroup(part)

    def give_back(self) -> None:
        """The same settings again, from whatever state an interruption has left."""
        if self._bare is None:
            self.take_off()
            self._bare = Functions(tuple(self._configs))
        self._bare.put_back()
        self.put_on()

    @property
    def parts(self) -> frozenset[torch.nn.Module]:
        return frozenset(self._configs)

    @property
    def devices(self) -> frozenset[torch.device]:
        return frozenset(torch.device(config.onload_device) for config in self._configs.values())

    def put_on(self, but: Collection[torch.nn.Module] = ()) -> None:
        for part, config in self._configs.items():
            if part not in but:
                groups.regroup(part, config)


class _Hooks(Taken):
    """Hooks of accelerate's, whoever hung them. Those that load weights on call are made anew, for by then the network may have
    others, such as a LoRA's; the rest hold none and are hung again as they were."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._parts = ref(pipe), tuple(port.networks(pipe).values())
        self._hooks = [pair for part in self._parts for pair in weight_hooks.hooks_of(part)]
        self._streams = [stream for part in self._parts for stream in weight_hooks.streams_of(part)]
        self._guards = [guard for part in self._parts for guard in weight_hooks.guards_of(part)]
        self._remembered = weight_hooks.offload_remembered(pipe)
        self._found = Functions(self._parts if self._hooks else ())
        self._weights: Tables | None = None

    @property
    def is_there(self) -> bool:
        """Whether any network has such a hook."""
        return bool(self._hooks)

    def was(self) -> list[Slot]:
        """The hooks that hung there. Weights that waited in them are shown in their places."""
        remembered = [Slot(vars(self._pipe()), name, value) for name, value in self._remembered.items()]
        return [*remembered, *self._found.slots()]

    def take_off(self) -> None:
        """Away with the hooks; weights that waited in them are in their places again."""
        weight_hooks.forget_hooks(self._pipe(), self._parts)
        for root, _, _ in self._streams:
            weight_hooks.tie_again(root)

    def give_back(self) -> None:
        """The same hooks again, from whatever state an interruption has left: what it emptied is filled first."""
        self.take_off()
        if self._weights is None:
            self._weights = Tables(self._parts)
        self._weights.fill()
        self.put_on()

    @property
    def parts(self) -> frozenset[torch.nn.Module]:
        hooked = {module for module, _ in self._hooks} | {root for root, _, _ in self._streams}
        return frozenset(part for part in self._parts if not hooked.isdisjoint(part.modules()))

    @property
    def devices(self) -> frozenset[torch.device]:
        named = (getattr(hook, "execution_device", None) for _, hook in self._hooks)
        streams = (device for _, device, _ in self._streams)
        return frozenset(torch.device(device) for device in (*named, *streams) if device is not None)

    def put_on(self, but: Collection[torch.nn.Module] = ()) -> None:
        left = {module for part in but for module in part.modules()}
        streamed = left | {module for root, _, _ in self._streams for module in root.modules()}
        for module, hook in self._hooks:
            if module not in streamed:
                weight_hooks.put_hook(module, hook)
        for root, device, buffers in self._streams:
            if root not in left:
                weight_hooks.stream(root, device, buffers=buffers)
        for module, attributes in self._guards:
            module.__dict__.update(attributes)
        self._pipe().__dict__.update(self._remembered)


def sequential_without_card(pipe: Any, names: list[str]) -> None:
    """Sequential offload on the CPU, where diffusers would ask accelerate for "cpu:0" and fail (docs/upstream.md)."""
    for name, part in port.networks(pipe).items():
        if name in names:
            weight_hooks.stream(part, torch.device("cpu"), buffers=len(part._parameters) > 0)
