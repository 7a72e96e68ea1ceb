"""Replaying a trace under plans: bytes and seconds by phase.

Segments are summed up once per device; a plan is then a merge of a few numbers per segment, so whole spaces are estimated,
not sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from autotune.records.device import Device
from autotune.records.estimate import PHASES, Estimate, Phase, PhaseName
from autotune.records.model import Model
from autotune.records.plan import Plan
from autotune.records.trace import Segment, Trace
from autotune.simulate.latency import LATENCY_MARGIN, SegmentTime, moved_s, segment_time
from autotune.simulate.memory import Peak, SegmentMemory, segment_memory
from autotune.simulate.residency import Stay, model_offload, never_waits, resident, sequential_offload
from autotune.simulate.workspace import context_bytes, cublas_bytes, margin_bytes, slack_bytes
from autotune.units import GIB

__all__ = ["ACCOUNTED", "Replayer"]

ACCOUNTED: dict[str, str] = {
    "dtype": "a trace of its own; originals kept for undo count as host RAM",
    "tf32": "rate of fp32 matrix products",
    "attention": "a trace of its own",
    "vae_slicing": "the VAE's calls recorded again, slices replayed",
    "vae_tiling": "the VAE's calls recorded again, tiles replayed",
    "offload": "which weights are on the device in each segment, and their transfers",
}
"""How a replay accounts for each lever."""

# A component that could not be traced counts with its weights; what it allocates on top is unknown. Working memory of
# published models lies between 1 and 8 GiB and grows with the model.
_UNTRACED_BYTES = 2 * GIB
_UNTRACED_SHARE = 0.5

_ROLE_PHASES: dict[str, PhaseName] = {"text_encoder": "encoding", "image_encoder": "encoding", "denoiser": "denoising"}


class _Moment(NamedTuple):
    """The peak of one segment under one plan."""

    weights_bytes: int
    peak: Peak
    base_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.base_bytes + self.peak.total_bytes


class _Cost(NamedTuple):
    """One segment under one plan."""

    segment: Segment
    moment: _Moment
    compute_s: float
    transfer_s: float


class Replayer:
    """Estimates plans for one model, workload and device.

    Args:
        traces: one trace for each `Plan.execution` among the plans.
        model: the pipeline's facts.
        device: where it is to run.
        steps: denoising steps of the call.
        undo: whether originals of lowered weights are kept in RAM.
    """

    def __init__(
        self, traces: Mapping[tuple[object, ...], Trace], *, model: Model, device: Device, steps: int, undo: bool
    ) -> None:
        self._traces = {key: _completed(trace, model) for key, trace in traces.items()}
        self._model, self._device, self._steps, self._undo = model, device, steps, undo
        self._memory: dict[int, SegmentMemory] = {}
        self._time: dict[tuple[int, bool], SegmentTime] = {}

    def __call__(self, plans: Sequence[Plan]) -> list[Estimate]:
        """One estimate a plan."""
        return [self.estimate(plan) for plan in plans]

    def estimate(self, plan: Plan) -> Estimate:
        """Bytes and seconds of one call under the plan."""
        trace = self._traces[plan.execution]
        costs = self._costs(trace, plan)
        phases = tuple(self._phase(name, costs, trace) for name in PHASES)
        top = max(phases, key=lambda phase: phase.peak_bytes)
        context = context_bytes(self._device)
        slack = slack_bytes(self._device, top.activations_bytes + top.workspace_bytes)
        reserved = top.peak_bytes - context
        undo = self._undo_bytes(plan)
        unknown = sum(round(_UNTRACED_SHARE * trace.weights.get(name, 0)) + _UNTRACED_BYTES for name in _guessed(trace))
        return Estimate(
            phases=phases,
            allocated_bytes=reserved - slack,
            reserved_bytes=reserved,
            process_bytes=top.peak_bytes,
            margin_bytes=margin_bytes(self._device, top.peak_bytes) + unknown,
            host_ram_bytes=self._waiting_bytes(plan, trace, top) + undo,
            undo_bytes=undo,
            steps=self._steps,
            step_s=_steady_s(costs, trace.denoiser_calls or self._steps, self._steps),
            latency_margin=1.0 if trace.untraced else LATENCY_MARGIN,
            source="catalogue",
            notes=tuple(f"{name} could not be traced ({why}): weights only" for name, why in trace.untraced.items()),
        )

    def _costs(self, trace: Trace, plan: Plan) -> list[_Cost]:
        leafwise = plan.offload == "sequential"
        place = {"none": resident, "model": model_offload, "sequential": sequential_offload}[plan.offload]
        stays = place(self._model, [segment.component for segment in trace.segments])
        buffers = sum(
            size for name, size in trace.resident_buffers.items() if name not in self._model.excluded_from_offload
        )
        costs, live = [], 0
        for segment, stay in zip(trace.segments, stays, strict=True):
            memory, weights = self._memory_of(segment), trace.weights | segment.weights
            leaves = leafwise and segment.component not in stay.components
            held = sum(weights[name] for name in stay.components) + (buffers if leafwise else 0)
            peak = memory.leaf_peak if leaves else memory.peak
            timing = self._time_of(segment, plan.tf32)
            transfer_s = self._transfer_s(stay, weights)
            if leaves:
                transfer_s += moved_s(self._device, memory.leaf_bytes, by_tensor=True, modules=memory.leaf_modules)
            costs.append(_Cost(segment, _Moment(held, peak, live), timing.compute_s, transfer_s))
            live += memory.net_bytes
        return costs

    def _transfer_s(self, stay: Stay, weights: Mapping[str, int]) -> float:
        return sum(moved_s(self._device, weights[move.component]) for move in stay.moves)

    def _phase(self, name: PhaseName, costs: list[_Cost], trace: Trace) -> Phase:
        mine = [cost for cost in costs if cost.segment.phase == name]
        calls = trace.denoiser_calls or self._steps
        if not mine:
            top = _Moment(0, Peak(0, 0, 0, "nothing"), 0)
        else:
            top = max((cost.moment for cost in mine), key=self._reserved_bytes)
        activations, workspace = top.base_bytes + top.peak.activations_bytes, top.peak.workspace_bytes
        overhead = context_bytes(self._device) + cublas_bytes(self._device)
        overhead += slack_bytes(self._device, activations + workspace)
        weights = top.weights_bytes + top.peak.weights_bytes
        repeat = _repeated if name == "denoising" else _once
        return Phase(
            name=name,
            peak_bytes=weights + activations + workspace + overhead,
            weights_bytes=weights,
            activations_bytes=activations,
            workspace_bytes=workspace,
            overhead_bytes=overhead,
            compute_s=repeat([(cost.segment.turn, cost.compute_s) for cost in mine], calls),
            transfer_s=repeat([(cost.segment.turn, cost.transfer_s) for cost in mine], calls),
            moment=top.peak.module,
        )

    def _reserved_bytes(self, moment: _Moment) -> int:
        """A moment with what the allocator holds beyond it."""
        return moment.total_bytes + slack_bytes(self._device, moment.total_bytes - moment.weights_bytes)

    def _waiting_bytes(self, plan: Plan, trace: Trace, top: Phase) -> int:
        """RAM for weights that wait; on the CPU everything is in RAM."""
        if self._device.kind == "cpu":
            return top.peak_bytes
        if plan.offload == "none":
            return 0
        aboard = never_waits(self._model, plan.offload)
        return sum(size for name, size in trace.weights.items() if name not in aboard)

    def _undo_bytes(self, plan: Plan) -> int:
        """Originals of lowered weights."""
        if plan.dtype == "as_is" or not self._undo:
            return 0
        return sum(part.bytes_by_dtype.get("float32", 0) for part in self._model.components)

    def _memory_of(self, segment: Segment) -> SegmentMemory:
        if id(segment) not in self._memory:
            self._memory[id(segment)] = segment_memory(segment, self._device)
        return self._memory[id(segment)]

    def _time_of(self, segment: Segment, tf32: bool) -> SegmentTime:
        key = (id(segment), tf32)
        if key not in self._time:
            self._time[key] = segment_time(segment, self._device, tf32=tf32)
        return self._time[key]


def _once(seconds: list[tuple[int, float]], _calls: int) -> float:
    return sum(value for _, value in seconds)


def _repeated(seconds: list[tuple[int, float]], calls: int) -> float:
    """The first turn, and the mean of the later ones for each further call of the denoiser."""
    turns: dict[int, float] = {}
    for turn, value in seconds:
        turns[turn] = turns.get(turn, 0.0) + value
    if not turns:
        return 0.0
    first, *later = (turns[turn] for turn in sorted(turns))
    return first + (calls - 1) * (sum(later) / len(later) if later else first)


def _steady_s(costs: list[_Cost], calls: int, steps: int) -> float:
    """One step once everything is in its place."""
    denoising = [(c.segment.turn, c.compute_s + c.transfer_s) for c in costs if c.segment.phase == "denoising"]
    more = _repeated(denoising, calls + 1) - _repeated(denoising, calls)
    return more * calls / steps


def _guessed(trace: Trace) -> list[str]:
    return [name for name in trace.untraced if name in trace.weights]


def _completed(trace: Trace, model: Model) -> Trace:
    """The trace with an empty segment for each component that was not reached, so that its weights have their turn."""
    called = {segment.component for segment in trace.segments}
    missing = [part for part in model.components if part.name in trace.untraced and part.name not in called]
    if not missing:
        return trace
    extra = [_empty(part.name, _ROLE_PHASES.get(part.role, "decoding")) for part in missing]
    order = {name: place for place, name in enumerate(PHASES)}
    segments = sorted((*trace.segments, *extra), key=lambda segment: order[segment.phase])
    return trace.model_copy(update={"segments": tuple(segments)})


def _empty(component: str, phase: PhaseName) -> Segment:
    return Segment(
        component=component,
        method="forward",
        phase=phase,
        turn=0 if phase == "denoising" else -1,
        kind=np.zeros(0, np.int8),
        ref=np.zeros(0, np.int32),
        size=np.zeros(0, np.int64),
        op_class=np.zeros(0, np.int8),
        op_dtype=np.zeros(0, np.int8),
        op_flops=np.zeros(0),
        op_bytes=np.zeros(0),
        op_kernels=np.zeros(0, np.int32),
        op_conv_bytes=np.zeros(0, np.int64),
    )
