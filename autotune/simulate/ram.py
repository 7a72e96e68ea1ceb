"""Host RAM of a plan: weights that wait off the device, and originals that are kept so that `restore` is exact.

Mirrors accelerate 1.15 and diffusers 0.42.1 hooks/group_offloading.py. Model offload, sequential offload and group offload
without a stream hold each weight once at most. With a stream, `ModuleGroup._init_cpu_param_dict` pins a copy of each tensor of
a group, and the original goes when `GroupOffloadingHook.initialize_hook` sends the group away: by block after all blocks of the
component are pinned, by leaf one leaf after the other. Weights that were read from a safetensors file are views of one mapping,
though, which goes with the last of them, so by leaf too a component's originals are there until its last leaf is done.

What it does not know: RAM while weights are loaded, and that of components that go to the card for good.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple, get_args

from autotune.records.model import Model
from autotune.records.placement import Placement
from autotune.records.plan import Plan
from autotune.records.precision import AS_IS, DtypeName
from autotune.records.trace import Trace
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.pieces import block_of

__all__ = ["Ram", "undo_bytes", "waiting_ram"]

_FLOATS = get_args(DtypeName)


class Ram(NamedTuple):
    """Weights in RAM under a plan."""

    peak_bytes: int
    """The most at once: while hooks are installed, or ever after."""
    installing_bytes: int = 0
    """The part of the peak that is gone once the hooks are installed."""
    pinned_bytes: int = 0
    """The part of the peak that is pinned."""


def waiting_ram(placement: Placement, trace: Trace, settings: Settings | None = None) -> Ram:
    """Weights that wait beside a card.

    Args:
        placement: what waits and how.
        trace: bytes of components, and of the tensors in each.
        settings: how torch rounds pinned memory; its defaults if None.
    """
    waiting = {name: size for name, size in trace.weights.items() if not placement.of(name).stays}
    streamed = [name for name in waiting if placement.of(name).waits == "pinned"]
    limit_bytes = (settings or Settings()).pinned_max_round_bytes
    groups = {name: _groups(trace, name, by_block=placement.of(name).piece == "block") for name in streamed}
    pinned = {name: {key: _rounded(own, limit_bytes) for key, own in each.items()} for name, each in groups.items()}
    late = [name for name in streamed if placement.of(name).pins_late]
    buffers = _kept_bytes(group for name in late for group in pinned[name].values())
    early = [name for name in streamed if name not in late]
    ram = _installed(
        waiting,
        copies={name: sum(map(sum, pinned[name].values())) for name in early},
        replaced={name: sum(map(sum, groups[name].values())) for name in early},
    )
    return ram._replace(peak_bytes=ram.peak_bytes + buffers, pinned_bytes=ram.pinned_bytes + buffers)


def undo_bytes(model: Model, plan: Plan) -> int:
    """Originals of weights that are cast to another precision."""
    return sum(
        taken
        for part in model.components
        for dtype, taken in part.bytes_by_dtype.items()
        if plan.precision.of(part.name) not in {AS_IS, dtype} and dtype in _FLOATS
    )


def _installed(waiting: Mapping[str, int], *, copies: Mapping[str, int], replaced: Mapping[str, int]) -> Ram:
    """Component after component gets its hooks; of its weights `replaced` go when their pinned `copies` are all there."""
    held_bytes, pinned_bytes = sum(waiting.values()), 0
    peak = Ram(held_bytes)
    for name, copy_bytes in copies.items():
        held_bytes, pinned_bytes = held_bytes + copy_bytes, pinned_bytes + copy_bytes
        peak = max(peak, Ram(held_bytes, pinned_bytes=pinned_bytes))
        held_bytes -= min(replaced[name], waiting[name])
    return peak._replace(installing_bytes=peak.peak_bytes - held_bytes)


def _groups(trace: Trace, component: str, *, by_block: bool) -> dict[str, list[int]]:
    """Bytes of the tensors in each of the component's groups; what is in no block has no stream and is not pinned."""
    groups: dict[str, list[int]] = defaultdict(list)
    for path, own in trace.tensors.items():
        if path.partition(".")[0] == component:
            block = block_of(path, trace) if by_block else path
            if block is not None:
                groups[block] += own
    return groups


def _rounded(sizes: Iterable[int], limit_bytes: int | None) -> list[int]:
    """Each at the next power of two (`PowerOf2Ceil`, CachingHostAllocator), larger ones than the limit as they are."""
    return [
        size if limit_bytes is not None and size > limit_bytes else 1 << max(0, size - 1).bit_length() for size in sizes
    ]


def _kept_bytes(groups: Iterable[Iterable[int]]) -> int:
    """Buffers of tensors that are pinned as they are sent: a group waits for the one before it, and the host allocator keeps
    what it has pinned, so of each size there are as many as one group ever has."""
    most: Counter[int] = Counter()
    for sizes in groups:
        most |= Counter(sizes)
    return sum(size * count for size, count in most.items())
