"""Small files of JSON that others may have written: read with care, written in one piece."""

from __future__ import annotations

import os
import reprlib
import stat
from pathlib import Path

from pydantic import ValidationError

from autotune.units import size

__all__ = ["read", "reason", "write"]


def read(path: Path, *, most_bytes: int, what: str) -> bytes:
    """All of a file.

    Args:
        path: where it is.
        most_bytes: that it may have.
        what: it is to hold, for the message.

    Raises:
        OSError: it cannot be read, is no plain file, or is too large.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("not a file")
    if status.st_size > most_bytes:
        raise OSError(f"{size(status.st_size)} is more than {what} may have ({size(most_bytes)})")
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    """Puts the file there whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def reason(error: Exception, *, what: str) -> str:
    """Why a file is ignored, in a clause; `what` it was to hold: "profile", "speed"."""
    if not isinstance(error, ValidationError):
        return (error.strerror if isinstance(error, OSError) else None) or str(error)
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return f"no {what}: {problem['msg']}"
    where = ".".join(map(str, problem["loc"]))
    return f"no {what} of this version of autotune: {where}: {problem['msg']}, found {reprlib.repr(problem['input'])}"
