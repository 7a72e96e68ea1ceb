"""Measurements as files: one a card, one line a call, the latest 200.

A file lies at `<folder>/<card>.jsonl`. Its name is a label for people: the record inside says which card it is of.

- A line that is no measurement is skipped, with one warning a file. It stays until newer lines have taken its place.
- A file that is too large, or no file, is left as it is: nothing is read from it and nothing is added.
- A folder that cannot be written to keeps nothing, with one warning.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from autotune.records.device import Device
from autotune.records.measurement import Measurement
from autotune.store import files
from autotune.store.bundled import cache_directory
from autotune.store.key import slug
from autotune.units import GIB, MB

__all__ = ["MeasurementStore"]

_log = logging.getLogger("autotune")
_KEPT = 200
_LARGEST_BYTES = 2 * MB  # a line is about 1 kB
_LOCK_TIMEOUT_S = 1.0  # somebody waits for an image


class MeasurementStore:
    """Keeps measurements in `folder`; below the user's cache if None.

    >>> from pathlib import Path
    >>> from autotune.probe.gpu import cpu_device
    >>> MeasurementStore(Path("no-such-folder")).find(cpu_device())
    []
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or cache_directory().with_name("measurements")
        self._told: set[Path] = set()

    def find(self, device: Device) -> list[Measurement]:
        """The calls that were measured on that card, the oldest first."""
        path = self._path(device.name, device.total_bytes)
        found = [call for line in self._lines(path) if (call := self._read(path, line)) is not None]
        card = (device.name, _gib(device.total_bytes))
        return [call for call in found if (call.card, _gib(call.total_bytes)) == card]

    def add(self, measurement: Measurement) -> Path | None:
        """Keeps one more call, and of all the latest 200; None, with one warning, where that cannot be."""
        from filelock import FileLock

        path = self._path(measurement.card, measurement.total_bytes)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock", timeout=_LOCK_TIMEOUT_S):
                lines = [*_lines_of(path), measurement.model_dump_json().encode()]
                files.write(path, b"".join(line + b"\n" for line in lines[-_KEPT:]))
        except (OSError, NotImplementedError) as error:
            why = files.reason(error, what="measurements")
            self._warn(path, f"what was measured is not kept in {self._folder}: {why}")
            return None
        return path

    def _path(self, name: str, total_bytes: int) -> Path:
        return self._folder / f"{slug(name)}-{_gib(total_bytes)}gib.jsonl"

    def _lines(self, path: Path) -> list[bytes]:
        try:
            return _lines_of(path)[-_KEPT:]
        except OSError as error:
            why = files.reason(error, what="measurements")
            self._warn(path, f"{path} is ignored: {why}. It is kept as it is; remove it to learn anew")
            return []

    def _read(self, path: Path, line: bytes) -> Measurement | None:
        try:
            return Measurement.model_validate_json(line)
        except ValidationError:
            self._warn(path, f"{path} has lines that are no measurements; they are skipped")
            return None

    def _warn(self, path: Path, message: str) -> None:
        if path not in self._told:
            self._told.add(path)
            _log.warning("%s", message)


def _gib(total_bytes: int) -> int:
    """Whole GiB: drivers differ by some MB in what they say a card has."""
    return round(total_bytes / GIB)


def _lines_of(path: Path) -> list[bytes]:
    """The file's lines; none where there is no file."""
    try:
        data = files.read(path, most_bytes=_LARGEST_BYTES, what="measurements")
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [line for line in data.split(b"\n") if line.strip()]
