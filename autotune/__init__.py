"""autotune: makes any diffusers pipeline run as fast as it can inside a VRAM cap.

    pipe = autotune.optimize(pipe, max_vram="4GB")

Importing this package imports neither torch nor diffusers; the names below are fetched when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autotune.api import apply, explain, explore, optimize, plan, restore
    from autotune.errors import (
        AutotuneError,
        BadSizeError,
        DoesNotFitError,
        NoAcceleratorError,
        PipelineError,
        PlanError,
        UnknownGpuError,
        WorkloadError,
    )
    from autotune.records.front import Front
    from autotune.records.plan import Plan
    from autotune.records.workload import Workload
    from autotune.report.explanation import Explanation

__version__ = "0.1.0"

_HOMES = {
    "autotune.api": ("apply", "explain", "explore", "optimize", "plan", "restore"),
    "autotune.errors": (
        "AutotuneError",
        "BadSizeError",
        "DoesNotFitError",
        "NoAcceleratorError",
        "PipelineError",
        "PlanError",
        "UnknownGpuError",
        "WorkloadError",
    ),
    "autotune.records.front": ("Front",),
    "autotune.records.plan": ("Plan",),
    "autotune.records.workload": ("Workload",),
    "autotune.report.explanation": ("Explanation",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AutotuneError",
    "BadSizeError",
    "DoesNotFitError",
    "Explanation",
    "Front",
    "NoAcceleratorError",
    "PipelineError",
    "Plan",
    "PlanError",
    "UnknownGpuError",
    "Workload",
    "WorkloadError",
    "apply",
    "explain",
    "explore",
    "optimize",
    "plan",
    "restore",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'autotune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
