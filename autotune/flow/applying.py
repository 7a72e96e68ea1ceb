"""Applying a plan from where everything is known: the facts that splitting a batch needs, and what is asked of each call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.flow.job import job_for
from autotune.guard.applying import apply, is_under
from autotune.guard.as_found import as_found
from autotune.guard.optimized import Optimized
from autotune.guard.watch import Watch
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import OnChange, Plan
from autotune.records.workload import Workload

__all__ = ["apply_plan"]


def apply_plan(
    pipe: Any,
    plan: Plan,
    *,
    device: Device,
    workload: Workload,
    example: Mapping[str, Any] | None = None,
    denoisers: Mapping[str, DenoiserFacts] | None = None,
    undo: bool = True,
    reload: bool = False,
    watch: Watch | None = None,
    on_change: OnChange = "tell",
) -> Optimized:
    """Makes the pipeline run as planned, all of it or nothing.

    Args:
        pipe: a `DiffusionPipeline`.
        plan: what to do.
        device: where it is to run.
        workload: the resolved call.
        example: arguments of the call beyond those of the workload, should it have to be traced.
        denoisers: what a trace showed of the denoisers; traced here if None and the plan splits their batch.
        undo: whether originals of lowered weights are kept.
        reload: whether those that the pipeline's files hold are read again by `restore`, and do not wait in RAM.
        watch: times the pipeline's calls in passing; they are not timed if None.
        on_change: what happens at a call where the pipeline is no longer as the plan left it.

    Raises:
        PlanError: a value that cannot be applied; the pipeline is as it was.
    """
    is_new = not is_under(pipe, plan, device, undo=undo, denoisers=denoisers)
    if is_new and denoisers is None and plan.batch_split:
        from autotune.flow.planning import facts_for

        found = as_found(pipe)
        denoisers = facts_for(
            job_for(found, device=device, workload=workload, example=example, calls=workload.calls, undo=undo)
        )
    optimized = apply(pipe, plan, device=device, workload=workload, undo=undo, reload=reload, denoisers=denoisers)
    optimized.watch, optimized.on_change = watch, on_change
    return optimized
