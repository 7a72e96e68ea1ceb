"""Which folders hold profiles, in the order in which they are asked, and which one is written to.

1. the folder that the caller named, 2. `./profiles` where it exists, 3. the user's cache, 4. what came with autotune.

A new profile is written to the first of these: the named folder (created then), `./profiles` where it exists and can be
written to, the user's cache (created then). In autotune's own checkout `./profiles` is what ships.
Looking creates nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_directory", "directories", "shipped_directory"]


def directories(profiles: str | Path | None = None) -> tuple[list[Path], Path]:
    """The folders to look in, in order and each once, and the folder to write to.

    >>> looked_in, write_to = directories("my-profiles")
    >>> write_to.name, write_to == looked_in[0]
    ('my-profiles', True)
    """
    named = None if profiles is None else Path(profiles).expanduser()
    local = Path("profiles")
    has_local = os.access(local, os.X_OK) and local.is_dir()
    found = [named, local if has_local else None, cache_directory(), shipped_directory()]

    once: dict[Path, Path] = {}
    for path in found:
        if path is not None:
            once.setdefault(path.resolve(), path.absolute())

    write_to = named or (local if has_local and os.access(local, os.W_OK) else cache_directory())
    return list(once.values()), write_to.absolute()


def cache_directory() -> Path:
    """Profiles of this user: below `AUTOTUNE_CACHE_DIR` where it is set, else in the system's place for caches."""
    chosen = os.environ.get("AUTOTUNE_CACHE_DIR")
    root = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("autotune"))
    return root / "profiles"


def shipped_directory() -> Path | None:
    """Profiles that came with autotune: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    installed, checkout = package / "_profiles", package.parent / "profiles"
    if installed.is_dir():
        return installed
    return checkout if checkout.is_dir() and (package.parent / "pyproject.toml").is_file() else None
