"""A recorded history of torch's allocator, run through ours: where the two reserve different amounts, if anywhere."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from autotune.errors import AutotuneError
from autotune.records.base import Record
from autotune.simulate.allocator import Allocator
from autotune.simulate.allocator_settings import SMALL_SEGMENT_BYTES, Settings
from autotune.simulate.snapshot_file import OWN_POOL, Event, Segment, Snapshot

__all__ = ["Comparison", "Difference", "compare"]

_GROWS = {"segment_alloc", "segment_map"}
_SHRINKS = {"segment_free", "segment_unmap"}


class Difference(Record):
    """Where replay and recording part."""

    event: int
    """Index in the trace."""
    action: str
    recorded_bytes: int
    """Reserved after the event, by the recording."""
    replayed_bytes: int
    """And by the replay."""


class Comparison(Record):
    """A recording beside its replay."""

    recorded_reserved_peak_bytes: int
    replayed_reserved_peak_bytes: int
    recorded_requested_peak_bytes: int
    """Events hold what was asked for; the block that it got shows only in the segments at the end."""
    replayed_requested_peak_bytes: int
    recorded_active_bytes: int
    """Blocks in use or awaiting another stream, at the end."""
    replayed_active_bytes: int
    replayed_allocated_peak_bytes: int
    first_difference: Difference | None
    """In what is reserved; None if there is none."""


def compare(snapshot: Snapshot, *, device: int | None = None, settings: Settings | None = None) -> Comparison:
    """Replay the events of a device and compare, event by event, what is reserved.

    A trace may start when much is allocated already. What was there then follows from the end by undoing the events one by
    one, and the replay starts from it; ignoring frees of unknown addresses would miss the free blocks they leave. Only
    expandable segments have to be recorded from their beginning, because nothing tells which pages lay where.

    Where segments are given back, the replay gives back all that are wholly free: that is what `empty_cache` and a full card
    do. `max_split_size` and garbage collection give back fewer, and show as a difference.

    Args:
        snapshot: what was recorded.
        device: which trace; without it, the only one that has events.
        settings: of the allocator; without them, what the snapshot says.

    Raises:
        AutotuneError: several devices have events, or the snapshot contradicts itself.

    >>> MIB = 2**20
    >>> events = [Event(action="segment_alloc", addr=MIB, size=20 * MIB), Event(action="alloc", addr=MIB, size=3 * MIB)]
    >>> result = compare(Snapshot(device_traces=(tuple(events),)))
    >>> result.first_difference, result.replayed_reserved_peak_bytes // MIB
    (None, 20)
    """
    device = _device_of(snapshot, device)
    events = [event for event in snapshot.device_traces[device] if event.pool_id == OWN_POOL]
    ends = [part for part in snapshot.segments if part.device == device and part.segment_pool_id == OWN_POOL]
    allocator = Allocator(settings or _settings_of(snapshot))
    live = _begin(allocator, ends, events)
    awaited: dict[int, int] = {}
    reserved = peak_reserved = allocator.reserved_bytes
    requested = peak_requested = allocator.requested_bytes
    difference = None
    for index, event in enumerate(events):
        action, following = event.action, events[index + 1].action if index + 1 < len(events) else ""
        if action == "alloc":
            live[event.addr] = allocator.malloc(event.size, event.stream)
            requested += event.size
        elif action == "free_requested" and event.addr in live:
            handle = awaited[event.addr] = live.pop(event.addr)
            allocator.record_stream(handle, -handle)  # stays active until the trace says that it is completed
            allocator.free(handle)
        elif action == "free_completed" and (event.addr in awaited or event.addr in live):
            allocator.free(live.pop(event.addr, 0))
            allocator.synchronize(-awaited.pop(event.addr, 0))
            requested -= event.size
        elif action in _GROWS:
            reserved += event.size
        elif action in _SHRINKS:
            allocator.empty_cache()
            reserved -= event.size
        peak_reserved, peak_requested = max(peak_reserved, reserved), max(peak_requested, requested)
        settled = action not in _GROWS and following not in _SHRINKS
        if difference is None and settled and reserved != allocator.reserved_bytes:
            difference = Difference(
                event=index, action=action, recorded_bytes=reserved, replayed_bytes=allocator.reserved_bytes
            )
    return Comparison(
        recorded_reserved_peak_bytes=peak_reserved,
        replayed_reserved_peak_bytes=allocator.peak_reserved_bytes,
        recorded_requested_peak_bytes=peak_requested,
        replayed_requested_peak_bytes=allocator.peak_requested_bytes,
        recorded_active_bytes=sum(part.active_size for part in ends),
        replayed_active_bytes=allocator.active_bytes,
        replayed_allocated_peak_bytes=allocator.peak_allocated_bytes,
        first_difference=difference,
    )


def _device_of(snapshot: Snapshot, device: int | None) -> int:
    used = [index for index, events in enumerate(snapshot.device_traces) if events]
    if device is None and len(used) == 1:
        return used[0]
    if device not in used:
        raise AutotuneError(f"the snapshot has events of the devices {used}; name one of these with device=")
    return device


def _settings_of(snapshot: Snapshot) -> Settings:
    return Settings.from_environment(
        {name: value for name, value in snapshot.allocator_settings.items() if isinstance(value, str)}
    )


def _begin(allocator: Allocator, ends: Iterable[Segment], events: list[Event]) -> dict[int, int]:
    """Give the allocator what was there before the first event; the handles by recorded address."""
    segments, live, pages = _undone(ends, events)
    if pages:
        raise AutotuneError(
            "expandable segments were in use before the first event; record from the start of the process"
        )
    handles: dict[int, int] = {}
    addresses = sorted(live)
    for address, segment in sorted(segments.items()):
        inside = addresses[bisect_left(addresses, address) : bisect_left(addresses, address + segment.size)]
        blocks = [(at, *live.pop(at, (0, 0))) for at in inside]
        pieces = _pieces(allocator.settings, address, address + segment.size, blocks)
        adopted = allocator.adopt(segment.stream, segment.is_small, pieces)
        handles.update(zip(inside, filter(None, adopted), strict=True))
    if live:
        raise AutotuneError(f"the snapshot contradicts itself: the block at {min(live):#x} lies in no segment")
    return handles


class _Reserved(NamedTuple):
    """A segment that was there before."""

    size: int
    stream: int
    is_small: bool


_Requests = dict[int, tuple[int, int]]  # what was asked for and, where the snapshot still shows it, the block's size


def _undone(ends: Iterable[Segment], events: list[Event]) -> tuple[dict[int, _Reserved], _Requests, int]:
    """Back from the end: segments and requests by address, and bytes of mapped pages."""
    segments: dict[int, _Reserved] = {}
    live: _Requests = {}
    pages = 0
    for part in ends:
        if part.is_expandable:
            pages += part.total_size
        else:
            segments[part.address] = _Reserved(part.total_size, part.stream, part.segment_type == "small")
        at = part.address
        for block in part.blocks:
            if block.state.startswith("active"):
                live[at] = block.requested_size or block.size, block.size
            at += block.size
    for event in reversed(events):
        if event.action == "alloc":
            live.pop(event.addr, None)
        elif event.action == "free_completed":
            live[event.addr] = event.size, 0
        elif event.action == "segment_alloc":
            segments.pop(event.addr, None)
        elif event.action == "segment_free":
            segments[event.addr] = _Reserved(event.size, event.stream, event.size <= SMALL_SEGMENT_BYTES)
        elif event.action in {"segment_map", "segment_unmap"}:
            pages += event.size if event.action == "segment_unmap" else -event.size
    return segments, live, max(pages, 0)


def _pieces(settings: Settings, start: int, end: int, blocks: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """The blocks that make up a segment, given its live ones by address: size, and what was asked for or 0.

    The size of a block that has gone since is that of its request, and all up to the next one where no block could be cut
    off. If the one behind it was freed just before, it may have been larger, by 1 MiB at most.
    """
    pieces, at = [], start
    for (address, requested, known), (border, _, _) in pairwise([*blocks, (end, 0, 0)]):
        if address > at:
            pieces.append((address - at, 0))
        taken = known or settings.block_bytes(requested)
        rest = border - address - taken
        if rest < 0 or requested == 0:
            raise AutotuneError(f"the snapshot contradicts itself: the block at {address:#x} has no room")
        if not known and not settings.splits(taken, rest):
            taken += rest
        pieces.append((taken, requested))
        at = address + taken
    return [*pieces, (end - at, 0)] if at < end else pieces
