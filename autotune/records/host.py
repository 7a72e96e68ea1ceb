"""The machine around the card."""

from __future__ import annotations

from autotune.records.base import Record

__all__ = ["Host"]


class Host(Record):
    """Facts about this machine. Sizes in bytes."""

    ram_total_bytes: int
    """Physical memory, or the cgroup's limit where that is smaller."""
    ram_available_bytes: int
    """What a new allocation can take without swapping, within the cgroup's limit."""
    cgroup_limit_bytes: int | None = None
    """The container's memory limit; None where there is none."""
    cores: int
    """Cores this process may use."""
    os: str
    """Operating system and release."""
    wsl: bool = False
    """Windows Subsystem for Linux: no per-process VRAM figure, and the driver may spill to RAM silently."""
    packages: dict[str, str] = {}
    """Versions of the installed packages that decide what can run: torch, diffusers, xformers and so on."""
    assumed: bool = False
    """Whether this is a guess, for a card that is not here."""
