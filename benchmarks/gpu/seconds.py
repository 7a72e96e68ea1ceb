"""Seconds of warm calls and their steps: predicted with the catalogue's constants and with calibrated ones, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from autotune.records.device import Device
from autotune.records.estimate import Estimate
from autotune.upstream.port import parameters_of
from benchmarks.gpu.card import Card
from benchmarks.gpu.results import Found, error_pct

__all__ = ["CONSTANTS", "FIGURES", "Predictions", "Timed", "compared", "timed", "warm"]

FIGURES = ("call", "step")
CONSTANTS = {"": "the catalogue's", "_calibrated": "calibrated"}
"""By what ends the names of their fields."""

_CALLBACK = "callback_on_step_end"
_DIGITS = 6  # down to a microsecond


class Timed(NamedTuple):
    """Seconds of one call; of its steps but the first, None where the pipeline does not tell when they end."""

    call_s: float
    step_s: float | None


class Predictions:
    """Predicted seconds. What was predicted before the device is calibrated is predicted again then."""

    def __init__(self) -> None:
        self._calibrated: Device | None = None
        self._waiting: list[tuple[Found, Callable[[Device], Estimate]]] = []

    def add(self, seconds: Found, catalogue: Estimate, again: Callable[[Device], Estimate]) -> None:
        """Writes what is predicted.

        Args:
            seconds: is filled in, now and when the device is calibrated.
            catalogue: the prediction with the catalogue's constants.
            again: the same for a device with a speed of its own.
        """
        for ending in CONSTANTS:
            seconds |= {f"predicted_{figure}{ending}_s": None for figure in FIGURES}
        seconds |= _predicted(catalogue, "")
        if self._calibrated is None:
            self._waiting.append((seconds, again))
        else:
            seconds |= _predicted(again(self._calibrated), "_calibrated")

    def calibrate(self, device: Device) -> None:
        """From now on the device has a measured speed. One that could not be measured changes nothing."""
        if device.speed is None or device.speed.source != "calibrated":
            return
        self._calibrated = device
        for seconds, again in self._waiting:
            seconds |= _predicted(again(device), "_calibrated")
            compared(seconds)
        self._waiting.clear()


def timed(card: Card, pipe: Any, call: Mapping[str, Any], *, steps: int) -> Timed:
    """One call, until the card is done with it. Ends of steps are marked on the card and not waited for."""
    ends: list[Any] = []

    def note(_pipe: Any, _step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        ends.append(card.mark())
        return values

    noting = {_CALLBACK: note} if _CALLBACK in parameters_of(pipe) else {}
    card.synchronize()
    start_s = time.perf_counter()
    pipe(**call, **noting)
    card.synchronize()
    call_s = time.perf_counter() - start_s
    return Timed(call_s, _step_s([card.between_s(*pair) for pair in pairwise(ends)], steps=steps))


def warm(calls: Sequence[Timed]) -> Found:
    """Medians of calls after the first one."""
    steps_s = [call.step_s for call in calls if call.step_s is not None]
    return {
        "calls": len(calls),
        "call_s": round(median(call.call_s for call in calls), _DIGITS),
        "step_s": round(median(steps_s), _DIGITS) if steps_s else None,
    }


def compared(seconds: Found) -> None:
    """Adds the error of each prediction, in per cent of what was measured."""
    for figure in FIGURES:
        for ending in CONSTANTS:
            error = error_pct(seconds[f"predicted_{figure}{ending}_s"], seconds.get(f"{figure}_s"))
            seconds[f"{figure}{ending}_error_pct"] = None if error is None else round(error, 1)


def _predicted(estimate: Estimate, ending: str) -> Found:
    figures = zip(FIGURES, (estimate.latency_s, estimate.step_s), strict=True)
    return {f"predicted_{figure}{ending}_s": round(value_s, _DIGITS) for figure, value_s in figures}


def _step_s(between_s: Iterable[float], *, steps: int) -> float | None:
    """As `Estimate.step_s` has it: where a scheduler takes more turns than there are steps, a step is more than one of them."""
    turns_s = list(between_s)
    return median(turns_s) * (len(turns_s) + 1) / steps if turns_s else None
