"""What is remembered between calls: a front and the keys it is found by."""

from __future__ import annotations

from typing import Final, Literal

from autotune.records.base import Record
from autotune.records.front import Front

__all__ = ["SCHEMA_VERSION", "Profile", "ProfileKey"]

SCHEMA_VERSION: Final = 2


class ProfileKey(Record):
    """What makes two searches the same search."""

    structural: str
    """The model's structural key."""
    gpu: str
    """Normalised device name and memory, for example "nvidia-geforce-rtx-3060-12gb"."""
    workload: str
    """Hash of everything in the workload that changes the estimate."""
    options: str
    """Hash of the lanes and approximations that were searched, and of `undo`."""


class Profile(Record):
    """One file on disk. The key inside decides; the file's name is a label."""

    schema_version: Literal[2] = SCHEMA_VERSION
    """Raised when a field changes its meaning; other versions are a miss."""
    key: ProfileKey
    """What this profile answers."""
    aliases: tuple[str, ...] = ()
    """Source keys that lead to the same model."""
    versions: dict[str, str]
    """Versions of autotune and of the libraries whose code was traced."""
    front: Front
    """The front, from which any cap is answered."""
    planned_s: float | None = None
    """How long it took to make."""
