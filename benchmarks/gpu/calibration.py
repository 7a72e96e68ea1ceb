"""What the card sustains beside what its architecture lets one believe, and convolutions in both orders."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from autotune.measure.calibrate import BUDGET_S, calibrate, climbed
from autotune.measure.fit import rate_of
from autotune.measure.micro import Clock, undisturbed
from autotune.measure.work import convolutions
from autotune.records.device import Device
from autotune.records.speed import Speed
from autotune.report.speeds import figures
from autotune.simulate.speed import sustained
from benchmarks.gpu.card import Card
from benchmarks.gpu.probes import DTYPES
from benchmarks.gpu.results import Found, attempt

__all__ = ["calibration"]

_ORDERS = {"NCHW": False, "NHWC": True}
_PARTS = 100  # of the budget: what one size of one convolution may take


def calibration(card: Card, path: Path, found: Found, *, budget_s: float = BUDGET_S) -> Device:
    """Every figure of `Speed`; both speeds go to a file of their own as well. The device as measured."""
    believed = sustained(card.device.model_copy(update={"speed": None}))
    measured = calibrate(card.device, base=believed, budget_s=budget_s)
    speeds = {"measured": measured.model_dump(), "believed": believed.model_dump()}
    path.write_text(json.dumps(speeds, indent=1) + "\n", encoding="utf-8")
    found |= {"source": measured.source, "file": path.name, "speeds": _beside(believed, measured), "convolutions": []}
    with undisturbed(card.device.torch_device):
        clock = Clock(card.device.torch_device, budget_s=budget_s / _PARTS)
        for dtype in DTYPES:
            for order in _ORDERS:
                row: Found = {"dtype": dtype, "layout": order}
                found["convolutions"].append(row)
                attempt(row, partial(_convolve, card, clock))
    return card.device.model_copy(update={"speed": measured})


def _beside(believed: Speed, measured: Speed) -> list[Found]:
    before = {what: value for what, value, _ in figures(believed)}
    return [
        {
            "what": what,
            "unit": unit,
            "predicted": before.get(what),
            "measured": value if value != before.get(what) else None,
        }
        for what, value, unit in figures(measured)
    ]


def _convolve(card: Card, clock: Clock, row: Found) -> None:
    works = convolutions(card.device.torch_device, row["dtype"], channels_last=_ORDERS[row["layout"]])
    row["flops_per_s"] = rate_of(climbed(clock, works, card.device, row["dtype"]))
