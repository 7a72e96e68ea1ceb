"""Predicted beside measured seconds on this CPU, calibrated first: `python -m benchmarks.cpu [--json OUT]`.

Six tiny pipelines, whose seconds are nearly all Python's and the dispatcher's, and one step of a full-size UNet, whose seconds
are arithmetic. Times are disturbed by whatever else the machine does; the last row says how much that was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import torch

from autotune.flow.job import job_for
from autotune.flow.planning import as_it_is
from autotune.measure.calibrate import calibrate
from autotune.measure.micro import others_cpu_s
from autotune.probe.gpu import cpu_device
from autotune.records.device import Device
from autotune.records.estimate import Estimate
from autotune.simulate.speed import sustained
from autotune.zoo.build import quiet
from benchmarks import tiny
from benchmarks.tables import Row, json_argument, publish

__all__ = ["Compared", "compared", "errors_of", "main"]

_STEPS = 6  # the first one is not steady
_CALLS, _FULL_CALLS = 9, 3
_FULL = {"height": 512, "width": 512, "num_inference_steps": 50}  # PNDM calls the UNet once more than there are steps


class Compared(NamedTuple):
    """One figure of a pipeline."""

    figure: str
    predicted_s: float
    measured_s: tuple[float, ...]

    @property
    def error_pct(self) -> float:
        """Of the prediction, in per cent of the median of what was measured."""
        return 100 * (self.predicted_s / median(self.measured_s) - 1)


def main() -> None:
    """Calibrates, compares and publishes, some two minutes."""
    json_path = json_argument(__doc__ or "")
    before_s, start_s = others_cpu_s(), time.perf_counter()
    with quiet():
        bare = cpu_device()
        device = bare.model_copy(update={"speed": calibrate(bare, base=sustained(bare))})
        calibrated_s = time.perf_counter() - start_s
        found = [one for name in tiny.PIPELINES for one in compared(name, device)]
        found.append(_full_size_step(device))
    others_cores = (others_cpu_s() - before_s) / (time.perf_counter() - start_s)
    rows = list(errors_of(found))
    rows.append(Row("calibrate_s", (calibrated_s,), "calibrating this CPU", False))
    rows.append(Row("others_cores", (others_cores,), "cores that other processes kept busy meanwhile", False))
    publish("Seconds on this CPU, predicted and measured", rows, json_path)


def compared(name: str, device: Device, *, calls: int = _CALLS) -> Iterator[Compared]:
    """A tiny pipeline as it is: the whole call and one step."""
    pipe = tiny.PIPELINES[name]()
    asked = {**tiny.CALLS[name], "num_inference_steps": _STEPS}
    estimate = _estimate(pipe, device, asked)
    call_s, step_s = [], []
    for _ in range(1 + calls):  # the first warms up
        ends_s: list[float] = []
        call_s.append(_seconds(partial(tiny.generate, name, pipe, **_noting(asked, ends_s))))
        step_s.append(median(later - earlier for earlier, later in pairwise(ends_s)))
    yield Compared(f"{name}_call_s", estimate.latency_s, tuple(call_s[1:]))
    yield Compared(f"{name}_step_s", estimate.step_s, tuple(step_s[1:]))


def errors_of(found: list[Compared]) -> Iterator[Row]:
    """The worst and the median error, and a row for each figure."""
    errors = tuple(abs(one.error_pct) for one in found)
    worst = max(found, key=lambda one: abs(one.error_pct))
    yield Row("cpu_latency_worst_pct", (max(errors),), f"largest error of {len(errors)} predictions: {worst.figure}")
    yield Row("cpu_latency_median_pct", (median(errors),), "median error of them; 25 is the target for each")
    for one in found:
        yield Row(one.figure, one.measured_s, f"predicted {one.predicted_s:.4g} s, {one.error_pct:+.0f} %", False)


def _full_size_step(device: Device) -> Compared:
    """One step of Stable Diffusion 1.5 at 512 pixels with guidance in fp32, which is one call of its UNet."""
    from autotune.zoo.locate import locate

    pipe = locate("sd15").pipe
    step_s = _estimate(pipe, device, _FULL).step_s
    unet = pipe.unet.to_empty(device="cpu")
    for tensor in (*unet.parameters(), *unet.buffers()):
        tensor.data.normal_(0, 0.02)
    latents, text = torch.randn(2, 4, 64, 64), torch.randn(2, 77, 768)
    with torch.no_grad():
        runs = [_seconds(partial(unet, latents, 999, encoder_hidden_states=text)) for _ in range(1 + _FULL_CALLS)]
    return Compared("sd15_full_step_s", step_s, tuple(runs[1:]))


def _estimate(pipe: Any, device: Device, call: dict[str, Any]) -> Estimate:
    job = job_for(pipe, device=device, workload=call, example=None, calls=1, undo=False)
    return as_it_is(job).estimate


def _noting(call: dict[str, Any], ends_s: list[float]) -> dict[str, Any]:
    """The call, which notes when each of its steps ends."""

    def note(_pipe: Any, _step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        ends_s.append(time.perf_counter())
        return values

    return {**call, "callback_on_step_end": note}


def _seconds(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
