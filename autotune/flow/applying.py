"""Applying a plan from where everything is known: the facts that splitting a batch needs, what is asked of each call, and how
the plan is chosen anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from time import perf_counter
from typing import Any

from autotune.flow.ask import answer
from autotune.flow.job import job_for, resolved_calls
from autotune.flow.learning import watch_for
from autotune.flow.question import Question
from autotune.guard.applying import apply, is_under
from autotune.guard.as_found import as_found
from autotune.guard.optimized import Optimized, Replan
from autotune.guard.watch import Watch
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import OnChange, Plan
from autotune.records.workload import Workload

__all__ = ["apply_plan", "optimize"]

_QUICK_S = 30.0  # a planning that took longer is not made while a call waits


def optimize(question: Question) -> Optimized:
    """Applies the best plan for the question to its pipeline.

    Raises:
        AutotuneError: one of its subclasses; the pipeline is then as it was.
    """
    start_s = perf_counter()
    explained, front = answer(question)
    took_s = perf_counter() - start_s if front.planned_s is None else front.planned_s
    pipe = question.model
    optimized = apply_plan(
        pipe, explained.chosen.plan, device=explained.device, workload=explained.workload, denoisers=front.denoisers,
        undo=question.undo, reload=explained.reload, watch=watch_for(question, explained), on_change=question.on_change,
    )  # fmt: skip
    optimized.tell(pipe, explained.model_copy(update={"state": "optimised"}), front)
    if question.on_change == "replan" and took_s < _QUICK_S:
        optimized.replan = _asked_again(question)
    return optimized


def _asked_again(question: Question) -> Replan:
    """The same question about the pipeline as it is by then. Neither that nor what its calls are given is kept alive by this:
    calls are remembered by their shapes."""
    options = {field.name: getattr(question, field.name) for field in fields(question)}
    for name in ("model", "progress", "example", "workload"):
        del options[name]
    planned = resolved_calls(question.model, question.workload, question.example)

    def replan(pipe: Any, arguments: Mapping[str, Any] | None) -> Optimized:
        calls = planned
        if arguments is not None:
            given = {name: value for name, value in arguments.items() if not _is_the_callers(value)}
            (made,) = resolved_calls(pipe, given, None)
            calls = [*(one for one in planned if not made.covers(one)), made]
        return optimize(Question(pipe, **options, workload=calls if len(calls) > 1 else calls[0]))

    return replan


def _is_the_callers(value: Any) -> bool:
    """Whether an argument does something of the caller's: a callback, or a generator whose numbers must not be used up."""
    several = value if isinstance(value, list | tuple) else (value,)
    return any(callable(one) or type(one).__name__ == "Generator" for one in several)


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
