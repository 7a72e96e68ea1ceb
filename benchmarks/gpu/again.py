"""What is predicted today beside what a card did then: residuals of a change to a constant, without the card."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import numpy as np

from autotune.errors import AutotuneError
from autotune.flow.job import Job
from autotune.flow.recordings import Recordings
from autotune.records.device import Device
from autotune.records.plan import PLAIN, Plan
from autotune.records.speed import Speed
from autotune.simulate.workspace import context_bytes, conv_workspace_bytes, cublas_bytes
from benchmarks.gpu.calls import predicted, recordings_of
from benchmarks.gpu.models import Loaded, load
from benchmarks.gpu.results import Found
from benchmarks.gpu.seconds import Predictions, compared

__all__ = ["again"]


def again(path: Path) -> Found:
    """The results in that file with today's predictions; a measured speed is read from the file beside it.

    Raises:
        AutotuneError: it holds no results of a card.
        OSError: it cannot be read.
    """
    try:
        content: Found = json.loads(path.read_text(encoding="utf-8"))
        device = Device.model_validate(content["environment"]["device"])
        calls = _Calls(device, str(content["environment"]["torch"]))
        predictions = _predictions(device, path.with_name("speeds.json"))
    except (ValueError, KeyError, TypeError) as error:
        raise AutotuneError(f"{path} holds no results of benchmarks.gpu: {str(error).splitlines()[0]}") from error
    for part in content["parts"]:
        if part.get("measured"):
            _call(part, calls, predictions)
        elif part["name"] == "context":
            part["predicted_bytes"] = context_bytes(device)
        elif part["name"] == "cublas":
            part["predicted_stays_bytes"] = cublas_bytes(device)
        elif part["name"].startswith("convolutions"):
            for row in part["rows"]:
                row["predicted_bytes"] = _convolution(device, part, row)
    return content


def _predictions(device: Device, speeds: Path) -> Predictions:
    """With the speed that was measured then, if there is a file of it."""
    predictions = Predictions()
    if speeds.exists():
        measured = Speed.model_validate(json.loads(speeds.read_text(encoding="utf-8"))["measured"])
        predictions.calibrate(device.model_copy(update={"speed": measured}))
    return predictions


class _Calls:
    """Recorded calls by model and batch; those of one model at a time."""

    def __init__(self, device: Device, torch: str) -> None:
        self._device, self._torch = device, torch
        self._loaded: Loaded | None = None
        self._recorded: dict[int, tuple[Job, Recordings]] = {}

    def of(self, name: str, batch: int) -> tuple[Job, Recordings]:
        if self._loaded is None or self._loaded.name != name:
            self._loaded, self._recorded = None, {}
            gc.collect()
            self._loaded = load(name, weights=False)
        if batch not in self._recorded:
            self._recorded[batch] = recordings_of(self._loaded, self._device, batch, torch=self._torch)
        return self._recorded[batch]


def _call(part: Found, calls: _Calls, predictions: Predictions) -> None:
    job, recordings = calls.of(part["model"], part["batch"])
    plan = Plan.model_validate(PLAIN.values | part["plan"])
    part["predicted"], estimate, anew = predicted(job, recordings, plan)
    predictions.add(part["seconds"], estimate, anew)
    compared(part["seconds"])


def _convolution(device: Device, part: Found, row: Found) -> int:
    if part["layout"] != "NCHW" or row["kernel"] == 1:
        return 0
    sizes = np.array([[row["input_bytes"], row["output_bytes"], row["weight_bytes"]]])
    return int(conv_workspace_bytes(device, part["dtype"], sizes)[0])
