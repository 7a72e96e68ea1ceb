"""Caps: what was asked, what is there, and the smaller of the two. RAM is always one of them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from autotune.probe.assumed import assumed_ram_bytes
from autotune.records.base import Record
from autotune.records.device import Device
from autotune.records.host import Host
from autotune.units import parse_bytes, size

__all__ = ["Budget", "Held", "assumed_host", "budget_for", "held_by"]

_LEAST_BYTES = 1000  # a cap that still is a size: nothing fits under it


class Budget(Record):
    """What a plan may use."""

    vram_bytes: int
    """Ceiling of the process on the device."""
    ram_bytes: int
    """Ceiling of weights in RAM."""
    ram_option: Literal["max_ram", "ram"] = "max_ram"
    """The argument that sets that ceiling."""
    ram_assumed: bool = False
    """Whether nobody said it, and the machine is not here."""
    note: str = ""
    """How a cap was clamped, in one line."""


class Held(NamedTuple):
    """What a pipeline's weights take already: not free, but a plan may use it."""

    device_bytes: int
    ram_bytes: int
    others_bytes: int = 0
    """What other tensors of this process take of the device: the cap is the process's, so they come off it."""


def held_by(pipe: Any, device: Device) -> Held:
    """What the weights of a pipeline take now; a model that is only a name holds nothing."""
    if not hasattr(pipe, "components"):
        return Held(0, 0, _allocated_bytes(device))
    from autotune.upstream.port import networks
    from autotune.upstream.weight_hooks import is_hooked

    parts = networks(pipe).values()
    weights = {id(tensor): tensor for part in parts for tensor in (*part.parameters(), *part.buffers())}
    sizes = {device.torch_device: 0, "cpu": 0}
    offloaded = any(is_hooked(module) for part in parts for module in part.modules())
    for tensor in weights.values():
        where = "cpu" if tensor.device.type == "meta" and offloaded else str(tensor.device)  # accelerate has it in RAM
        if where in sizes:
            sizes[where] += tensor.numel() * tensor.itemsize
    held_bytes = sizes[device.torch_device]
    return Held(held_bytes, sizes["cpu"], max(0, _allocated_bytes(device) - held_bytes))


def _allocated_bytes(device: Device) -> int:
    """All tensors of this process on the card; a CUDA that nobody has used yet is left alone."""
    if device.kind == "cpu" or device.free_bytes is None:
        return 0
    import torch

    return torch.cuda.memory_allocated(device.torch_device) if torch.cuda.is_initialized() else 0  # type: ignore[no-untyped-call]


def assumed_host(device: Device, ram: str | int | None) -> Host:
    """The machine around a card that is not here: with the RAM that was stated, else as much as is usual beside such a card.

    Raises:
        BadSizeError: a RAM that is not a size.

    >>> from autotune.probe.catalog import card
    >>> assumed_host(card("RTX 4060"), None).ram_available_bytes, assumed_host(card("RTX 4060"), "16GB").source
    (32000000000, 'stated')
    """
    ram_bytes = assumed_ram_bytes(device) if ram is None else parse_bytes(ram, name="ram")
    if device.shares_ram:
        ram_bytes = min(ram_bytes, device.total_bytes)
    source: Any = "assumed" if ram is None else "stated"
    return Host(ram_total_bytes=ram_bytes, ram_available_bytes=ram_bytes, source=source)


def budget_for(
    device: Device,
    host: Host,
    *,
    max_vram: str | int | None,
    max_ram: str | int | None,
    held: Held = Held(0, 0),  # noqa: B008 - immutable
) -> Budget:
    """The caps for a device in a machine.

    A cap above the card, or above what is free now, is clamped. Without one, all that is free may be used: every estimate
    carries its own margin.

    Raises:
        BadSizeError: a cap that is not a size.
    """
    asked = None if max_vram is None else parse_bytes(max_vram, name="max_vram")
    asked_ram = None if max_ram is None else parse_bytes(max_ram, name="max_ram")
    there, what = device.total_bytes, f"{device.name} has"
    if device.free_bytes is not None:
        there, what = min(device.free_bytes + held.device_bytes, device.total_bytes), f"{device.name} has free"
    note = ""
    if asked is not None and asked > there:
        note = f"max_vram={size(asked)} is more than {what} ({size(there)}): planned for {size(there)}"
    free_ram = host.ram_available_bytes + held.ram_bytes
    ram = min(asked_ram or free_ram, free_ram)
    if host.assumed and asked_ram is not None:
        ram = asked_ram  # the only thing that is known of that machine
    cap = there if asked is None else min(max(asked - held.others_bytes, _LEAST_BYTES), there)
    option: Any = "ram" if asked_ram is None and host.source != "measured" else "max_ram"
    return Budget(
        vram_bytes=cap, ram_bytes=ram, ram_option=option, ram_assumed=option == "ram" and host.assumed, note=note
    )
