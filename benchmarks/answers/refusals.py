"""How long a refusal takes, from the shell's point of view, and whether torch was loaded for it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Refusal", "timed"]

_ROOT = Path(__file__).parents[2]
_TORCH = """
import sys
from autotune.cli.app import main
sys.argv = ["autotune", *sys.argv[1:]]
try:
    main()
except SystemExit:
    pass
print("torch" in sys.modules)
"""


class Refusal(NamedTuple):
    """The fastest of some runs."""

    seconds: float
    """Wall time of the process."""
    cpu_s: float
    """Its user and system time: what it would take on a machine with nothing else to do."""
    torch: bool
    """Whether torch was imported."""


def timed(words: Sequence[str], repeats: int = 5) -> Refusal:
    """Runs the command line in processes of their own."""
    walls, cpus = [], []
    for _ in range(repeats):
        before, begun = _cpu_s(), time.perf_counter()
        _run([sys.executable, "-m", "autotune", *words])
        walls.append(time.perf_counter() - begun)
        cpus.append(_cpu_s() - before)
    loaded = _run([sys.executable, "-c", _TORCH, *words]).strip().endswith("True")
    return Refusal(min(walls), min(cpus), loaded)


def _run(command: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    return done.stdout


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
