"""What a device sustains, as rows for a person: what was measured beside what was believed."""

from __future__ import annotations

from collections.abc import Iterator

from autotune.records.speed import Speed

__all__ = ["figures", "speed_rows"]

_TABLES = {
    "products_flops_per_s": "matrix products",
    "convolutions_flops_per_s": "convolutions",
    "attention_flops_per_s": "attention",
}
_BYTES = {
    "pointwise_bytes_per_s": "pointwise kernels",
    "norm_bytes_per_s": "normalisation, softmax",
    "copy_bytes_per_s": "copies on the device",
    "pinned_bytes_per_s": "pinned memory to the device",
    "pageable_bytes_per_s": "pageable memory to the device",
    "back_bytes_per_s": "device to pageable memory, new",
    "reused_bytes_per_s": "device to pageable memory, reused",
    "pictures_bytes_per_s": "making pictures, on the host",
}
_SECONDS = {
    "kernel_s": "a kernel, beside its work",
    "product_s": "a matrix product, beside that",
    "convolution_s": "a convolution, beside that",
    "host_s": "an operator, for the host",
    "tensor_s": "moving a tensor",
    "hook_s": "an offloading hook",
    "release_s": "emptying the allocator's cache",
}


def figures(speed: Speed) -> Iterator[tuple[str, float, str]]:
    """What each figure is, its value in SI units, and the unit.

    >>> from autotune.probe.catalog import card
    >>> from autotune.simulate.speed import sustained
    >>> next(figures(sustained(card("RTX 3060 12GB"))))[::2]
    ('matrix products, float32', 'FLOP/s')
    """
    for field, what in _TABLES.items():
        yield from ((f"{what}, {name}", rate, "FLOP/s") for name, rate in getattr(speed, field).items())
    yield from ((what, getattr(speed, field), "B/s") for field, what in _BYTES.items())
    yield from ((what, getattr(speed, field), "s") for field, what in _SECONDS.items())


def speed_rows(measured: Speed, believed: Speed) -> list[tuple[str, str, str, str]]:
    """What, believed, measured, and measured over believed; "as believed" where it was not measured."""
    before = {what: value for what, value, _ in figures(believed)}
    rows = []
    for what, value, unit in figures(measured):
        was = before.get(what)
        words = "" if was is None else _words(was, unit)
        if value == was:
            rows.append((what, words, "as believed", ""))
        else:
            rows.append((what, words, _words(value, unit), f"{value / was:.2f}x" if was else ""))
    return rows


def _words(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1e6:.3g} us"
    prefix, scale = ("T", 1e12) if value >= 1e12 else ("G", 1e9)
    return f"{value / scale:.3g} {prefix}{unit}"
