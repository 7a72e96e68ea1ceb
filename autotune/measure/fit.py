"""From seconds to rates: the figures of `Speed` that make its model of an operator give what was measured.

An operator takes max(FLOP / rate + product_s, bytes / rate) + kernel_s, a convolution
convolution_s in its place. Launched by a host that takes host_s for each, kernels
queue up on a card; the CPU does one after the other. What was not measured stays as it was believed to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import mul
from typing import Any, NamedTuple

from autotune.records.speed import Speed

__all__ = ["Block", "Found", "Moved", "Timed", "rate_of", "speed_from"]

_AS_LARGE = 1 / 8  # of the largest size: what counts for a rate; smaller ones tell what it costs to begin
_LEAST_S = 1e-9  # what is left of a cost that others have used up


class Timed(NamedTuple):
    """One piece of work that was timed."""

    amount: float
    """FLOP, or bytes."""
    call_s: float


class Block(NamedTuple):
    """One call of modules with next to nothing to compute."""

    operators: int
    """Those that compute something: views are none."""
    products: int
    """Matrix products and attentions among them."""
    convolutions: int
    """And convolutions."""
    call_s: float
    """For the host, without waiting for a card."""


class Moved(NamedTuple):
    """Modules that were brought to a card and back."""

    modules: int
    tensors: int
    """Counted each time."""
    each_way_bytes: int
    call_s: float


class Found(NamedTuple):
    """What was measured; empty or None where it could not be."""

    works: Mapping[str, Sequence[Timed]]
    """From small to large, by kind and mode: "products float16", "attention flash", "norm", "pinned"."""
    kernel_s: float | None = None
    """An operator on next to nothing: in a card's queue, or called on the CPU."""
    blocks: Sequence[Block] = ()
    moved: Moved | None = None
    """All together."""
    hooked: Moved | None = None
    """By the hooks of group offload, one by one; seconds beside their computing."""
    release_s: float | None = None
    """A block that was given back to the card and asked for again."""


def speed_from(found: Found, *, base: Speed, queued: bool) -> Speed:
    """What was measured in place of what was believed; `base` itself where nothing was.

    Args:
        found: the measurements.
        base: what was believed.
        queued: whether the host only launches kernels, as it does on a card.

    >>> from autotune.probe.catalog import card
    >>> from autotune.simulate.speed import sustained
    >>> base = sustained(card("Tesla T4"))
    >>> speed_from(Found({"copy": [Timed(3e9, 0.01)]}), base=base, queued=True).copy_bytes_per_s
    300000000000.0
    """
    kernel_s = base.kernel_s if found.kernel_s is None else max(found.kernel_s, _LEAST_S)
    known_s = 0.0 if found.kernel_s is None else kernel_s
    rates = {name: rate_of(timed, known_s) for name, timed in found.works.items() if timed}
    changes: dict[str, Any] = {field: rates[name] for name, field in _FIELDS.items() if name in rates}
    for kind, field in _TABLES.items():
        mine = {name.partition(" ")[2]: rate for name, rate in rates.items() if name.startswith(f"{kind} ")}
        if mine:
            changes[field] = {**getattr(base, field), **mine}
    if found.kernel_s is not None:
        changes["kernel_s"] = kernel_s
    for kind, field in (("products ", "product_s"), ("convolutions ", "convolution_s")):
        small = [(timed, rates[name]) for name, timed in found.works.items() if timed and name.startswith(kind)]
        if small:
            changes[field] = _beside_s(small, known_s)
    product_s, convolution_s = (changes.get(name, getattr(base, name)) for name in ("product_s", "convolution_s"))
    if found.blocks:
        device_s = 0.0
        if not queued:
            counts = (sum(each[field] for each in found.blocks) for field in range(3))
            device_s = sum(map(mul, counts, (kernel_s, product_s, convolution_s)))
        host_s = sum(each.call_s for each in found.blocks) - device_s
        changes["host_s"] = max(host_s / sum(each.operators for each in found.blocks), _LEAST_S)
    ways = (changes.get(name, getattr(base, name)) for name in ("pageable_bytes_per_s", "reused_bytes_per_s"))
    byte_s = sum(1 / bytes_per_s for bytes_per_s in ways)
    if found.moved:
        copied_s = found.moved.each_way_bytes * byte_s
        changes["tensor_s"] = max((found.moved.call_s - copied_s) / found.moved.tensors, _LEAST_S)
    if found.hooked:
        copied_s = found.hooked.each_way_bytes * byte_s
        changes["hook_s"] = max((found.hooked.call_s - copied_s) / found.hooked.modules, _LEAST_S)
    if found.release_s is not None:
        changes["release_s"] = max(found.release_s, _LEAST_S)
    return base.model_copy(update={**changes, "source": "calibrated"}) if changes else base


_TABLES = {
    "products": "products_flops_per_s",
    "convolutions": "convolutions_flops_per_s",
    "attention": "attention_flops_per_s",
}
_FIELDS = {
    "pointwise": "pointwise_bytes_per_s",
    "norm": "norm_bytes_per_s",
    "copy": "copy_bytes_per_s",
    "pinned": "pinned_bytes_per_s",
    "pageable": "pageable_bytes_per_s",
    "back": "back_bytes_per_s",
    "reused": "reused_bytes_per_s",
}


def rate_of(timed: Sequence[Timed], kernel_s: float = 0.0) -> float:
    """FLOP or bytes per second of the larger sizes together, without what each kernel takes beside its work.

    >>> rate_of([Timed(1e9, 0.5), Timed(1e12, 1.0), Timed(2e12, 2.0)])
    1000000000000.0
    """
    largest = max(each.amount for each in timed)
    large = [each for each in timed if each.amount >= largest * _AS_LARGE]
    return sum(each.amount for each in large) / sum(max(each.call_s - kernel_s, each.call_s / 2) for each in large)


def _beside_s(works: Iterable[tuple[Sequence[Timed], float]], kernel_s: float) -> float:
    """What products or convolutions take beyond their rate: the smaller sizes, each weighted with what it is of its time."""
    weighted_s = weights = 0.0
    for timed, rate in works:
        for each in timed[:-1]:
            if each.amount < timed[-1].amount * _AS_LARGE:
                weighted_s += (each.call_s - each.amount / rate - kernel_s) / each.call_s
                weights += 1 / each.call_s
    return max(weighted_s / weights, _LEAST_S) if weights else _LEAST_S
