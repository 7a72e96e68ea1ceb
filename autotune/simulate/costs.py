"""Seconds and RAM of whole spaces of plans, and the fewest bytes of VRAM that each can do with.

A call's seconds are a sum over components: each has its own, by how it runs and where its weights wait. So components are
looked at by themselves, in every way that the space has for them, and plans are sums in numpy. Live bytes at each segment are
a sum of the same kind; what the allocator reserves is never less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autotune.records.costs import Costs
from autotune.records.device import Device
from autotune.records.model import Model
from autotune.records.placement import Berth, Placement, placed
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.trace import Segment, Trace
from autotune.simulate.latency import Code, setup_s
from autotune.simulate.margins import margin_bytes
from autotune.simulate.ram import Ram, undo_bytes
from autotune.simulate.residency import residency
from autotune.simulate.segments import Segments
from autotune.simulate.steps import over_call_s
from autotune.simulate.untraced import unknown_bytes
from autotune.simulate.workspace import context_bytes

__all__ = ["CostTable"]

_PLACING = ("offload", "text_encoders")
_COMPILING = ("compile", "tf32")
_Ints = NDArray[np.int64]


class CostTable:
    """Costs of a space's plans for one call on one device; arguments as `Replayer` has them."""

    def __init__(
        self,
        traces: Mapping[tuple[object, ...], Trace],
        segments: Segments,
        *,
        model: Model,
        device: Device,
        steps: int,
        undo: bool,
        found: Plan,
        code: Mapping[str, Code],
        ram: Callable[[Placement, Trace], Ram],
        fused: str,
    ) -> None:
        self._traces, self._segments, self._model, self._device = traces, segments, model, device
        self._steps, self._undo, self._found, self._code = steps, undo, found, code
        self._ram, self._fused = ram, fused

    def __call__(self, values: Mapping[str, Sequence[Any]], codes: _Ints) -> Costs:
        """Costs of the plans.

        Args:
            values: by lever those of the space.
            codes: which of these each plan has, shape `(plans, levers)`.
        """
        space = _Levers(values, codes, self._found)
        runs, run_of = space.groups(EXECUTION_LEVERS)
        berths, berth_of = space.groups(_PLACING)
        ways, way_of = space.groups(_COMPILING)
        traces = [self._traces[plan.execution] for plan in runs]
        placements = [placed(self._model, plan) for plan in berths]
        latency_s = np.zeros(len(codes))
        for component in dict.fromkeys(segment.component for trace in traces for segment in trace.segments):
            latency_s += self._of_component(component, (runs, run_of), (placements, berth_of), (ways, way_of))
        pairs, pair_of = np.unique(run_of * len(berths) + berth_of, return_inverse=True)
        live = self._live_bytes(runs, placements)
        needed, ram = np.zeros(len(pairs), dtype=np.int64), np.zeros(len(pairs), dtype=np.int64)
        for number, (run, berth) in enumerate(np.stack(np.divmod(pairs, len(berths)), axis=1).tolist()):
            process = int(live[run, berth]) + context_bytes(self._device)
            margin = margin_bytes(self._device, berths[berth].offload, process)
            needed[number] = process + margin + unknown_bytes(traces[run])
            ram[number] = self._ram_bytes(runs[run], placements[berth], process)
        return Costs(
            needed_bytes=needed[pair_of],
            ram_bytes=ram[pair_of],
            latency_s=latency_s,
            setup_s=np.array([setup_s(plan.compile or "none") for plan in ways])[way_of],
        )

    def _of_component(
        self,
        component: str,
        runs: tuple[list[Plan], _Ints],
        placements: tuple[list[Placement], _Ints],
        ways: tuple[list[Plan], _Ints],
    ) -> NDArray[np.float64]:
        """Seconds of a component's calls and moves in each plan."""
        _, variant_of = _alike([self._variant(component, plan) for plan in runs[0]])
        berths, berth_of = _alike([placement.of(component) for placement in placements[0]])
        codes = [self._code_of(component, plan) for plan in ways[0]]
        built, built_of = _alike([(bool(plan.tf32), code) for plan, code in zip(ways[0], codes, strict=True)])
        keys = (variant_of[runs[1]] * len(berths) + berth_of[placements[1]]) * len(built) + built_of[ways[1]]
        distinct, key_of = np.unique(keys, return_inverse=True)
        seconds = np.zeros(len(distinct))
        for number, key in enumerate(distinct.tolist()):
            rest, way = divmod(key, len(built))
            variant, berth = divmod(rest, len(berths))
            plan = runs[0][int(np.argmax(variant_of == variant))]
            seconds[number] = self._component_s(component, plan, berths[berth], *built[way])
        return seconds[key_of]

    def _variant(self, component: str, plan: Plan) -> tuple[Any, ...]:
        segments = self._traces[plan.execution].segments
        own = tuple(id(segment) for segment in segments if segment.component == component)
        return own, self._attention_of(plan), tuple(segment.component for segment in segments)

    def _component_s(self, component: str, plan: Plan, berth: Berth, tf32: bool, code: Code) -> float:
        """A call's seconds of one component: those of its segments, and of moving its weights, whoever's call moves them."""
        trace, attention = self._traces[plan.execution], self._attention_of(plan)
        stays = residency(Placement(berths={component: berth}), [segment.component for segment in trace.segments])
        timed: list[tuple[Segment, float]] = []
        for segment, stay in zip(trace.segments, stays, strict=True):
            weights_bytes = segment.weights.get(component, trace.weights.get(component, 0))
            taken_s = sum(
                self._segments.moved_s(component, weights_bytes, back=m.direction == "out") for m in stay.moves
            )
            if segment.component == component:
                run = self._segments.run(segment, trace, berth, tf32=tf32, attention=attention, code=code)
                taken_s += run.compute_s + run.transfer_s
            timed.append((segment, taken_s))
        if timed and berth.leaves_at_end and component in stays[-1].components:
            back_s = self._segments.moved_s(component, trace.weights[component], back=True)
            timed[-1] = timed[-1][0], timed[-1][1] + back_s
        return over_call_s(timed, trace.denoiser_calls or self._steps)

    def _live_bytes(self, runs: list[Plan], placements: list[Placement]) -> _Ints:
        """The most live bytes of a call, shape `(runs, placements)`."""
        found = np.zeros((len(runs), len(placements)), dtype=np.int64)
        held: dict[Any, _Ints] = {}
        for number, plan in enumerate(runs):
            trace = self._traces[plan.execution]
            key = plan.dtype, tuple((segment.component, tuple(segment.weights.items())) for segment in trace.segments)
            if key not in held:
                held[key] = np.array([self._held_bytes(trace, placement) for placement in placements], dtype=np.int64)
            live = held[key] + self._activations_bytes(trace, plan, placements)
            found[number] = live.max(axis=1, initial=0)
        return found

    def _held_bytes(self, trace: Trace, placement: Placement) -> list[int]:
        """Weights that are on the device during each segment."""
        buffers = {name: size for name, size in trace.resident_buffers.items() if placement.of(name).keeps_buffers}
        held = []
        stays = residency(placement, [segment.component for segment in trace.segments])
        for segment, stay in zip(trace.segments, stays, strict=True):
            weights = trace.weights | segment.weights
            held.append(sum((buffers | {name: weights[name] for name in stay.components}).values()))
        return held

    def _activations_bytes(self, trace: Trace, plan: Plan, placements: list[Placement]) -> _Ints:
        """The most of everything else in each segment, pieces of weights included, shape `(placements, segments)`."""
        columns, alive = [], 0
        attention = self._attention_of(plan)
        for segment in trace.segments:
            berths, berth_of = _alike([placement.of(segment.component) for placement in placements])
            looked = [
                self._segments.run(segment, trace, berth, tf32=False, attention=attention, code="none")
                for berth in berths
            ]
            peaks = np.array([run.rest_bytes + run.peak.total_bytes for run in looked], dtype=np.int64)
            columns.append(alive + peaks[berth_of])
            alive += looked[0].net_bytes
        return np.stack(columns, axis=1) if columns else np.zeros((len(placements), 0), dtype=np.int64)

    def _ram_bytes(self, plan: Plan, placement: Placement, process_bytes: int) -> int:
        undo = undo_bytes(self._model, plan) if self._undo else 0
        if self._device.kind == "cpu":
            return process_bytes + undo
        return self._ram(placement, self._traces[plan.execution]).peak_bytes + undo

    def _attention_of(self, plan: Plan) -> str:
        return plan.attention or self._fused

    def _code_of(self, component: str, plan: Plan) -> Code:
        planned: Code = plan.compile or "none" if component in self._model.denoisers else "none"
        return self._code.get(component, planned)


class _Levers:
    """Plans as codes of their levers' values."""

    def __init__(self, values: Mapping[str, Sequence[Any]], codes: _Ints, found: Plan) -> None:
        self._values, self._codes, self._found = values, codes, found
        self._names = list(values)

    def groups(self, levers: Sequence[str]) -> tuple[list[Plan], _Ints]:
        """One plan for each combination of these levers that there is, over what is found, and which of them each plan has."""
        keys = np.zeros(len(self._codes), dtype=np.int64)
        for name in levers:
            keys = keys * len(self._values[name]) + self._codes[:, self._names.index(name)]
        _, first, group_of = np.unique(keys, return_index=True, return_inverse=True)
        plans = []
        for row in self._codes[first]:
            chosen = {name: self._values[name][row[self._names.index(name)]] for name in levers}
            plans.append(Plan(**chosen).over(self._found))
        return plans, group_of


def _alike(items: Sequence[Any]) -> tuple[list[Any], _Ints]:
    """The different ones, and which of them each is."""
    places: dict[Any, int] = {}
    which = [places.setdefault(item, len(places)) for item in items]
    return list(places), np.array(which, dtype=np.int64)
