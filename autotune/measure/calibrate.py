"""Measures what a device sustains: micro-benchmarks of the kernels, copies and overheads that a latency model is made of.

A measurement that cannot be made here (a format, a kernel, a link that is not there) leaves what was believed before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from autotune.measure import overheads, work
from autotune.measure.fit import Found, Timed, speed_from
from autotune.measure.micro import Clock, undisturbed
from autotune.records.device import Device
from autotune.records.speed import Speed

__all__ = ["BUDGET_S", "Progress", "calibrate", "climbed"]

BUDGET_S = 15.0

_FREE_SHARE = 0.25  # of free memory that operands and results may take: others use the device too
_COSTS: dict[str, Callable[[Clock], Any]] = {"kernel_s": overheads.kernel_s, "blocks": overheads.blocks}
_COSTS_OF_MOVING: dict[str, Callable[[Clock], Any]] = {
    "moved": overheads.moved,
    "release_s": overheads.release_s,
    "hooked": overheads.hooked,
}

Progress = Callable[[str, int, int], None]

_log = logging.getLogger("autotune")


def calibrate(device: Device, *, base: Speed, budget_s: float = BUDGET_S, progress: Progress | None = None) -> Speed:
    """What the device sustains, measured in about `budget_s` seconds. The process is left as it was.

    Args:
        device: a card of this machine, or its CPU.
        base: what is believed of it; kept where nothing can be measured.
        budget_s: seconds to spend. A slow device may take longer, for every figure needs a call or two.
        progress: told what is measured next, how many are done, and of how many.

    >>> from autotune.probe.gpu import cpu_device
    >>> from autotune.simulate.speed import sustained
    >>> calibrate(cpu_device(), base=sustained(cpu_device()), budget_s=0.5).source
    'calibrated'
    """
    is_cuda = device.kind == "cuda"
    works = {name: list(several) for name, several in _works(device)}
    costs = _COSTS | (_COSTS_OF_MOVING if is_cuda else {})
    found: dict[str, Any] = {}
    with undisturbed(device.torch_device):
        clock = Clock(device.torch_device, budget_s=budget_s / (sum(map(len, works.values())) + len(costs)))
        for done, name in enumerate((*works, *costs)):
            if progress:
                progress(name, done, len(works) + len(costs))
            try:
                found[name] = climbed(clock, works[name], device, name) if name in works else costs[name](clock)
            except Exception as error:  # whatever it is: this device, driver or version cannot do it
                _log.info("%s could not be measured: %s", name, str(error).partition("\n")[0])
    timed = {name: found.pop(name) for name in works if name in found}
    return speed_from(Found(timed, **found), base=base, queued=is_cuda)


def climbed(clock: Clock, works: Iterable[work.Work], device: Device, name: str) -> list[Timed]:
    """Timed from small to large, as far as memory and time go."""
    timed: list[Timed] = []
    _compute_fp32_as("tf32" if name.endswith(" tf32") else "ieee")
    room_bytes = _FREE_SHARE * (device.free_bytes or device.total_bytes)
    for one in works:
        expected_s = timed[-1].call_s * one.amount / timed[-1].amount if timed else 0.0
        if expected_s > clock.budget_s / 2 or one.needed_bytes > room_bytes:
            break
        timed.append(Timed(one.amount, clock.device_s(one.make())))
    return timed


def _works(device: Device) -> Iterator[tuple[str, Iterable[work.Work]]]:
    """What is timed, by kind and mode."""
    torch_device, is_cuda = device.torch_device, device.kind == "cuda"
    half = "bfloat16" if device.supports_bf16 else "float16"
    floats = ["float32", *(["tf32"] if device.supports_tf32 else []), "float16"]
    floats += ["bfloat16"] if device.supports_bf16 else []
    for mode in (*floats, *(["float8"] if device.fp8 and is_cuda else [])):
        yield f"products {mode}", work.products(torch_device, mode)
    for mode in floats:  # the CPU's are in the order that pipelines have: nothing is copied there for another one
        yield f"convolutions {mode}", work.convolutions(torch_device, mode, channels_last=is_cuda)
    if is_cuda:
        for kernel in ("flash", "efficient", "math"):
            yield f"attention {kernel}", work.attentions(torch_device, half, kernel)
        yield "attention efficient_float32", work.attentions(torch_device, "float32", "efficient")
    else:
        yield "attention cpu", work.attentions(torch_device, "float32", "cpu")
    mode = half if is_cuda else "float32"
    yield "pointwise", work.pointwise(torch_device, mode)
    yield "norm", work.norms(torch_device, mode)
    yield "copy", work.copies(torch_device, mode)
    for way in ("pinned", "pageable", "back", "reused") if is_cuda else ():
        yield way, work.moves(torch_device, way)


def _compute_fp32_as(precision: str) -> None:
    """fp32 products and convolutions by "ieee" arithmetic or as "tf32". What was set before is `undisturbed`'s to put back."""
    import torch

    torch.backends.cuda.matmul.fp32_precision = precision
    cast("Any", torch.backends.cudnn).conv.fp32_precision = precision
