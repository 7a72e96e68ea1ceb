"""One model under one plan: what is predicted for its first and second call beside what the card counts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import autotune
from autotune.flow.job import Job, job_for
from autotune.flow.planning import collecting_no_garbage
from autotune.flow.recordings import Recordings
from autotune.records.plan import LEVERS, Plan
from autotune.search.space import Space
from autotune.simulate.replay import Replayer
from autotune.simulate.timeline import Usage
from autotune.simulate.workspace import context_bytes
from autotune.zoo.build import quiet
from benchmarks.gpu.card import Card
from benchmarks.gpu.grid import Setting
from benchmarks.gpu.models import Loaded, require_room
from benchmarks.gpu.results import Found

__all__ = ["CALLS", "Calls"]

CALLS = ("first", "steady")
"""The first call after a plan was applied, and the next one: what the first left in the cache is reserved then."""


class Calls:
    """One pipeline on one card. A call is recorded once for each batch."""

    def __init__(self, card: Card, loaded: Loaded) -> None:
        self.name = loaded.name
        self._card, self._loaded = card, loaded
        self._recorded: dict[int, tuple[Job, Recordings]] = {}

    def compare(self, setting: Setting, found: Found) -> None:
        """Predicts, then runs and counts."""
        job, recordings = self._recordings(setting.batch)
        plan = setting.plan_for(job.largest)
        found |= {"model": self._loaded.name, "setting": setting.label, "plan": plan.changes, "batch": setting.batch}
        found |= {"workload": job.largest.label, "weights_bytes": self._loaded.weights_bytes}
        found["predicted"] = _predicted(job, recordings, plan)
        measured: Found = {}
        found["measured"] = measured
        self._measure(job, plan, measured)

    def once(self, plan: Plan) -> None:
        """One call under the plan, from weights in RAM to weights in RAM."""
        job, _ = self._recordings(1)
        self._measure(job, plan, {}, calls=CALLS[:1])

    def _recordings(self, batch: int) -> tuple[Job, Recordings]:
        if batch not in self._recorded:
            workload = self._loaded.workload.model_copy(update={"batch": batch})
            job = job_for(
                self._loaded.pipe, device=self._card.device, workload=workload, example=None, calls=1, undo=True
            )
            self._recorded[batch] = job, Recordings(job, job.largest, job.calls[0])
        return self._recorded[batch]

    def _measure(self, job: Job, plan: Plan, measured: Found, *, calls: Sequence[str] = CALLS) -> None:
        card, pipe = self._card, self._loaded.pipe
        if "+stream" in plan.offload:
            require_room(self._loaded.weights_bytes, why="a pinned copy of the weights")
        card.settle()
        measured["allocated_before_bytes"] = card.allocated_bytes()
        try:
            with quiet():
                start_s = time.perf_counter()
                autotune.apply(pipe, plan, device=job.device.torch_device, workload=job.largest)
                card.synchronize()
                measured["apply_s"] = round(time.perf_counter() - start_s, 3)
                for name in calls:
                    measured[name] = self._called(job)
        finally:
            autotune.restore(pipe)
            card.settle()

    def _called(self, job: Job) -> Found:
        card = self._card
        card.reset_peaks()
        start_s = time.perf_counter()
        self._loaded.pipe(**job.calls[0])
        card.synchronize()
        call_s = time.perf_counter() - start_s
        peaks, outside = card.peaks(), card.outside()
        process_bytes = None
        if outside.outside_bytes is not None and peaks.reserved_bytes is not None:
            process_bytes = outside.outside_bytes + peaks.reserved_bytes
        return {
            **peaks._asdict(),
            "process_bytes": process_bytes,
            "outside_bytes": outside.outside_bytes,
            "process_source": outside.source,
            "call_s": round(call_s, 3),
        }


def _predicted(job: Job, recordings: Recordings, plan: Plan) -> Found:
    start_s = time.perf_counter()
    with collecting_no_garbage():
        traces = recordings.traces(Space(values={name: (getattr(plan, name),) for name in LEVERS}))
    replayer = Replayer(traces, model=job.model, device=job.device, steps=job.largest.steps or 1, undo=job.undo)
    timeline, estimate = replayer.timeline(plan), replayer.exact(plan)
    usages = dict(zip(CALLS, (timeline.run(calls=1), timeline.run(calls=2)), strict=True))
    return {
        **{name: _bytes_of(job, usage) for name, usage in usages.items()},
        "margin_bytes": estimate.margin_bytes,
        "notes": list(estimate.notes),
        "prediction_s": round(time.perf_counter() - start_s, 3),
    }


def _bytes_of(job: Job, usage: Usage) -> dict[str, Any]:
    return {
        "allocated_bytes": usage.peak_allocated_bytes,
        "reserved_bytes": usage.peak_reserved_bytes,
        "process_bytes": context_bytes(job.device) + usage.peak_reserved_bytes,
        "phases": {
            phase: {"allocated_bytes": allocated, "reserved_bytes": usage.reserved_bytes[phase]}
            for phase, allocated in usage.allocated_bytes.items()
        },
    }
