"""Applying a plan from where everything is known: the facts that splitting a batch needs, and the pipeline's class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from autotune.flow.job import job_for
from autotune.guard.dress import dress
from autotune.guard.watch import Watch
from autotune.levers import engine
from autotune.levers.engine import Handle
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import Plan
from autotune.records.workload import Workload

__all__ = ["apply_plan", "plan_taken_off"]


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
) -> Handle:
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

    Raises:
        PlanError: a value that cannot be applied; the pipeline is as it was.
    """
    before = engine.handle_of(pipe)
    if before is not None and before.plan.same_as(plan) and before.device.torch_device == device.torch_device:
        return before
    with plan_taken_off(pipe, put_back="on error"):
        if denoisers is None and plan.batch_split is not False:
            from autotune.flow.planning import facts_for

            denoisers = facts_for(
                job_for(pipe, device=device, workload=workload, example=example, calls=workload.calls, undo=undo)
            )
        handle = engine.apply(
            pipe, plan, device=device, workload=workload, undo=undo, reload=reload, denoisers=denoisers
        )
        handle.watch = watch
        dress(pipe, handle)
        return handle


@contextmanager
def plan_taken_off(pipe: Any, *, put_back: Literal["always", "on error"]) -> Iterator[None]:
    """Inside, the pipeline is as its owner made it: planning looks at that, not at what an earlier plan left."""
    handle = engine.handle_of(pipe)
    if handle is None:
        yield
        return
    engine.restore(pipe)
    try:
        yield
    except BaseException:
        dress(pipe, engine.reapply(pipe, handle))
        raise
    if put_back == "always":
        dress(pipe, engine.reapply(pipe, handle))
