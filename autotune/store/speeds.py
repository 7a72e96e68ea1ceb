"""What cards were measured to sustain, as files: one for each card, torch's minor version and driver.

A file lies at `<folder>/<card>--<torch>.json`. Its name is a label for people: the key inside decides. A file that is no speed,
or says what no device does, is a miss, with one warning; it stays as it is until the card is measured again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import date
from math import isfinite
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError, field_validator

from autotune.records.base import Record
from autotune.records.device import Device
from autotune.records.speed import Speed
from autotune.store import files
from autotune.store.bundled import cache_directory
from autotune.store.key import slug, versions
from autotune.units import GIB, MB

__all__ = ["SCHEMA_VERSION", "MeasuredSpeed", "SpeedKey", "SpeedStore", "speed_key"]

SCHEMA_VERSION: Final = 1

_LARGEST_BYTES = MB
_LOCK_TIMEOUT_S = 10.0
# Wide enough for what is yet to come: a wafer computes at 1e17, an operator of the slowest interpreter takes milliseconds.
_LEAST_RATE, _LARGEST_RATE, _LARGEST_S = 1e3, 1e20, 1.0

_log = logging.getLogger("autotune")


class SpeedKey(Record):
    """What makes two measurements those of the same thing."""

    card: str
    """The device's name."""
    memory_gib: int
    """Whole GiB of it, for drivers differ by some MB in what they say; 0 for the CPU, whose RAM does not make it faster."""
    compute_capability: tuple[int, int] | None
    """None for the CPU."""
    fp32_flops_per_s: float | None
    """The CPU's assumed rate, which tells how many cores it has; None for cards."""
    torch_version: str
    """Its major and minor version: another one brings other kernels."""
    driver: str | None
    """Driver version, where it is known."""


class MeasuredSpeed(Record):
    """One file on disk."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Raised when a field changes its meaning; other versions are a miss."""
    key: SpeedKey
    """What was measured."""
    day: date
    """When, in UTC."""
    speed: Speed = Field(repr=False)
    """What it sustains."""

    @field_validator("speed")
    @classmethod
    def _possible(cls, speed: Speed) -> Speed:
        """Rates and seconds that a device can have: others would become nonsense, or a division by zero, far from here."""
        for name, value in _figures(speed):
            least, most = (_LEAST_RATE, _LARGEST_RATE) if name.endswith("_per_s") else (0.0, _LARGEST_S)
            if not isfinite(value) or not least <= value <= most:
                raise ValueError(f"{name} is {value}, which no device does")
        for table in (speed.products_flops_per_s, speed.convolutions_flops_per_s):
            if "float32" not in table:
                raise ValueError("there is no rate for float32, which every device computes")
        if not speed.attention_flops_per_s:
            raise ValueError("there is no rate for any attention")
        return speed


def speed_key(device: Device) -> SpeedKey:
    """The key of a device that is here.

    >>> from autotune.probe.gpu import cpu_device
    >>> speed_key(cpu_device()).card
    'CPU'
    """
    is_cpu = device.kind == "cpu"
    return SpeedKey(
        card=device.name,
        memory_gib=0 if is_cpu else round(device.total_bytes / GIB),
        compute_capability=device.compute_capability,
        fp32_flops_per_s=device.fp32_flops_per_s if is_cpu else None,
        torch_version=".".join(versions().get("torch", "unknown").split(".")[:2]),
        driver=device.driver,
    )


class SpeedStore:
    """Keeps speeds in `folder`; beside this user's profiles if None.

    >>> from autotune.probe.gpu import cpu_device
    >>> SpeedStore(Path("no-such-folder")).find(cpu_device()) is None
    True
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_directory().with_name("speeds")

    def find(self, device: Device) -> MeasuredSpeed | None:
        """What was measured on that card, under this torch and driver; None if nothing was."""
        key = speed_key(device)
        path = self._path(key)
        try:
            measured = MeasuredSpeed.model_validate_json(files.read(path, most_bytes=_LARGEST_BYTES, what="a speed"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError) as error:
            _log.warning(
                "%s is ignored: %s. Measure anew with `autotune probe --calibrate`",
                path,
                files.reason(error, what="speed"),
            )
            return None
        return measured if measured.key == key else None

    def save(self, device: Device, speed: Speed, day: date) -> Path | None:
        """Writes what was measured in place of what was before; None, with one warning, where that cannot be."""
        from filelock import FileLock

        key = speed_key(device)
        path = self._path(key)
        text = MeasuredSpeed(key=key, day=day, speed=speed).model_dump_json(indent=2)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock", timeout=_LOCK_TIMEOUT_S):
                files.write(path, f"{text}\n".encode())
        except (OSError, NotImplementedError) as error:
            reason = files.reason(error, what="speed")
            _log.warning(
                "speed of %s not saved in %s: %s; the next call does not know it", key.card, self._folder, reason
            )
            return None
        return path

    def _path(self, key: SpeedKey) -> Path:
        size = f"-{key.memory_gib}gib" if key.memory_gib else ""
        beside = "-".join(
            part for part in (f"torch-{key.torch_version}", key.driver and f"driver-{key.driver}") if part
        )
        return self._folder / f"{slug(key.card)}{size}--{slug(beside)}.json"


def _figures(speed: Speed) -> Iterator[tuple[str, float]]:
    """All numbers with the name that tells their unit."""
    for name, value in speed.model_dump(exclude={"source"}).items():
        yield from ((name, each) for each in (value.values() if isinstance(value, dict) else (value,)))
