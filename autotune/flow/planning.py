"""From a job to a front: traces what must be traced, replays the rest."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.errors import PlanError
from autotune.flow.job import Job
from autotune.flow.recordings import Recordings
from autotune.levers.base import Subject
from autotune.levers.engine import ORDER, check
from autotune.levers.precisions import Precisions, as_found, precisions
from autotune.records.costs import Costs
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate, Front
from autotune.records.model import DenoiserFacts
from autotune.records.plan import LEVERS, Plan
from autotune.records.precision import Precision
from autotune.records.trace import Trace
from autotune.records.values import typed
from autotune.records.workload import Workload
from autotune.search.space import Space
from autotune.search.study import Pricing, estimated, search
from autotune.simulate.replay import Replayer

__all__ = [
    "as_it_is",
    "collecting_no_garbage",
    "estimates",
    "facts_for",
    "found_in",
    "front_of",
    "space_of",
    "standing",
]

Traces = Mapping[tuple[Any, ...], Trace]


# Modes of offload that diffusers' guide to memory documents as one call each.
_DOCUMENTED = ("model", "none", "group:leaf+stream", "sequential")


def front_of(
    job: Job, *, keep: Mapping[str, Any] | None = None, forbid: tuple[str, ...] = (), allow: tuple[str, ...] = ()
) -> Front:
    """Traces what must be traced, estimates the space, keeps the front. A forbidden lever stays as it is now."""
    kept = {name: getattr(Plan(**{name: value}), name) for name, value in (keep or {}).items()}
    subject = _subject(job)._replace(allowed=frozenset(allow))
    _check_kept(subject, kept)
    fixed = dict.fromkeys(forbid) | kept
    choice = precisions(subject)
    with collecting_no_garbage():
        recordings = _recordings(job)
        facts = _facts(job, recordings, prove=bool(kept.get("batch_split")))
        subject = subject._replace(denoisers=facts, workload=_of_largest(job, recordings).made)
        _check_kept(subject, kept)
        space = _space(subject, job.found).restricted(fixed)
        if next(space.plans(), None) is None:
            check(subject, Plan(**{name: values[0] for name, values in space.values.items()}))
            raise PlanError("the levers that are fixed leave no plan; fix fewer of them")
        traces = [recording.traces(space) for recording in recordings]
        space = _running(space, recordings, traces)
        replayers = _replayers(job, recordings, traces)
        named = () if "dtype" in fixed else _named(job, recordings, space, choice.named)
    found = search(
        space, _worst(replayers), _least(replayers), progress=lambda done, total: job.tell("searching", done, total)
    )
    usual = estimated(_usual_plans(space), _worst(replayers))
    return Front(
        model=job.model.name,
        device=job.device,
        workload=_of_largest(job, recordings).made,
        candidates=tuple(map(_with_kernels, found.front)),
        searched=found.searched,
        denoisers=dict(subject.denoisers),
        usual=tuple(usual),
        named=named,
        found=found_in(job),
        caution=_caution(job, choice, fixed) if named or "dtype" in fixed else "",
        parameters=sum(part.parameters for part in job.model.components),
    )


def _usual_plans(space: Space) -> list[Plan]:
    """What a careful user would type: the half precision that is safe here, and the one without loss, by documented modes."""
    plain = {name: values[0] for name, values in space.values.items()}
    by_lane = {Plan(dtype=dtype).lane: dtype for dtype in reversed(space.values["dtype"])}
    modes = [mode for mode in _DOCUMENTED if mode in (*space.values["offload"], space.found.offload, "none")]
    plain |= {"text_encoders": None, "compile": None}
    tiles = [edge for edge in space.values["vae_tiling"] if edge][:1]
    settings = [{"offload": mode} for mode in modes]
    settings += [{"offload": mode, "vae_tiling": edge} for mode in modes[:1] for edge in tiles]
    plans = [
        Plan(**plain | {"dtype": dtype} | chosen, id=f"usual-{lane}-{number}")
        for lane, dtype in by_lane.items()
        for number, chosen in enumerate(settings)
    ]
    return [plan for plan in plans if space.allows(plan)]


def found_in(job: Job) -> Plan:
    """The job's pipeline as it is, with the precision of each network."""
    return job.found.model_copy(update={"dtype": as_found(job.pipe)})


def _named(
    job: Job, recordings: Sequence[Recordings], space: Space, dtypes: tuple[Precision, ...]
) -> tuple[Candidate, ...]:
    """Plans in precisions that are not known to give right images here: by placement and tiling alone: they are only told."""
    if not dtypes:
        return ()
    free = ("offload", "text_encoders", "vae_tiling")
    values = {name: values if name in free else values[:1] for name, values in space.values.items()}
    narrow = space.model_copy(update={"values": {**values, "dtype": dtypes}, "executions": None})
    traces = [recording.traces(narrow) for recording in recordings]
    if not all(traces):
        return ()
    narrow = _running(narrow, recordings, traces)
    replayers = _replayers(job, recordings, traces)
    return tuple(map(_with_kernels, search(narrow, _worst(replayers), _least(replayers)).front))


def _caution(job: Job, choice: Precisions, fixed: Mapping[str, Any]) -> str:
    """What is known of a precision that may give wrong images here; of the one that is fixed, if one is."""
    dtype: Precision | None = fixed.get("dtype")
    if "dtype" in fixed and (dtype is None or dtype in choice.offered):
        return ""
    if dtype is not None and "bfloat16" in dtype.dtypes and not job.device.supports_bf16:
        return f"{job.device.name} computes no bf16 and emulates it, slowly and with much memory"
    if job.device.fp16_fails and dtype is not None and "float16" in dtype.dtypes:
        return f"{job.device.name} is known to give black images in fp16"
    return choice.caution


def space_of(job: Job) -> Space:
    """The values each lever offers for this job: those that can help."""
    recordings = _recordings(job)
    facts = _facts(job, recordings, prove=False)
    return _space(_subject(job)._replace(workload=_of_largest(job, recordings).made, denoisers=facts), job.found)


def as_it_is(job: Job) -> Candidate:
    """The pipeline without any change."""
    return standing(job)[1]


def standing(job: Job, plan: Plan | None = None) -> tuple[Workload, Candidate]:
    """The call as it is really made, and what it costs without any change or under a plan that is applied."""
    plan = plan or Plan()
    made, found = _estimated(job, [plan])
    return made, Candidate(plan=plan, estimate=found[0])


def estimates(job: Job, plans: Sequence[Plan]) -> list[Estimate]:
    """What each of these plans costs."""
    return _estimated(job, plans)[1]


def _estimated(job: Job, plans: Sequence[Plan]) -> tuple[Workload, list[Estimate]]:
    values = {name: tuple(dict.fromkeys(getattr(plan, name) for plan in plans)) for name in LEVERS}
    with collecting_no_garbage():
        recordings = _recordings(job)
        traces = [recording.traces(Space(values=values)) for recording in recordings]
    for recording, traced in zip(recordings, traces, strict=True):
        refused = next((plan for plan in plans if plan.execution not in traced), None)
        if refused is not None:
            raise PlanError(recording.why_not(refused.execution))
    replayers = _replayers(job, recordings, traces)
    found = [_largest(replayer.estimate(plan) for replayer in replayers) for plan in plans]
    return _of_largest(job, recordings).made, found


def facts_for(job: Job) -> dict[str, DenoiserFacts]:
    """What a weightless call shows of the denoisers, batch included: needed to split it."""
    with collecting_no_garbage():
        return _facts(job, _recordings(job), prove=True)


def _recordings(job: Job) -> list[Recordings]:
    return [Recordings(job, workload, call) for workload, call in zip(job.workloads, job.calls, strict=True)]


def _facts(job: Job, recordings: Sequence[Recordings], *, prove: bool) -> dict[str, DenoiserFacts]:
    """Those of the largest workload."""
    return _of_largest(job, recordings).facts(prove=prove)


def _of_largest(job: Job, recordings: Sequence[Recordings]) -> Recordings:
    return recordings[job.workloads.index(job.largest)]


def _running(space: Space, recordings: Sequence[Recordings], traces: Sequence[Traces]) -> Space:
    """The plans that every workload can run."""
    refused = {value: why for recording in recordings for value, why in recording.refused.items()}
    running = space.running(frozenset.intersection(*map(frozenset, traces)), refused)
    if next(running.plans(), None) is None:
        why = "; ".join(f"{name}={typed(value)} does not run: {reason}" for (name, value), reason in refused.items())
        raise PlanError(why or "no combination of these levers runs; fix fewer of them")
    return running


def _subject(job: Job) -> Subject:
    return Subject(job.pipe, job.device, job.largest, known=job.known, unloaded=job.unloaded)


def _check_kept(subject: Subject, kept: Mapping[str, Any]) -> None:
    for lever in ORDER:
        if kept.get(lever.name) is not None:
            lever.check(subject, kept[lever.name])


def _space(subject: Subject, found: Plan) -> Space:
    domains = {lever.name: lever.domain(subject) for lever in ORDER}
    return Space(
        values={name: domain.values for name, domain in domains.items()},
        reasons={name: domain.reason for name, domain in domains.items()},
        found=found,
    )


def _replayers(job: Job, recordings: Sequence[Recordings], traces: Sequence[Traces]) -> list[Replayer]:
    """One for each workload."""
    return [
        Replayer(
            traced,
            model=job.model,
            device=job.device,
            steps=recording.workload.steps or 1,
            undo=job.undo,
            found=job.found,
            settings=job.allocator,
            torch_version=job.torch_version,
        )
        for recording, traced in zip(recordings, traces, strict=True)
    ]


def _worst(replayers: Sequence[Replayer]) -> Callable[[Sequence[Plan]], list[Estimate]]:
    """An estimate for each plan; of several workloads the one that needs most counts."""

    def worst(plans: Sequence[Plan]) -> list[Estimate]:
        return [_largest(several) for several in zip(*(replayer(plans) for replayer in replayers), strict=True)]

    return worst


def _least(replayers: Sequence[Replayer]) -> Pricing:
    """What plans cost at least."""

    def least(values: Mapping[str, Sequence[Any]], codes: NDArray[np.int64]) -> Costs:
        return Costs.least([replayer.costs(values, codes) for replayer in replayers])

    return least


def _with_kernels(candidate: Candidate) -> Candidate:
    """The candidate with the kernels of attention that it takes among its reasons."""
    estimate, plan = candidate.estimate, candidate.plan
    if estimate.attention is None or "attention" not in plan.reasons:
        return candidate
    reasons = plan.reasons | {"attention": f"{estimate.attention.words}; {plan.reasons['attention']}"}
    return candidate.model_copy(update={"plan": plan.model_copy(update={"reasons": reasons})})


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
