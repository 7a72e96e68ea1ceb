"""Replaying a trace under plans: bytes and seconds by phase.

Seconds are a merge of a few numbers per segment; bytes are those of the allocator that every tensor of the call goes through.
Both are quick enough for whole spaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.costs import Costs
from autotune.records.device import Device
from autotune.records.estimate import PHASES, Estimate, Phase, PhaseName
from autotune.records.model import Model
from autotune.records.placement import Placement, placed
from autotune.records.plan import EXECUTION_LEVERS, PLAIN, Plan
from autotune.records.trace import Segment, Trace
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.attention import attention_use
from autotune.simulate.costs import CostTable
from autotune.simulate.latency import Code, setup_s
from autotune.simulate.margins import Bar, latency_bar, margin_bytes
from autotune.simulate.memory import Peak
from autotune.simulate.programs import Programs
from autotune.simulate.quirks import notes_on, quirks_of
from autotune.simulate.ram import Ram, undo_bytes, waiting_ram
from autotune.simulate.residency import Move, residency
from autotune.simulate.segments import Run, Segments
from autotune.simulate.steps import over_call_s, steady_s
from autotune.simulate.timeline import Timeline, Usage
from autotune.simulate.untraced import completed, unknown_bytes
from autotune.simulate.workspace import context_bytes

__all__ = ["ACCOUNTED", "Replayer"]

ACCOUNTED: dict[str, str] = {
    "dtype": "a trace of its own; originals kept for undo count as host RAM",
    "tf32": "rate of fp32 matrix products",
    "channels_last": "convolutions recorded again, without layout copies",
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
_FUSED = (
    "sdpa"  # attention that is left as found goes where torch's dispatcher sends it, as diffusers' own processors do
)


class _Moment(NamedTuple):
    """The peak of one segment under one plan."""

    components: Mapping[str, int]
    """Weights that are there for the whole segment, by component."""
    peak: Peak
    base_bytes: int

    @property
    def weights_bytes(self) -> int:
        return sum(self.components.values())

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
        found: the pipeline without a plan: what plans leave as found.
        code: how components are compiled, where that is not what the plan says.
        settings: of the process's allocator; torch's defaults if None.
        torch_version: what runs there; None if that is not known.
    """

    def __init__(
        self,
        traces: Mapping[tuple[object, ...], Trace],
        *,
        model: Model,
        device: Device,
        steps: int,
        undo: bool,
        found: Plan = PLAIN,
        code: Mapping[str, Code] | None = None,
        settings: Settings | None = None,
        torch_version: str | None = None,
    ) -> None:
        self._found = found
        self._traces = {self._whole(key): completed(trace, model) for key, trace in traces.items()}
        self._model, self._device, self._steps, self._undo = model, device, steps, undo
        self._code, self._settings = code or {}, settings
        self._torch_version, self._quirks = torch_version, quirks_of(device, torch_version)
        self._segments = Segments(device, self._quirks, next(iter(self._traces.values())))
        self._programs = Programs(device, self._quirks, settings)
        self._usages: dict[tuple[object, ...], Usage] = {}
        self._rams: dict[tuple[object, ...], Ram] = {}
        chosen = EXECUTION_LEVERS.index("attention")
        self._attention = {
            key: attention_use(trace, device, str(key[chosen] or _FUSED)) for key, trace in self._traces.items()
        }

    def __call__(self, plans: Sequence[Plan]) -> list[Estimate]:
        """One estimate a plan."""
        return [self.estimate(plan) for plan in plans]

    def _whole(self, execution: tuple[object, ...]) -> tuple[object, ...]:
        """The values of the execution levers with those that are found."""
        return Plan(**dict(zip(EXECUTION_LEVERS, execution, strict=True))).over(self._found).execution

    def estimate(self, plan: Plan) -> Estimate:
        """Bytes and seconds of one call under the plan: on a card bytes of an allocator that every tensor has gone through."""
        plan = plan.over(self._found)
        trace = self._traces[plan.execution]
        costs, usage = self._costs(trace, plan), self._usage(plan)
        phases = tuple(self._phase(name, costs, trace, usage) for name in PHASES)
        process_bytes = max(phase.peak_bytes for phase in phases)
        reserved_bytes = process_bytes - context_bytes(self._device)
        undo = undo_bytes(self._model, plan) if self._undo else 0
        on_cpu = self._device.kind == "cpu"
        ram = Ram(process_bytes) if on_cpu else self._ram(placed(self._model, plan), trace)
        bar = self._latency_bar(plan, phases)
        return Estimate(
            phases=phases,
            allocated_bytes=reserved_bytes if usage is None else usage.peak_allocated_bytes,
            reserved_bytes=reserved_bytes,
            process_bytes=process_bytes,
            margin_bytes=margin_bytes(self._device, plan.offload, process_bytes) + unknown_bytes(trace),
            host_ram_bytes=ram.peak_bytes + undo,
            setup_s=setup_s(plan.compile or "none"),
            undo_bytes=undo,
            pinned_bytes=ram.pinned_bytes,
            installing_bytes=ram.installing_bytes,
            steps=self._steps,
            step_s=steady_s([(cost.segment, cost.compute_s + cost.transfer_s) for cost in costs])
            * (trace.denoiser_calls or self._steps)
            / self._steps,
            latency_margin=bar.more,
            latency_margin_less=bar.less,
            attention=self._attention[plan.execution],
            source=self._device.speed.source if self._device.speed else "catalogue",
            untraced=tuple(trace.untraced),
            notes=self._notes(plan),
        )

    def _latency_bar(self, plan: Plan, phases: Sequence[Phase]) -> Bar:
        moving_s, all_s = sum(phase.transfer_s for phase in phases), sum(phase.latency_s for phase in phases)
        bar = latency_bar(self._device, plan, moving_s / all_s if all_s else 0.0)
        return Bar(1.0, max(1.0, bar.more)) if self._traces[plan.execution].untraced else bar

    def _notes(self, plan: Plan) -> tuple[str, ...]:
        trace = self._traces[plan.execution]
        parts = tuple(f"{name} could not be traced ({why}): weights only" for name, why in trace.untraced.items())
        return parts + notes_on(trace, self._quirks, self._torch_version)

    def costs(self, values: Mapping[str, Sequence[object]], codes: NDArray[np.int64]) -> Costs:
        """What each of many plans costs at least: `values` by lever, and in `codes` which of them each plan has,
        shape `(plans, levers)`."""
        return CostTable(
            self._traces,
            self._segments,
            model=self._model,
            device=self._device,
            steps=self._steps,
            undo=self._undo,
            found=self._found,
            code=self._code,
            ram=self._ram,
            fused=_FUSED,
        )(values, codes)

    def timeline(self, plan: Plan, *, graphed: frozenset[str] = frozenset()) -> Timeline:
        """The plan's call, to be run on an allocator; see `Timeline` for `graphed`."""
        plan = plan.over(self._found)
        return Timeline(
            self._traces[plan.execution],
            placement=placed(self._model, plan),
            programs=self._programs,
            attention=plan.attention or _FUSED,
            graphed=graphed,
        )

    def _ram(self, placement: Placement, trace: Trace) -> Ram:
        key = (id(trace.tensors), *placement.berths.values())  # traces of one precision share what they know of weights
        if key not in self._rams:
            self._rams[key] = waiting_ram(placement, trace, self._settings)
        return self._rams[key]

    def _usage(self, plan: Plan) -> Usage | None:
        """What the allocator says; None on the CPU, which has none."""
        if self._device.kind == "cpu":
            return None
        key = (plan.execution, plan.offload, plan.text_encoders)  # other levers change no bytes
        if key not in self._usages:
            self._usages[key] = self.timeline(plan).first_and_later()
        return self._usages[key]

    def _costs(self, trace: Trace, plan: Plan) -> list[_Cost]:
        placement = placed(self._model, plan)
        stays = residency(placement, [segment.component for segment in trace.segments])
        costs: list[_Cost] = []
        live_bytes = 0
        for segment, stay in zip(trace.segments, stays, strict=True):
            run = self._run(segment, trace, placement, plan)
            weights = trace.weights | segment.weights
            held = {there: weights[there] for there in sorted(stay.components)}
            held |= {other: n for other, n in trace.resident_buffers.items() if placement.of(other).keeps_buffers}
            if run.rest_bytes:
                held[segment.component] = held.get(segment.component, 0) + run.rest_bytes
            moved_s = sum(self._move_s(move, weights) for move in stay.moves)
            costs.append(_Cost(segment, _Moment(held, run.peak, live_bytes), run.compute_s, moved_s + run.transfer_s))
            live_bytes += run.net_bytes
        if costs:  # `maybe_free_model_hooks` sends back what the call has left on the card
            left = [name for name in stays[-1].components if placement.of(name).leaves_at_end]
            back_s = sum(self._move_s(Move("out", name), trace.weights) for name in left)
            costs[-1] = costs[-1]._replace(transfer_s=costs[-1].transfer_s + back_s)
        return costs

    def _run(self, segment: Segment, trace: Trace, placement: Placement, plan: Plan) -> Run:
        planned: Code = plan.compile or "none" if segment.component in self._model.denoisers else "none"
        code = self._code.get(segment.component, planned)
        attention, berth = plan.attention or _FUSED, placement.of(segment.component)
        return self._segments.run(segment, trace, berth, tf32=bool(plan.tf32), attention=attention, code=code)

    def _move_s(self, move: Move, weights: Mapping[str, int]) -> float:
        return self._segments.moved_s(move.component, weights[move.component], back=move.direction == "out")

    def _phase(self, name: PhaseName, costs: list[_Cost], trace: Trace, usage: Usage | None) -> Phase:
        mine = [cost for cost in costs if cost.segment.phase == name]
        calls = trace.denoiser_calls or self._steps
        nothing = _Moment({}, Peak(0, 0, 0, "nothing"), 0)
        top = max((cost.moment for cost in mine), key=lambda moment: moment.total_bytes, default=nothing)
        held = dict(top.components)
        if top.peak.weights_bytes:
            runs = top.peak.module.split(".")[0]
            held[runs] = held.get(runs, 0) + top.peak.weights_bytes
        reserved = top.total_bytes if usage is None else usage.reserved_bytes.get(name, 0)
        peak_bytes = reserved + context_bytes(self._device)
        return Phase(
            name=name,
            peak_bytes=peak_bytes,
            weights_bytes=top.weights_bytes + top.peak.weights_bytes,
            activations_bytes=top.base_bytes + top.peak.activations_bytes,
            workspace_bytes=top.peak.workspace_bytes,
            overhead_bytes=peak_bytes - top.total_bytes,
            compute_s=over_call_s([(cost.segment, cost.compute_s) for cost in mine], calls),
            transfer_s=over_call_s([(cost.segment, cost.transfer_s) for cost in mine], calls),
            moment=top.peak.module,
            components={part: size for part, size in held.items() if size},
        )
