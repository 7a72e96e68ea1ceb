"""Caps: what was asked, what is there, and the smaller of the two."""

from __future__ import annotations

from autotune.records.base import Record
from autotune.records.device import Device
from autotune.records.host import Host
from autotune.units import parse_bytes, size

__all__ = ["Budget", "budget_for"]


class Budget(Record):
    """What a plan may use. `ram_bytes` is None for a machine that is not this one."""

    vram_bytes: int
    """Ceiling of the process on the device."""
    ram_bytes: int | None
    """Ceiling of weights in RAM."""
    note: str = ""
    """How a cap was clamped, in one line."""


def budget_for(device: Device, host: Host | None, *, max_vram: str | int | None, max_ram: str | int | None) -> Budget:
    """The caps for a device; `host` is None when planning for a card that is not here.

    A cap above the card, or above what is free now, is clamped. Without one, all that is free may be used: every estimate
    carries its own margin.

    Raises:
        BadSizeError: a cap that is not a size.
    """
    asked = None if max_vram is None else parse_bytes(max_vram, name="max_vram")
    asked_ram = None if max_ram is None else parse_bytes(max_ram, name="max_ram")
    there = device.total_bytes if device.free_bytes is None else min(device.free_bytes, device.total_bytes)
    what = f"{device.name} has" if device.free_bytes is None else f"{device.name} has free"
    note = ""
    if asked is not None and asked > there:
        note = f"max_vram={size(asked)} is more than {what} ({size(there)}): planned for {size(there)}"
    free_ram = None if host is None else host.ram_available_bytes
    ram = asked_ram if free_ram is None else min(asked_ram or free_ram, free_ram)
    return Budget(vram_bytes=there if asked is None else min(asked, there), ram_bytes=ram, note=note)
