"""Weights that come in pieces while a component runs: sequential offload by leaf, group offload by leaf or block.

Mirrors accelerate's `AlignDevicesHook` and diffusers' hooks/group_offloading.py: without a stream each part is copied in from
pageable memory and copied back out; with one it is copied in from pinned memory, the next part ahead, and nothing is copied
back. How much of that computing hides is known by little: see `_HIDDEN_SHARE`.
"""

from __future__ import annotations

from typing import NamedTuple

from autotune.records.device import Device
from autotune.records.placement import Berth
from autotune.simulate.latency import moved_s
from autotune.simulate.memory import Granularity, Peak, SegmentMemory
from autotune.simulate.speed import sustained

__all__ = ["Brought", "brought"]

# Share of the copying that goes on beside computing. By leaf the stream is waited for at every layer, and nothing is hidden:
# the diffusers benchmarks of 2025 (L40S, PCIe 4) have 1.86 s for a FLUX forward of 0.49 s and 24 GB, and 2.56 s for one of
# LTX-Video 13B of 1.43 s and 26 GB. By block one whole block is ahead; nothing is published, and most is taken as hidden.
_HIDDEN_SHARE: dict[Granularity, float] = {"leaf": 0.0, "block": 0.8}


class Brought(NamedTuple):
    """What one call brings in beyond what is on the device."""

    base_bytes: int
    """Weights that are there for the whole call: those in no block."""
    peak: Peak
    exposed_s: float
    """Transfers that computing does not hide."""


def brought(
    memory: SegmentMemory,
    berth: Berth,
    *,
    rest_bytes: int,
    tensors_per_leaf: float,
    large_share: float,
    device: Device,
    compute_s: float,
) -> Brought:
    """One call of a component whose weights wait in RAM and come in pieces.

    Args:
        memory: the call's segment on the device.
        berth: how they come.
        rest_bytes: its weights that are in no block.
        tensors_per_leaf: how many tensors a module with weights of its own has.
        large_share: of its bytes, in large tensors.
        device: decides the link.
        compute_s: what transfers may hide behind.
    """
    granularity: Granularity = "block" if berth.piece == "block" else "leaf"
    stream = memory.streams[granularity]
    if berth.empties_cache:
        tensors = stream.moves * tensors_per_leaf
        emptied_s = tensors * sustained(device).release_s if device.kind == "cuda" else 0.0
        return Brought(0, stream.peak, moved_s(device, stream.moved_bytes, tensors=tensors) + emptied_s)
    by_block = granularity == "block"
    rest = rest_bytes if by_block else 0
    # By leaf a hook's cost has that of its few tensors in it.
    tensors = memory.streams["leaf"].moves * tensors_per_leaf if by_block else 0.0
    if not berth.ahead:
        moved = stream.moved_bytes + rest
        there_s = moved_s(device, moved, tensors=tensors, hooks=stream.moves)
        back_s = moved_s(device, moved, back=True, large_share=large_share, tensors=tensors)
        return Brought(rest, stream.peak, there_s + back_s)
    copied_s = moved_s(device, stream.moved_bytes, pinned=not berth.pins_late)
    hidden_s = min(copied_s, compute_s) * _HIDDEN_SHARE[granularity]
    # What is in no block has no stream and is not pinned (hooks/group_offloading.py, the unmatched group).
    resting = tensors * rest / max(stream.moved_bytes + rest, 1)
    rest_s = moved_s(device, rest, tensors=resting)
    rest_s += moved_s(device, rest, back=True, large_share=large_share, tensors=resting)
    hooks_s = moved_s(device, 0, hooks=stream.moves)
    return Brought(rest, stream.prefetched_peak, copied_s - hidden_s + rest_s + hooks_s)
