"""One call of a component by itself: seconds and live bytes, by how its weights come and how its code was compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from autotune.records.device import Device
from autotune.records.placement import Berth
from autotune.records.trace import Segment, Trace
from autotune.simulate.latency import Code, moved_s, on_host_s, segment_time
from autotune.simulate.memory import Peak, SegmentMemory, segment_memory
from autotune.simulate.quirks import Quirk
from autotune.simulate.streams import brought
from autotune.units import MIB

__all__ = ["Run", "Segments"]

# glibc's largest block that is not given back to the system (M_MMAP_THRESHOLD in mallopt(3)).
_REUSED_BYTES = 32 * MIB


class Run(NamedTuple):
    """A segment as it runs."""

    compute_s: float
    transfer_s: float
    """Weights that come piece by piece, as far as computing does not hide them."""
    rest_bytes: int
    """Weights that come with the call and stay to its end: those in no block."""
    peak: Peak
    net_bytes: int
    """What is alive at the end beyond what was at the start."""


class Segments:
    """Segments on one device, each looked at once for each way to run it.

    Args:
        device: where they run.
        quirks: what the installed torch does otherwise.
        trace: any trace of the call: tensors are counted in it, and which of them are large, whatever precision others have.
    """

    def __init__(self, device: Device, quirks: Sequence[Quirk], trace: Trace) -> None:
        self._device, self._quirks = device, quirks
        self._memory: dict[tuple[int, str], SegmentMemory] = {}
        self._seconds: dict[tuple[int, bool, str, Code], float] = {}
        self._runs: dict[tuple[int, str, int, bool, str, Code], Run] = {}
        self._tensors: dict[str, list[int]] = {}
        leaves: Counter[str] = Counter()
        for path, own in trace.tensors.items():
            leaves[path.partition(".")[0]] += 1
            self._tensors.setdefault(path.partition(".")[0], []).extend(own)
        self._tensors_per_leaf = {name: len(own) / leaves[name] for name, own in self._tensors.items()}
        self._large_shares = {
            name: sum(size for size in own if size > _REUSED_BYTES) / max(sum(own), 1)
            for name, own in self._tensors.items()
        }

    def run(self, segment: Segment, trace: Trace, berth: Berth, *, tf32: bool, attention: str, code: Code) -> Run:
        """The segment in that trace, with its component's weights in that berth."""
        way = berth.waits if berth.waits == "cpu" else berth.piece if berth.streams else ""
        key = (id(segment), f"{way} {berth.empties_cache} {berth.pins_late}", berth.ahead, tf32, attention, code)
        if key not in self._runs:
            self._runs[key] = self._run(segment, trace, berth, tf32, attention, code)
        return self._runs[key]

    def moved_s(self, component: str, weights_bytes: int, *, back: bool) -> float:
        """Seconds to move all of a component's weights."""
        tensors, large_share = len(self._tensors.get(component, ())), self._large_shares.get(component, 1.0)
        return moved_s(self._device, weights_bytes, back=back, large_share=large_share, tensors=tensors)

    def _run(self, segment: Segment, trace: Trace, berth: Berth, tf32: bool, attention: str, code: Code) -> Run:
        name, memory = segment.component, self._memory_of(segment, trace, attention)
        if berth.waits == "cpu":
            return Run(on_host_s(segment), 0.0, 0, Peak(0, 0, 0, name), memory.net_bytes)
        compute_s = self._compute_s(segment, tf32, attention, code)
        if not berth.streams:
            return Run(compute_s, 0.0, 0, memory.peak, memory.net_bytes)
        weights_bytes = segment.weights.get(name, trace.weights.get(name, 0))
        in_blocks = sum(size for path, size in trace.blocks.items() if path.startswith(f"{name}."))
        came = brought(
            memory,
            berth,
            rest_bytes=weights_bytes - in_blocks,
            tensors_per_leaf=self._tensors_per_leaf.get(name, 0.0),
            large_share=self._large_shares.get(name, 1.0),
            device=self._device,
            compute_s=compute_s,
        )
        return Run(compute_s, came.exposed_s, came.base_bytes, came.peak, memory.net_bytes)

    def _memory_of(self, segment: Segment, trace: Trace, attention: str) -> SegmentMemory:
        key = (id(segment), attention)
        if key not in self._memory:
            self._memory[key] = segment_memory(segment, self._device, trace.blocks, attention, self._quirks)
        return self._memory[key]

    def _compute_s(self, segment: Segment, tf32: bool, attention: str, code: Code) -> float:
        key = (id(segment), tf32, attention, code)
        if key not in self._seconds:
            timing = segment_time(segment, self._device, tf32=tf32, attention=attention, code=code)
            self._seconds[key] = timing.compute_s
        return self._seconds[key]
