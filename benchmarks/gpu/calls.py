"""One model under one plan: what is predicted for its first and second call beside what the card counts, and its seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import autotune
from autotune.flow.job import Job, job_for
from autotune.flow.planning import collecting_no_garbage
from autotune.flow.recordings import Recordings
from autotune.records.device import Device
from autotune.records.estimate import Estimate
from autotune.records.plan import LEVERS, Plan
from autotune.search.space import Space
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.replay import Replayer
from autotune.simulate.timeline import Usage
from autotune.simulate.workspace import context_bytes
from autotune.zoo.build import quiet
from benchmarks.gpu.card import Card
from benchmarks.gpu.grid import Setting
from benchmarks.gpu.models import Loaded, require_room
from benchmarks.gpu.results import Found
from benchmarks.gpu.seconds import Predictions, Timed, compared, timed, warm

__all__ = ["CALLS", "Calls", "predicted", "recordings_of"]

CALLS = ("first", "steady")
"""The first call after a plan was applied, and the next one: what the first left in the cache is reserved then."""

_WARM_S = 1.0  # calls after the first are repeated for so long
_MOST_WARM_CALLS = 5


class Calls:
    """One pipeline on one card. A call is recorded once for each batch."""

    def __init__(self, card: Card, loaded: Loaded, predictions: Predictions) -> None:
        self.name = loaded.name
        self._card, self._loaded, self._predictions = card, loaded, predictions
        self._recorded: dict[int, tuple[Job, Recordings]] = {}

    def compare(self, setting: Setting, found: Found) -> None:
        """Predicts, then runs, counts and times."""
        job, recordings = self._recordings(setting.batch)
        plan = setting.plan_for(job.largest)
        found |= {"model": self._loaded.name, "setting": setting.label, "plan": plan.changes, "batch": setting.batch}
        found |= {"workload": job.largest.label, "weights_bytes": self._loaded.weights_bytes}
        found["predicted"], estimate, again = predicted(job, recordings, plan)
        found |= {"measured": {}, "seconds": {}}
        self._predictions.add(found["seconds"], estimate, again)
        self._measure(job, plan, found["measured"], found["seconds"])
        compared(found["seconds"])

    def once(self, plan: Plan) -> None:
        """One call under the plan, from weights in RAM to weights in RAM."""
        job, _ = self._recordings(1)
        self._measure(job, plan, {}, None)

    def _recordings(self, batch: int) -> tuple[Job, Recordings]:
        if batch not in self._recorded:
            self._recorded[batch] = recordings_of(self._loaded, self._card.device, batch)
        return self._recorded[batch]

    def _measure(self, job: Job, plan: Plan, measured: Found, seconds: Found | None) -> None:
        """The first call, and warm ones where seconds are asked for."""
        card, pipe = self._card, self._loaded.pipe
        if "+stream" in (plan.offload or ""):
            require_room(self._loaded.weights_bytes, why="a pinned copy of the weights")
        card.settle()
        measured["allocated_before_bytes"] = card.allocated_bytes()
        try:
            with quiet():
                start_s = time.perf_counter()
                autotune.apply(pipe, plan, device=job.device.torch_device, workload=job.largest)
                card.synchronize()
                measured["apply_s"] = round(time.perf_counter() - start_s, 3)
                measured["first"], _ = self._counted(job)
                if seconds is not None:
                    measured["steady"], steady = self._counted(job)
                    seconds |= warm(self._repeated(job, steady))
        finally:
            autotune.restore(pipe)
            card.settle()

    def _repeated(self, job: Job, steady: Timed) -> list[Timed]:
        """More calls like the steady one, as many as a short time allows."""
        calls = [steady]
        while len(calls) < _MOST_WARM_CALLS and sum(call.call_s for call in calls) < _WARM_S:
            calls.append(self._timed(job))
        return calls

    def _timed(self, job: Job) -> Timed:
        return timed(self._card, self._loaded.pipe, job.calls[0], steps=job.largest.steps or 1)

    def _counted(self, job: Job) -> tuple[Found, Timed]:
        card = self._card
        card.reset_peaks()
        call = self._timed(job)
        peaks, outside = card.peaks(), card.outside()
        process_bytes = None
        if outside.outside_bytes is not None and peaks.reserved_bytes is not None:
            process_bytes = outside.outside_bytes + peaks.reserved_bytes
        found = {
            **peaks._asdict(),
            "process_bytes": process_bytes,
            "outside_bytes": outside.outside_bytes,
            "process_source": outside.source,
            "call_s": round(call.call_s, 3),
        }
        return found, call


def recordings_of(loaded: Loaded, device: Device, batch: int, *, torch: str | None = None) -> tuple[Job, Recordings]:
    """The model's call with that many images on a device that need not be here; there, this version of torch runs."""
    workload = loaded.workload.model_copy(update={"batch": batch})
    settings = None if torch is None else Settings()
    job = job_for(
        loaded.pipe, device=device, workload=workload, example=None, calls=1, undo=True, allocator=settings,
        torch_version=torch,
    )  # fmt: skip
    return job, Recordings(job, job.largest, job.calls[0])


def predicted(job: Job, recordings: Recordings, plan: Plan) -> tuple[Found, Estimate, Callable[[Device], Estimate]]:
    """Bytes of both calls, the estimate, and how to have its seconds for another device, without holding the pipeline."""
    start_s = time.perf_counter()
    with collecting_no_garbage():
        traces = recordings.traces(Space(values={name: (getattr(plan, name),) for name in LEVERS}))
    replaying = partial(
        Replayer, traces, model=job.model, steps=job.largest.steps or 1, undo=job.undo,
        settings=job.allocator, torch_version=job.torch_version,
    )  # fmt: skip
    replayer = replaying(device=job.device)
    timeline, estimate = replayer.timeline(plan), replayer.estimate(plan)
    usages = dict(zip(CALLS, (timeline.run(calls=1), timeline.run(calls=2)), strict=True))
    found = {
        **{name: _bytes_of(job, usage) for name, usage in usages.items()},
        "margin_bytes": estimate.margin_bytes,
        "notes": list(estimate.notes),
        "prediction_s": round(time.perf_counter() - start_s, 3),
    }
    return found, estimate, lambda device: replaying(device=device).estimate(plan)


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
