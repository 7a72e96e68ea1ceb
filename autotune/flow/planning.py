"""From a job to a front: traces what must be traced, replays the rest."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

from autotune.errors import PlanError
from autotune.flow.fronts import Findings, Place, Traced, front_from, named_space, replayer_of, running, worst
from autotune.flow.job import Job
from autotune.flow.kept import CARD, cards_by_kind, in_json
from autotune.flow.recordings import Recordings, is_small
from autotune.levers.base import Subject
from autotune.levers.engine import ORDER, check
from autotune.levers.precisions import Precisions, as_found, precisions
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate, Front
from autotune.records.kept import Offer
from autotune.records.model import DenoiserFacts
from autotune.records.plan import LEVERS, Plan
from autotune.records.precision import Precision
from autotune.records.workload import Workload
from autotune.search.space import Space

__all__ = [
    "as_it_is",
    "collecting_no_garbage",
    "estimates",
    "facts_for",
    "findings_of",
    "found_in",
    "front_of",
    "offers_of",
    "place_for",
    "space_of",
    "standing",
]


def front_of(
    job: Job, *, keep: Mapping[str, Any] | None = None, forbid: tuple[str, ...] = (), allow: tuple[str, ...] = ()
) -> Front:
    """Traces what must be traced, estimates the space, keeps the front. A forbidden lever stays as it is now."""
    findings = findings_of(job, keep=keep, forbid=forbid, allow=allow)
    return front_from(findings, place_for(job), progress=lambda done, total: job.tell("searching", done, total))


def findings_of(
    job: Job, *, keep: Mapping[str, Any] | None = None, forbid: tuple[str, ...] = (), allow: tuple[str, ...] = ()
) -> Findings:
    """Traces what the space needs."""
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
        calls = tuple(Traced(one.made, one.traces(space), one.refused) for one in recordings)
        named = None if "dtype" in fixed else named_space(running(space, calls), choice.named)
        if named is not None:
            calls = tuple(map(_with_named, calls, recordings, repeat(named)))
    return Findings(
        model=job.model,
        found=job.found,
        precise=found_in(job),
        undo=job.undo,
        calls=calls,
        largest=_of_largest(job, recordings).made,
        space=space,
        denoisers=dict(subject.denoisers),
        named=named,
        caution=_caution(job, choice, fixed) if named or "dtype" in fixed else "",
    )


def _with_named(call: Traced, recording: Recordings, named: Space) -> Traced:
    """The same with plans that are only told, as far as they run."""
    try:
        return call._replace(traces={**call.traces, **recording.traces(named)})
    except PlanError:
        return call


def offers_of(job: Job, findings: Findings) -> dict[str, Offer]:
    """What the levers offer for the call on every kind of card that there is, as far as its traces tell; by kind."""
    plain = findings.calls[0].traces.get(Plan().execution)
    if plain is None:
        return {}
    small = {name for name, facts in findings.denoisers.items() if facts.small}
    subject = _subject(job)._replace(denoisers=findings.denoisers, workload=findings.largest)
    offers = {}
    for kind, card in cards_by_kind().items():
        if {name for name in findings.denoisers if is_small(plain, name, card)} == small:
            there = subject._replace(device=card)
            space, choice = _space(there, findings.found), precisions(there)
            offers[kind] = Offer(
                values={name: tuple(in_json(name, value) for value in mine) for name, mine in space.values.items()},
                reasons={name: why.replace(card.name, CARD) for name, why in space.reasons.items()},
                denoisers=findings.denoisers,
                named=tuple(in_json("dtype", dtype) for dtype in choice.named),
                caution=choice.caution.replace(card.name, CARD),
            )
    return offers


def place_for(job: Job) -> Place:
    """Where the job's plans are to run."""
    return Place(job.device, job.allocator, job.torch_version)


def found_in(job: Job) -> Plan:
    """The job's pipeline as it is, with the precision of each network."""
    return job.found.model_copy(update={"dtype": as_found(job.pipe)})


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
    calls = [Traced(one.made, traced, one.refused) for one, traced in zip(recordings, traces, strict=True)]
    replayers = [replayer_of(call, job.model, place_for(job), undo=job.undo, found=job.found) for call in calls]
    return _of_largest(job, recordings).made, worst(replayers)(plans)


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
