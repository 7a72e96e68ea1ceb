"""On a real card: the benchmark counts what it is to count, and a recorded history is replayed without a difference.

Run with `pytest -m gpu`. Set `AUTOTUNE_GPU_BENCHMARK` to a folder to keep the results.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from autotune.units import MIB
from benchmarks.gpu.__main__ import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]

MODEL = "tiny-sd"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = Path(os.environ.get("AUTOTUNE_GPU_BENCHMARK", tmp_path_factory.mktemp("gpu")))
    assert main(["--out", str(folder), "--device", "cuda", "--minutes", "8", "--models", MODEL]) == 0
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def part(results, name):
    return next(part for part in results["parts"] if part["name"] == name)


def test_nothing_fails_but_plans_that_the_pipeline_refuses(results):
    assert results["complete"]
    assert {part["error"]["kind"] for part in results["parts"] if "error" in part} <= {"PlanError"}


def test_the_context_takes_memory(results):
    found = part(results, "context")
    assert 0 < found["bare_bytes"] <= found["warm_bytes"]


@pytest.mark.parametrize("call", ["first", "steady"])
def test_a_call_is_counted(results, call):
    found = part(results, f"{MODEL}: as it is")
    counted, predicted = found["measured"][call], found["predicted"][call]
    assert 0 < counted["allocated_bytes"] <= counted["reserved_bytes"] < counted["process_bytes"]
    assert counted["allocated_bytes"] <= predicted["process_bytes"] + found["predicted"]["margin_bytes"]


def test_seconds_are_measured_beside_both_predictions(results):
    seconds = part(results, f"{MODEL}: as it is")["seconds"]
    assert 0 < seconds["step_s"] < seconds["call_s"]
    assert seconds["predicted_call_s"] > 0 < seconds["predicted_call_calibrated_s"]


def test_nothing_but_a_scheduler_is_left_on_the_card_between_parts(results):
    left = [part["measured"]["allocated_before_bytes"] for part in results["parts"] if part.get("measured")]
    assert max(left) < MIB


def test_kernels_are_counted(results):
    for kind in ("convolutions in float16, NCHW", "attention in float32"):
        assert all(isinstance(row.get("measured_bytes"), int) or "error" in row for row in part(results, kind)["rows"])


def test_a_recorded_history_is_replayed_without_a_difference(results):
    assert part(results, f"{MODEL}: history")["first_difference"] is None
