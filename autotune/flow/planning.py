"""From a job to a front: traces what must be traced, replays the rest.

A trace is made once for each distinct execution and each workload.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from autotune.errors import WorkloadError
from autotune.flow.job import Job
from autotune.levers.base import Subject
from autotune.levers.engine import ORDER, current_plan, executed
from autotune.probe.pipeline import denoisers
from autotune.probe.workload import missing_inputs
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate, Front
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.trace import Trace
from autotune.records.workload import Workload
from autotune.search.space import Space
from autotune.search.study import search
from autotune.simulate.replay import Replayer

__all__ = ["as_it_is", "estimator", "front_of", "space_of"]

_DECODE_LEVERS = ("vae_slicing", "vae_tiling")


def space_of(job: Job) -> Space:
    """The values each lever offers for this job."""
    subject = Subject(job.pipe, job.device, job.largest)
    domains = {lever.name: lever.domain(subject) for lever in ORDER}
    return Space(
        values={name: domain.values for name, domain in domains.items()},
        reasons={name: domain.reason for name, domain in domains.items()},
    )


def front_of(job: Job, *, keep: Mapping[str, Any] | None = None, forbid: tuple[str, ...] = ()) -> Front:
    """Traces what must be traced, estimates the space, keeps the front. A forbidden lever stays as it is now."""
    subject = Subject(job.pipe, job.device, job.largest)
    for lever in ORDER:
        if lever.name in (keep or {}):
            lever.check(subject, (keep or {})[lever.name])
    present = {name: getattr(current_plan(job.pipe), name) for name in forbid}
    space = space_of(job).restricted(present | dict(keep or {}))
    estimate = estimator(job, space)
    found = search(space, estimate, progress=lambda done, total: job.tell("searching", done, total))
    usual = Plan(offload="model" if "model" in space.values["offload"] else "none", id="baseline")
    same = next((c for c in found.evaluated if c.plan.same_as(usual)), None)
    return Front(
        model=job.model.name,
        device=job.device,
        workload=job.largest,
        candidates=found.front,
        searched=len(found.evaluated),
        baseline=same,
    )


def as_it_is(job: Job) -> Candidate:
    """The pipeline without any change."""
    plan = current_plan(job.pipe)
    neutral = {name: (getattr(Plan(), name),) for name in EXECUTION_LEVERS}
    space = Space(values={name: (value,) for name, value in plan.values.items()} | neutral)
    traced = plan.model_copy(update={name: values[0] for name, values in neutral.items()})
    estimate = estimator(job, space, untouched=True)([traced])[0]
    return Candidate(plan=plan, estimate=estimate)


def estimator(job: Job, space: Space, *, untouched: bool = False) -> Callable[[Sequence[Plan]], list[Estimate]]:
    """An estimate for each plan; of several workloads the one that needs most counts."""
    with _no_garbage_collection():
        replayers = [
            Replayer(
                _traces(job, space, workload, call, untouched=untouched),
                model=job.model,
                device=job.device,
                steps=workload.steps or 1,
                undo=job.undo,
            )
            for workload, call in zip(job.workloads, job.calls, strict=True)
        ]

    def worst(plans: Sequence[Plan]) -> list[Estimate]:
        answers = zip(*(replayer(plans) for replayer in replayers), strict=True)
        return [max(several, key=lambda estimate: estimate.needed_bytes) for several in answers]

    return worst


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A trace makes a hundred thousand small objects and no cycles: collecting in between doubles its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _traces(
    job: Job, space: Space, workload: Workload, call: Mapping[str, Any], *, untouched: bool
) -> dict[tuple[Any, ...], Trace]:
    """A trace for every execution in the space. Precision and processors: a whole call. Slices and tiles: the VAE only."""
    from autotune.trace.session import Session

    values = [space.values[name] for name in EXECUTION_LEVERS]
    wanted = [(d, a, s, t) for d in values[0] for a in values[1] for s in values[2] for t in values[3]]
    session = Session(job.pipe, denoisers=denoisers(job.model))
    twin = Subject(session.twin, job.device, workload)
    vaes = [part.name for part in job.model.components if part.role == "vae"]
    traces: dict[tuple[Any, ...], Trace] = {}
    for dtype in values[0]:
        for attention in values[1]:
            values_now = {"dtype": dtype, "attention": attention}
            plain = {} if untouched else dict.fromkeys(_DECODE_LEVERS, False)
            with executed(twin, values_now | plain):
                whole = _whole_call(session, job, call, workload)
                for key in (key for key in wanted if key[:2] == (dtype, attention)):
                    job.tell("tracing", len(traces), len(wanted))
                    changes = dict(zip(_DECODE_LEVERS, key[2:], strict=True))
                    if untouched or not (changes["vae_slicing"] or changes["vae_tiling"]) or whole.untraced:
                        traces[key] = whole
                        continue
                    with executed(twin, changes):
                        again = whole
                        for vae in vaes:
                            again = session.rerecord(again, vae)
                        traces[key] = again
    job.tell("tracing", len(wanted), len(wanted))
    return traces


def _whole_call(session: Any, job: Job, call: Mapping[str, Any], workload: Workload) -> Trace:
    try:
        trace: Trace = session.record(call, steps=workload.steps or 1)
    except WorkloadError as error:
        missing = missing_inputs(job.pipe, call)
        if missing:
            raise WorkloadError(
                f"{error}; pass example={{...}} with real inputs, for example {missing[0]!r}"
            ) from error
        raise
    return trace
