"""What autotune says of one case: traced once, replayed for every run its records made of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from autotune.flow.job import Job
from autotune.flow.planning import collecting_no_garbage
from autotune.flow.recordings import Recordings
from autotune.records.device import Device
from autotune.records.plan import LEVERS, Plan
from autotune.records.trace import Trace
from autotune.search.space import Space
from autotune.simulate.allocator import OutOfMemory
from autotune.simulate.latency import Code
from autotune.simulate.margins import COMPUTING, Bar, Moves, latency_bar, moves_of
from autotune.simulate.replay import Replayer
from autotune.simulate.workspace import context_bytes
from autotune.trace.turns import Stretch, denoiser_calls
from benchmarks.cases import Case, Run, job_of, plan_of

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
    call_s: float = 0.0
    """One call with the run's steps, or one forward of the denoiser where the case is only that."""
    iteration_s: float = 0.0
    """One iteration of the progress bar in the steady state: the denoiser, guidance and scheduler of the whole batch."""
    moves: Moves = "none"
    """How its weights move."""
    moving_share: float = 0.0
    """Of the call's seconds, those that weights move."""
    bar: Bar = COMPUTING[False]
    """Error bar of the call's seconds."""


def predict(case: Case, runs: Iterable[Run]) -> dict[Run, Predicted]:
    """The case in each of the runs. Bytes are those of its device; compilers and steps change the seconds alone.

    Raises:
        AutotuneError: the pipeline refuses the call.
    """
    runs = list(runs)
    plan = plan_of(case)
    job = job_of(case, runs[0].device)
    with collecting_no_garbage():
        recordings = Recordings(job, job.largest, job.calls[0])
        traces = recordings.traces(Space(values=dict.fromkeys(LEVERS, (None,))))
    if case.denoiser_only:
        traces = {key: _one_forward(trace, job.model.denoisers) for key, trace in traces.items()}
    bytes_on: dict[Device, Predicted] = {}
    replayers: dict[tuple[object, ...], Replayer] = {}
    found = {}
    for run in runs:
        steps = 1 if case.denoiser_only else run.steps or job.largest.steps or 1
        key = (run.device, steps, run.call_a_step, run.code, run.vae_compiled)
        if key not in replayers:
            called = traces
            if not case.denoiser_only:
                called = {name: _called(trace, job, steps, run) for name, trace in traces.items()}
            replayers[key] = Replayer(
                called, model=job.model, device=run.device, steps=steps, undo=False, found=plan, code=_codes(run, job)
            )
        if run.device not in bytes_on:
            graphed = job.model.denoisers if case.graphed else frozenset()
            bytes_on[run.device] = _on(replayers[key], plan, run.device, graphed)
        estimate = replayers[key].estimate(plan.model_copy(update={"tf32": run.tf32}))
        moving_share = estimate.transfer_s / (estimate.latency_s or 1.0)
        done = int(steps * _stretch(job).share) or 1  # image-to-image: the bar shows only the steps that are done
        found[run] = bytes_on[run.device]._replace(
            call_s=estimate.latency_s,
            iteration_s=estimate.step_s * steps / done,
            moves=moves_of(plan),
            moving_share=moving_share,
            bar=latency_bar(run.device, plan, moving_share),
        )
    return found


def _codes(run: Run, job: Job) -> dict[str, Code]:
    """How the run had its networks compiled: the denoiser with its ControlNet, and the VAE if it says so."""
    compiled = set(job.model.denoisers) | {part.name for part in job.model.components if part.role == "controlnet"}
    if run.vae_compiled:
        compiled.add("vae")
    return dict.fromkeys(compiled, run.code)


def _called(trace: Trace, job: Job, steps: int, run: Run) -> Trace:
    """The trace with as many calls of the denoiser as there are in the run's steps."""
    recorded_steps, stretch = job.largest.steps or 1, _stretch(job)
    calls = denoiser_calls(
        getattr(job.pipe, "scheduler", None),
        trace.denoiser_calls,
        recorded_steps=recorded_steps,
        steps=steps,
        stretch=stretch,
    )
    if run.call_a_step:
        calls = trace.denoiser_calls // (int(recorded_steps * stretch.share) or 1) * int(steps * stretch.share)
    return trace.model_copy(update={"denoiser_calls": calls})


def _stretch(job: Job) -> Stretch:
    """The part of its steps that the call makes, less than all in image-to-image."""
    return Stretch.of(job.calls[0])


def _on(replayer: Replayer, plan: Plan, device: Device, graphed: frozenset[str]) -> Predicted:
    timeline = replayer.timeline(plan, graphed=graphed)
    estimate = replayer.estimate(plan)
    free_bytes = device.total_bytes - context_bytes(device) - estimate.margin_bytes
    try:
        timeline.run(free_bytes, calls=2)
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
            "denoiser_calls": 1,
            "weights": {part: size if part == name else 0 for part, size in trace.weights.items()},
            "resident_buffers": {part: size if part == name else 0 for part, size in trace.resident_buffers.items()},
            "tensors": {path: own for path, own in trace.tensors.items() if path.split(".")[0] == name},
        }
    )
