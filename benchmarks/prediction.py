"""What autotune says of one case: traced once, replayed on every card its records ran on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from autotune.flow.planning import collecting_no_garbage
from autotune.flow.recordings import Recordings
from autotune.records.device import Device
from autotune.records.plan import LEVERS, Plan
from autotune.records.trace import Trace
from autotune.search.space import Space
from autotune.simulate.allocator import Allocator, OutOfMemory
from autotune.simulate.replay import Replayer
from autotune.simulate.workspace import context_bytes
from benchmarks.cases import Case, job_of, plan_of

__all__ = ["Predicted", "predict"]


class Predicted(NamedTuple):
    """One case on one card."""

    allocated_bytes: int
    reserved_bytes: int
    process_bytes: int
    margin_bytes: int
    fits: bool
    """Whether the call goes through on the whole card, the error bar kept free."""
    phase: str
    """Where the peak is."""
    untraced: str
    """Components without a trace."""


def predict(case: Case, devices: Iterable[Device]) -> dict[str, Predicted]:
    """The case on each of the devices, by the device's name.

    Raises:
        AutotuneError: the pipeline refuses the call.
    """
    devices = list(devices)
    plan = plan_of(case)
    job = job_of(case, devices[0])
    with collecting_no_garbage():
        recordings = Recordings(job, job.largest, job.calls[0], untouched=True)
        traces = recordings.traces(Space(values={name: (getattr(plan, name),) for name in LEVERS}))
    if case.denoiser_only:
        traces = {key: _one_forward(trace, job.model.denoisers) for key, trace in traces.items()}
    found = {}
    for device in devices:
        replayer = Replayer(traces, model=job.model, device=device, steps=job.largest.steps or 1, undo=False)
        found[device.name] = _on(replayer, plan, device, job.model.denoisers if case.graphed else frozenset())
    return found


def _on(replayer: Replayer, plan: Plan, device: Device, graphed: frozenset[str]) -> Predicted:
    timeline = replayer.timeline(plan, graphed=graphed)
    estimate = replayer.exact(plan)
    free_bytes = device.total_bytes - context_bytes(device) - estimate.margin_bytes
    try:
        timeline.run(Allocator(limit_bytes=free_bytes), calls=2)
        fits = True
    except OutOfMemory:
        fits = False
    return Predicted(
        allocated_bytes=estimate.allocated_bytes,
        reserved_bytes=estimate.reserved_bytes,
        process_bytes=estimate.process_bytes,
        margin_bytes=estimate.margin_bytes,
        fits=fits,
        phase=estimate.peak_phase.name,
        untraced=", ".join(note.split(" ")[0] for note in estimate.notes if "could not be traced" in note),
    )


def _one_forward(trace: Trace, denoisers: frozenset[str]) -> Trace:
    """The first call of the denoiser, with nothing else on the card."""
    segment = next(segment for segment in trace.segments if segment.component in denoisers)
    name = segment.component
    return trace.model_copy(
        update={
            "segments": (segment,),
            "weights": {part: size if part == name else 0 for part, size in trace.weights.items()},
            "resident_buffers": {part: size if part == name else 0 for part, size in trace.resident_buffers.items()},
            "tensors": {path: own for path, own in trace.tensors.items() if path.split(".")[0] == name},
        }
    )
