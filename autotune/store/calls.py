"""Traced calls as files: one each, named by its key, in one folder of limited size. Many processes may read and write it.

A user's key is made of the model, its call, the versions of the libraries that were traced, our own code and the packages that
levers ask for, so that whatever changes is a miss. What ships has a key without versions and code, which it says inside: it is
a miss where autotune, torch or diffusers have another minor version. A broken file is a miss with one warning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autotune.records.kept import KEPT_VERSION, KeptCall
from autotune.records.workload import Workload
from autotune.store import files
from autotune.store.bundled import cache_directory, shipped_directory
from autotune.store.key import hash_options, other_versions, versions
from autotune.store.traces import Arrays, facts_in, read, written
from autotune.units import MB

__all__ = ["CallStore", "calls_directory", "key_of", "shipped_calls", "shipped_key"]

_log = logging.getLogger("autotune")
_LARGEST_BYTES = 128 * MB
_MOST_BYTES = 512 * MB
_LOCK_TIMEOUT_S = 5.0
_ABANDONED_S = 3600.0  # the age at which what a killed process was writing is swept away
_KERNELS = ("xformers", "flash_attn", "flash_attn_interface", "sageattention", "kernels")


def calls_directory() -> Path:
    """Where this user's traced calls are kept."""
    return cache_directory().with_name("calls")


def shipped_calls() -> Path | None:
    """Where those lie that came with autotune."""
    shipped = shipped_directory()
    return None if shipped is None else shipped / "calls"


def key_of(source_key: str, workload: Workload) -> str:
    """The key of a call of the model with that source.

    >>> len(key_of("1f0c", Workload(height=512, width=512)))
    16
    """
    compiles = {"triton": _is_there("triton"), "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "")}
    return _key(source_key, workload, {"versions": versions(), "code": _code(), **compiles})


def shipped_key(source_key: str, workload: Workload) -> str:
    """The same of a call that ships, whose file says by which versions it was made."""
    return _key(source_key, workload, {})


def _key(source_key: str, workload: Workload, made_by: dict[str, Any]) -> str:
    asked = {"source": source_key, "workload": workload.key.model_dump(exclude_defaults=True)}
    return hash_options({**asked, **made_by, "kernels": _kernels(), "kept_version": KEPT_VERSION})


@cache
def _code() -> str:
    """Of each of our files when it was written last and how large it is: what an upgrade, a pull or an editor changes."""
    root = Path(__file__).parent.parent
    seen = hashlib.sha256()
    for path in sorted(path for kind in ("*.py", "*.json") for path in root.rglob(kind)):
        with suppress(OSError):  # an editor's lock, or gone since the folder was listed
            status = path.stat()
            seen.update(f"{path.relative_to(root)} {status.st_mtime_ns} {status.st_size}\n".encode())
    return seen.hexdigest()[:16]


def _kernels() -> list[str]:
    """Packages whose attention levers offer because they are installed here."""
    return [name for name in _KERNELS if _is_there(name)]


def _is_there(package: str) -> bool:
    return find_spec(package) is not None


class CallStore:
    """Finds and saves traced calls in a folder.

    >>> CallStore(Path("no-such-folder")).find("1f0c") is None
    True
    """

    def __init__(self, directory: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        self._directory, self._most_bytes = directory, most_bytes

    def find(self, key: str, *, tells: bool = True) -> tuple[KeptCall, Arrays] | None:
        """The call of that key, or None; `tells` whether a broken file is worth a warning."""
        path = self._path(key)
        try:
            found = read(files.read(path, most_bytes=_LARGEST_BYTES, what="a traced call"))
            if found[0].key != key:
                raise ValueError("it is another call's")
            if other := other_versions(found[0].versions):
                _log.info("%s was made with %s: tracing anew", path, other)
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            if tells:
                why = files.reason(error, what="traced call")
                _log.warning("%s is ignored: %s. The call is traced anew", path, why)
            return None
        with suppress(OSError):
            os.utime(path)  # the one that was used longest ago goes first
        return found

    def entries(self) -> list[tuple[Path, KeptCall]]:
        """All calls with their files, but for broken ones."""
        found = []
        for path in sorted(self._directory.glob("[!.]*.npz")):
            with suppress(OSError, ValueError):
                found.append((path, facts_in(files.read(path, most_bytes=_LARGEST_BYTES, what="a traced call"))))
        return found

    def save(self, call: KeptCall, arrays: Arrays) -> None:
        """Writes a call. Where that is not possible it is only logged: the next question traces again."""
        from filelock import FileLock

        try:
            data = written(call, arrays)
            if len(data) > min(_LARGEST_BYTES, self._most_bytes):
                return
            self._directory.mkdir(parents=True, exist_ok=True)
            with FileLock(self._directory / ".lock", timeout=_LOCK_TIMEOUT_S):
                path = self._path(call.key)
                self._make_room(len(data), but=path)
                files.write(path, data)
        except (OSError, NotImplementedError) as error:
            _log.info("traces not kept in %s: %s", self._directory, files.reason(error, what="traced call"))

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.npz"

    def _make_room(self, wanted_bytes: int, *, but: Path) -> None:
        """Removes what was used longest ago; one that another process is reading stays where the system says so."""
        for path in self._directory.glob(".*.tmp"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
        others = (path for path in self._directory.glob("*.npz") if path != but)
        there = sorted(((path.stat(), path) for path in others), key=_last_used)
        total_bytes = sum(status.st_size for status, _ in there)
        for status, path in there:
            if total_bytes + wanted_bytes <= self._most_bytes:
                return
            with suppress(OSError):
                path.unlink(missing_ok=True)
                total_bytes -= status.st_size


def _last_used(entry: tuple[Any, Path]) -> float:
    return float(entry[0].st_mtime)
