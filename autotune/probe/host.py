"""Facts about the machine around the card: memory within its container's limit, cores, system, package versions.

Nothing is imported to learn its version. It does not know how fast the memory is, nor what other processes will take.
"""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path

from autotune.records.host import Host

__all__ = ["DISTRIBUTION", "host", "name_clash"]

DISTRIBUTION = "diffusers-autotune"

# What decides which levers can run, by distribution name.
PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "accelerate",
    "optuna",
    "xformers",
    "flash-attn",
    "sageattention",
    "kernels",
    "torchao",
    "bitsandbytes",
    "peft",
)


def host(*, root: Path = Path("/")) -> Host:
    """Facts about this machine; `root` is where proc and sys are looked for.

    >>> host().cores >= 1
    True
    """
    import psutil

    memory = psutil.virtual_memory()
    limit_bytes, room_bytes = _cgroup_memory(root, physical_bytes=memory.total)
    return Host(
        ram_total_bytes=memory.total if limit_bytes is None else limit_bytes,
        ram_available_bytes=memory.available if room_bytes is None else min(memory.available, room_bytes),
        cgroup_limit_bytes=limit_bytes,
        cores=_cores(),
        os=f"{platform.system()} {platform.release()}",
        wsl="microsoft" in _text(root / "proc/sys/kernel/osrelease").casefold(),
        packages=_packages(),
    )


def name_clash() -> str | None:
    """One sentence if another installed distribution also supplies the import name `autotune`, else None.

    The name on PyPI belongs to a package that has nothing to do with this one.
    """
    owners = metadata.packages_distributions().get("autotune", [])
    others = sorted({owner for owner in owners if re.sub(r"[-_.]+", "-", owner).lower() != DISTRIBUTION})
    if not others:
        return None
    return (
        f"the import name 'autotune' is also supplied by {' and '.join(others)}, which is not {DISTRIBUTION}; "
        f"run: pip uninstall {' '.join(others)} && pip install --force-reinstall --no-deps {DISTRIBUTION}"
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cgroup_memory(root: Path, *, physical_bytes: int) -> tuple[int | None, int | None]:
    """The tightest memory limit of this process's control groups, and the least room left under any of them.

    Every ancestor's limit binds. Inside a container the path may be the host's and not exist here: its existing
    ancestors, at least the mount's root, then hold the container's own limit.
    """
    mount, path, files = _memory_group(root)
    limits, rooms = [], []
    for folder in (mount / path, *(mount / path).parents):
        limit = _number(folder / files[0])
        if limit is not None and limit < physical_bytes:
            used = _number(folder / files[1]) or 0
            limits.append(limit)
            rooms.append(max(0, limit - max(0, used - _reclaimable(folder, files[2]))))
        if folder == mount:
            break
    return min(limits, default=None), min(rooms, default=None)


def _memory_group(root: Path) -> tuple[Path, str, tuple[str, str, str]]:
    """The mount of the hierarchy that accounts memory, this process's path in it, and its file and counter names."""
    lines = [line.split(":", 2) for line in _text(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    for _, controllers, path in lines:
        if "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            return root / "sys/fs/cgroup/memory", path.strip("/"), names
    path = next((path for _, controllers, path in lines if not controllers), "/")
    return root / "sys/fs/cgroup", path.strip("/"), ("memory.max", "memory.current", "inactive_file")


def _reclaimable(folder: Path, counter: str) -> int:
    """File cache that the kernel gives back before it refuses memory; usage counts it, Docker and Kubernetes do not."""
    match = re.search(rf"^{counter} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
    return int(match[1]) if match else 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
