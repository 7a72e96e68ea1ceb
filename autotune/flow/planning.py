"""From a job to a front: traces what must be traced, replays the rest."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from autotune.errors import PlanError
from autotune.flow.job import Job
from autotune.flow.recordings import Recordings
from autotune.levers.base import Subject
from autotune.levers.engine import ORDER, check, current_plan
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate, Front
from autotune.records.model import DenoiserFacts
from autotune.records.plan import EXECUTION_LEVERS, LEVERS, Plan
from autotune.search.front import pareto
from autotune.search.space import Space
from autotune.search.study import search
from autotune.simulate.replay import Replayer

__all__ = ["as_it_is", "collecting_no_garbage", "estimates", "facts_for", "front_of", "space_of"]


def front_of(
    job: Job, *, keep: Mapping[str, Any] | None = None, forbid: tuple[str, ...] = (), allow: tuple[str, ...] = ()
) -> Front:
    """Traces what must be traced, estimates the space, keeps the front. A forbidden lever stays as it is now."""
    kept = dict(keep or {})
    subject = Subject(job.pipe, job.device, job.largest, allowed=frozenset(allow))
    _check_kept(subject, kept)
    with collecting_no_garbage():
        recordings = _recordings(job)
        subject = subject._replace(denoisers=_facts(job, recordings, prove=bool(kept.get("batch_split"))))
        _check_kept(subject, kept)
        present = {name: getattr(current_plan(job.pipe), name) for name in forbid}
        space = _space(subject).restricted(present | kept)
        if next(space.plans(), None) is None:
            check(subject, Plan(**{name: values[0] for name, values in space.values.items()}))
            raise PlanError("the levers that are fixed leave no plan; fix fewer of them")
        replayers = _replayers(job, recordings, space)
    found = search(space, _worst(replayers), progress=lambda done, total: job.tell("searching", done, total))
    front = pareto([_exact(replayers, candidate) for candidate in found.front])
    usual = Plan(offload="model" if "model" in space.values["offload"] else "none", id="baseline")
    same = next((c for c in found.evaluated if c.plan.same_as(usual)), None)
    return Front(
        model=job.model.name,
        device=job.device,
        workload=job.largest,
        candidates=front,
        searched=len(found.evaluated),
        denoisers=dict(subject.denoisers),
        baseline=same and _exact(replayers, same),
    )


def space_of(job: Job) -> Space:
    """The values each lever offers for this job: those that can help."""
    facts = _facts(job, _recordings(job), prove=False)
    return _space(Subject(job.pipe, job.device, job.largest, denoisers=facts))


def as_it_is(job: Job) -> Candidate:
    """The pipeline without any change."""
    plan = current_plan(job.pipe)
    neutral = plan.model_copy(update={name: getattr(Plan(), name) for name in EXECUTION_LEVERS})
    return Candidate(plan=plan, estimate=estimates(job, [neutral], untouched=True)[0])


def estimates(job: Job, plans: Sequence[Plan], *, untouched: bool = False) -> list[Estimate]:
    """What each of these plans costs; with `untouched` the pipeline runs as it is, whatever they say of its code."""
    values = {name: tuple(dict.fromkeys(getattr(plan, name) for plan in plans)) for name in LEVERS}
    with collecting_no_garbage():
        replayers = _replayers(job, _recordings(job, untouched=untouched), Space(values=values))
    return [_largest(replayer.exact(plan) for replayer in replayers) for plan in plans]


def facts_for(job: Job) -> dict[str, DenoiserFacts]:
    """What a weightless call shows of the denoisers, batch included: needed to split it."""
    with collecting_no_garbage():
        return _facts(job, _recordings(job), prove=True)


def _recordings(job: Job, *, untouched: bool = False) -> list[Recordings]:
    calls = zip(job.workloads, job.calls, strict=True)
    return [Recordings(job, workload, call, untouched=untouched) for workload, call in calls]


def _facts(job: Job, recordings: Sequence[Recordings], *, prove: bool) -> dict[str, DenoiserFacts]:
    """Those of the largest workload."""
    return recordings[job.workloads.index(job.largest)].facts(prove=prove)


def _check_kept(subject: Subject, kept: Mapping[str, Any]) -> None:
    for lever in ORDER:
        if lever.name in kept:
            lever.check(subject, kept[lever.name])


def _space(subject: Subject) -> Space:
    domains = {lever.name: lever.domain(subject) for lever in ORDER}
    return Space(
        values={name: domain.values for name, domain in domains.items()},
        reasons={name: domain.reason for name, domain in domains.items()},
    )


def _replayers(job: Job, recordings: Sequence[Recordings], space: Space) -> list[Replayer]:
    """One for each workload."""
    return [
        Replayer(
            recording.traces(space),
            model=job.model,
            device=job.device,
            steps=recording.workload.steps or 1,
            undo=job.undo,
            settings=job.allocator,
            torch_version=job.torch_version,
        )
        for recording in recordings
    ]


def _worst(replayers: Sequence[Replayer]) -> Callable[[Sequence[Plan]], list[Estimate]]:
    """A quick estimate for each plan; of several workloads the one that needs most counts."""

    def worst(plans: Sequence[Plan]) -> list[Estimate]:
        return [_largest(several) for several in zip(*(replayer(plans) for replayer in replayers), strict=True)]

    return worst


def _exact(replayers: Sequence[Replayer], candidate: Candidate) -> Candidate:
    """The candidate with bytes from a replay of the allocator, and the kernels of attention that it took among the reasons."""
    estimate, plan = _largest(replayer.exact(candidate.plan) for replayer in replayers), candidate.plan
    if estimate.attention is not None and "attention" in plan.reasons:
        why = f"{estimate.attention.words}; {plan.reasons['attention']}"
        plan = plan.model_copy(update={"reasons": plan.reasons | {"attention": why}})
    return candidate.model_copy(update={"estimate": estimate, "plan": plan})


def _largest(estimates: Iterable[Estimate]) -> Estimate:
    return max(estimates, key=lambda estimate: estimate.needed_bytes)


@contextmanager
def collecting_no_garbage() -> Iterator[None]:
    """A trace makes a hundred thousand small objects and no cycles: collecting in between doubles its time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
