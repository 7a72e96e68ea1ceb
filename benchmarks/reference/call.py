"""One call of a plan on torch's allocator: weights as they come and go, every tensor, every temporary, in their order."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.records.device import Device
from autotune.records.estimate import PhaseName
from autotune.records.model import Model
from autotune.records.plan import Plan, group_offload
from autotune.records.trace import Segment, Trace
from autotune.simulate.allocator import Allocator
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.quirks import Quirk
from autotune.simulate.timeline import Usage
from autotune.simulate.workspace import cublas_bytes
from benchmarks.reference.card import Card
from benchmarks.reference.events import Instruction, Program, program
from benchmarks.reference.parts import BlockParts, LeafParts, Parts
from benchmarks.reference.residency import Stay, residency

__all__ = ["Reference"]

_SIDE_STREAM = 1  # where group offload with a stream allocates weights (hooks/group_offloading.py `ModuleGroup`)


class Reference:
    """One trace under one plan.

    Args:
        trace: the call.
        model: the pipeline's facts.
        plan: where weights lie.
        device: a card.
        attention: the plan's choice of attention.
        quirks: what the installed torch does otherwise.
        graphed: components that are replayed as CUDA graphs. A graph keeps what its call reserved as long as it lives, and its
            outputs lie in there.
        settings: of the process's allocator; torch's defaults if None.
    """

    def __init__(
        self,
        trace: Trace,
        *,
        model: Model,
        plan: Plan,
        device: Device,
        attention: str = "sdpa",
        quirks: Sequence[Quirk] = (),
        graphed: frozenset[str] = frozenset(),
        settings: Settings | None = None,
    ) -> None:
        self._trace, self._model, self._plan, self._device = trace, model, plan, device
        self._programs = [program(segment, device, attention, quirks) for segment in trace.segments]
        self._stays = residency(model, plan, [segment.component for segment in trace.segments])
        self._roles = {part.name: part.role for part in model.components}
        self._whole_by_block = {p.name for p in model.components if "group_offload_by_block" in p.capabilities}
        self._sizes = _component_sizes(trace)
        self._left_over = _left_over(self._programs)
        self._graphed = graphed
        self._settings = settings

    def run(self, limit_bytes: int | None = None, *, calls: int = 1) -> Usage:
        """The call on an empty card, so many times; the last one counts.

        Raises:
            OutOfMemory: the limit is too low.
        """
        card = Card(Allocator(self._settings, limit_bytes), cublas_bytes(self._device))
        for name in self._at_the_start():
            card.bring(name, self._sizes.get(name, ()))
        if self._plan.offload == "sequential":
            excluded = self._model.excluded_from_offload
            for name, size in self._trace.resident_buffers.items():
                card.bring(f"{name} buffers", (size,) if name not in excluded else ())
        usage = Usage()
        for _ in range(calls):
            usage = Usage()
            for segment, stay, instructions in zip(self._trace.segments, self._stays, self._programs, strict=True):
                self._segment(card, segment, stay, instructions)
                _note(usage.allocated_bytes, segment.phase, card.allocator.peak_allocated_bytes)
                _note(usage.reserved_bytes, segment.phase, card.allocator.peak_reserved_bytes)
            card.forget_activations()
            if self._plan.offload == "model":  # pipeline_utils.py `maybe_free_model_hooks`
                card.send_all_but(self._stays[0].components if self._stays else frozenset())
        usage.retries = card.allocator.retries
        return usage

    def _at_the_start(self) -> list[str]:
        """Components that are on the card before the call, in the order in which `pipe.to` moves them."""
        here: frozenset[str] = frozenset()
        if self._stays:
            first = self._stays[0]
            here = first.components - {move.component for move in first.moves if move.direction == "in"}
        return [part.name for part in self._model.components if part.name in here]

    def _segment(self, card: Card, segment: Segment, stay: Stay, instructions: Program) -> None:
        for move in stay.moves:
            if move.direction == "out":
                card.send(move.component)
                card.allocator.empty_cache()  # accelerate/hooks.py CpuOffload.pre_forward; levers/text_encoders.py
        card.allocator.reset_peaks()
        for move in stay.moves:
            if move.direction == "in":
                card.bring(move.component, self._sizes.get(move.component, ()))
        self._change_precision(card, segment, stay)
        name = segment.component
        if self._plan.text_encoders == "cpu" and self._roles.get(name) == "text_encoder":
            card.run_beside(instructions)
            return
        if name in self._graphed:
            card.run_graph(name, instructions)
            return
        parts = self._parts(segment) if name and name not in stay.components else None
        card.run(instructions, parts, self._left_over)
        if parts is not None:
            parts.end(card.allocator)

    def _change_precision(self, card: Card, segment: Segment, stay: Stay) -> None:
        """SDXL turns its VAE to fp32 tensor by tensor (`Module.to`)."""
        for name in stay.components:
            total = segment.weights.get(name, self._trace.weights.get(name, 0))
            card.resize(name, self._sizes.get(name, ()), total / max(1, self._trace.weights.get(name, 0)))

    def _parts(self, segment: Segment) -> Parts | None:
        """How the weights of this call come in parts; None where they are not moved at all."""
        role = self._roles.get(segment.component)
        if self._plan.offload == "sequential":
            return LeafParts(segment, empties_cache=True)
        group = group_offload(self._plan.offload)
        if group is None:
            return None
        stream = _SIDE_STREAM if group.use_stream and role != "vae" else 0
        by_block = segment.component in self._whole_by_block and role != "text_encoder"
        if group.offload_type == "block_level" and by_block:
            return BlockParts(segment, self._trace, stream=stream)
        return LeafParts(segment, stream=stream)


def _component_sizes(trace: Trace) -> dict[str, tuple[int, ...]]:
    """Bytes of each component's tensors; as one where the trace does not tell."""
    sizes: dict[str, list[int]] = {}
    for path, own in trace.tensors.items():
        sizes.setdefault(path.split(".")[0], []).extend(own)
    return {name: tuple(sizes.get(name) or (total,)) for name, total in trace.weights.items()}


def _left_over(programs: Sequence[Program]) -> frozenset[int]:
    """Tensors that are never freed under their number.

    A component's calls that were recorded again have numbers of their own, and the rest of the trace frees their outputs under
    the old ones: such a free takes the oldest tensor of its size among these.
    """
    born = {ref for instructions in programs for code, ref, _ in instructions if code == Instruction.MALLOC}
    gone = {ref for instructions in programs for code, ref, _ in instructions if code == Instruction.FREE}
    return frozenset(born - gone)


def _note(peaks: dict[PhaseName, int], phase: PhaseName, value: int) -> None:
    peaks[phase] = max(peaks.get(phase, 0), value)
