"""Weights that come in parts while a component runs: sequential offload by leaf, group offload by leaf or block.

Mirrors accelerate's `AlignDevicesHook` and diffusers' hooks/group_offloading.py: without a stream each part is copied in from
pageable memory and copied back out; with one it is copied in from pinned memory beside the computing, the next part ahead, and
nothing is copied back.
"""

from __future__ import annotations

from typing import NamedTuple

from autotune.records.device import Device
from autotune.records.model import Role
from autotune.records.plan import group_offload
from autotune.simulate.latency import moved_s
from autotune.simulate.memory import Granularity, Peak, SegmentMemory

__all__ = ["Brought", "brought"]


class Brought(NamedTuple):
    """What one call brings in beyond what is on the device."""

    base_bytes: int
    """Weights that are there for the whole call: those in no block."""
    peak: Peak
    exposed_s: float
    """Transfers that computing does not hide."""


def brought(
    memory: SegmentMemory, offload: str, *, role: Role, rest_bytes: int, device: Device, compute_s: float
) -> Brought:
    """One call of a component whose weights wait in RAM and come in parts.

    Args:
        memory: the call's segment on the device.
        offload: "sequential" or a group offload.
        role: of the component; text encoders go by leaf and VAEs without a stream (levers/offload.py `group_settings`).
        rest_bytes: its weights that are in no block.
        device: decides the link.
        compute_s: what transfers may hide behind.
    """
    group = group_offload(offload)
    if group is None:
        leaves = memory.streams["leaf"]
        return Brought(0, leaves.peak, moved_s(device, leaves.moved_bytes, by_tensor=True, modules=leaves.moves))
    by_block = group.offload_type == "block_level" and role != "text_encoder"
    granularity: Granularity = "block" if by_block else "leaf"
    stream = memory.streams[granularity]
    rest = rest_bytes if by_block else 0
    if not group.use_stream or role == "vae":
        moved = 2 * (stream.moved_bytes + rest)
        return Brought(rest, stream.peak, moved_s(device, moved, modules=stream.moves))
    pinned = not group.low_cpu_mem_usage
    hidden_s = moved_s(device, stream.moved_bytes, pinned=pinned)
    waits_s = moved_s(
        device, rest, pinned=pinned, modules=stream.moves
    )  # no stream for the rest; each hook synchronises
    return Brought(rest, stream.prefetched_peak, max(0.0, hidden_s - compute_s) + waits_s)
