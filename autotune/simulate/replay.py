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
from autotune.records.plan import Plan, group_offload
from autotune.records.trace import Segment, Trace
from autotune.simulate.latency import LATENCY_MARGIN, moved_s, on_host_s, segment_time, setup_s
from autotune.simulate.memory import Peak, SegmentMemory, segment_memory
from autotune.simulate.residency import Stay, apart, never_waits, residency
from autotune.simulate.streams import Brought, brought
from autotune.simulate.workspace import context_bytes, cublas_bytes, margin_bytes, slack_bytes
from autotune.units import GIB

__all__ = ["ACCOUNTED", "Replayer"]

ACCOUNTED: dict[str, str] = {
    "dtype": "a trace of its own; originals kept for undo count as host RAM",
    "tf32": "rate of fp32 matrix products",
    "channels_last": "convolutions recorded again: no layout copies, a higher share of the peak rate",
    "attention": "recorded again where scores are written out; else the kernel that is taken and its temporaries",
    "feed_forward_chunks": "the denoiser's calls recorded again, chunks replayed",
    "batch_split": "the denoiser's calls recorded again, parts replayed; streamed weights come once for each",
    "vae_slicing": "the VAE's calls recorded again, slices replayed",
    "vae_tiling": "the VAE's calls recorded again, tiles replayed",
    "vae_framewise": "the VAE's calls recorded again, runs of frames replayed",
    "compile": "launches, Python's share and traffic between pointwise kernels; seconds of the first call apart",
    "offload": "which weights are on the device in each segment, and their transfers",
    "text_encoders": "whose weights are on the device while encoding, their moves; on the CPU, seconds of an ordinary one",
}
"""How a replay accounts for each lever."""

# A component that could not be traced counts with its weights; what it allocates on top is unknown. Working memory of
# published models lies between 1 and 8 GiB and grows with the model.
_UNTRACED_BYTES = 2 * GIB
_UNTRACED_SHARE = 0.5

# Streams want pinned copies, and torch's pinned allocator rounds each tensor up to a power of two (at most twice its size).
_PINNED_SHARE = 1.5

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
        self._roles = {part.name: part.role for part in model.components}
        self._memory: dict[tuple[int, str], SegmentMemory] = {}
        self._seconds: dict[tuple[int, bool, str, str], float] = {}

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
            setup_s=setup_s(plan.compile),
            undo_bytes=undo,
            steps=self._steps,
            step_s=_steady_s(costs, trace.denoiser_calls or self._steps, self._steps),
            latency_margin=1.0 if trace.untraced else LATENCY_MARGIN,
            source="catalogue",
            notes=tuple(f"{name} could not be traced ({why}): weights only" for name, why in trace.untraced.items()),
        )

    def _costs(self, trace: Trace, plan: Plan) -> list[_Cost]:
        stays = residency(self._model, plan, [segment.component for segment in trace.segments])
        away = apart(self._model, plan)
        buffers = sum(
            size for name, size in trace.resident_buffers.items() if name not in self._model.excluded_from_offload
        )
        costs, live = [], 0
        for segment, stay in zip(trace.segments, stays, strict=True):
            weights = trace.weights | segment.weights
            memory = self._memory_of(segment, trace, plan)
            held = sum(weights[name] for name in stay.components) + (buffers if plan.offload == "sequential" else 0)
            if plan.text_encoders == "cpu" and segment.component in away:
                elsewhere = Peak(0, 0, 0, segment.component)
                costs.append(_Cost(segment, _Moment(held, elsewhere, live), on_host_s(segment), 0.0))
            else:
                compute_s = self._compute_s(segment, plan)
                came = self._brought(segment, memory, stay, plan, weights, compute_s, trace, away)
                moment = _Moment(held + came.base_bytes, came.peak, live)
                costs.append(_Cost(segment, moment, compute_s, self._transfer_s(stay, weights) + came.exposed_s))
            live += memory.net_bytes
        return costs

    def _brought(
        self,
        segment: Segment,
        memory: SegmentMemory,
        stay: Stay,
        plan: Plan,
        weights: Mapping[str, int],
        compute_s: float,
        trace: Trace,
        away: frozenset[str],
    ) -> Brought:
        """Weights that come in parts during the segment; none where the component is on the device already."""
        name = segment.component
        if not name or name in stay.components or name in away or plan.offload in {"none", "model"}:
            return Brought(0, memory.peak, 0.0)
        in_blocks = sum(size for path, size in trace.blocks.items() if path.startswith(f"{name}."))
        return brought(
            memory, plan.offload, role=self._roles[name], rest_bytes=weights[name] - in_blocks, device=self._device,
            compute_s=compute_s,
        )  # fmt: skip

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
        aboard = never_waits(self._model, plan.offload) - apart(self._model, plan)
        group = group_offload(plan.offload)
        pinned = _PINNED_SHARE if group and group.use_stream and not group.low_cpu_mem_usage else 1.0
        waiting = {name: size for name, size in trace.weights.items() if name not in aboard}
        return round(sum(size * (pinned if self._roles.get(name) != "vae" else 1.0) for name, size in waiting.items()))

    def _undo_bytes(self, plan: Plan) -> int:
        """Originals of lowered weights."""
        if plan.dtype == "as_is" or not self._undo:
            return 0
        return sum(part.bytes_by_dtype.get("float32", 0) for part in self._model.components)

    def _memory_of(self, segment: Segment, trace: Trace, plan: Plan) -> SegmentMemory:
        key = (id(segment), plan.attention)
        if key not in self._memory:
            self._memory[key] = segment_memory(segment, self._device, trace.blocks, plan.attention)
        return self._memory[key]

    def _compute_s(self, segment: Segment, plan: Plan) -> float:
        code = plan.compile if segment.component in self._model.denoisers else "none"
        key = (id(segment), plan.tf32, plan.attention, code)
        if key not in self._seconds:
            timing = segment_time(segment, self._device, tf32=plan.tf32, attention=plan.attention, code=code)
            self._seconds[key] = timing.compute_s
        return self._seconds[key]


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
