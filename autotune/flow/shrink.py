"""When nothing fits: the nearest workload that does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from autotune.errors import PlanError, WorkloadError
from autotune.flow.job import Job
from autotune.flow.planning import estimates
from autotune.probe.workload import call_arguments
from autotune.records.plan import Plan
from autotune.records.workload import Workload

__all__ = ["nearest_fit"]

_SHRINKING = (0.75, 0.5, 0.375, 0.25)
_GRAIN_PX = 64  # every published latent model takes edges that are multiples of 64


def nearest_fit(job: Job, plan: Plan, cap_bytes: int) -> Workload | None:
    """The largest smaller workload that this plan can do under the cap, by real traces of each; None where none is."""
    if any(workload.inputs for workload in job.workloads):
        return None
    smaller = list(_smaller(job.largest))

    def fits(workload: Workload) -> bool:
        trial = replace(job, workloads=(workload,), calls=(call_arguments(job.pipe, workload),), progress=None)
        try:
            estimate = estimates(trial, [plan])[0]
        except (WorkloadError, PlanError):  # the smaller call, or the plan for it, does not run
            return False
        return not estimate.untraced and estimate.needed_bytes <= cap_bytes

    if not smaller or not fits(smaller[-1]):
        return None
    return next((workload for workload in smaller[:-1] if fits(workload)), smaller[-1])


def _smaller(workload: Workload) -> Iterator[Workload]:
    """Fewer at a time, then fewer frames, then fewer pixels."""
    workload = workload.model_copy(update={"computed": None})
    if workload.batch > 1:
        workload = workload.model_copy(update={"batch": 1})
        yield workload
    if workload.frames and workload.frames > 8:
        workload = workload.model_copy(update={"frames": (workload.frames - 1) // 8 * 4 + 1})
        yield workload
    for share in _SHRINKING:
        height, width = (
            round((edge or 0) * share / _GRAIN_PX) * _GRAIN_PX for edge in (workload.height, workload.width)
        )
        if height and width and (height, width) != (workload.height, workload.width):
            yield workload.model_copy(update={"height": height, "width": width})
