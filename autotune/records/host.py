"""The machine around the card."""

from __future__ import annotations

from typing import Literal

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
    cores: int | None = None
    """Cores this process may use; None for a machine that is not here."""
    os: str = ""
    """Operating system and release; empty for a machine that is not here."""
    source: Literal["measured", "stated", "assumed"] = "measured"
    """This machine's RAM; or that of a machine that is not here, as its owner says, or as usual beside such a card."""
    wsl: bool = False
    """Windows Subsystem for Linux: no per-process VRAM figure, and the driver may spill to RAM silently."""
    packages: dict[str, str] = {}
    """Versions of the installed packages that decide what can run: torch, diffusers, xformers and so on."""

    @property
    def assumed(self) -> bool:
        """Whether nobody said how much RAM it has."""
        return self.source == "assumed"
