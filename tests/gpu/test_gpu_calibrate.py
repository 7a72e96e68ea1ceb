"""On a real card: what is measured is possible, comes out alike twice, and leaves the process as it was.

Run with `pytest -m gpu`. Set `AUTOTUNE_GPU_BENCHMARK` to a folder to keep the figures.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from autotune.measure.calibrate import calibrate
from autotune.probe.gpu import local_device
from autotune.report.speeds import figures
from autotune.simulate.speed import sustained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]


@pytest.fixture(scope="module")
def device():
    return local_device("cuda")


@pytest.fixture(scope="module")
def measured(device):
    speed = calibrate(device, base=sustained(device))
    folder = os.environ.get("AUTOTUNE_GPU_BENCHMARK")
    if folder:
        Path(folder, "speed.json").write_text(speed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return speed


def test_every_figure_is_measured(device, measured):
    believed = {what: value for what, value, _ in figures(sustained(device))}
    same = {what for what, value, _ in figures(measured) if value == believed.get(what)}
    assert same <= {
        what for what in believed if any(word in what for word in ("int8", "int4", "xformers", "float8", "pictures"))
    }
    assert measured.source == "calibrated"


def test_no_rate_is_beyond_the_hardware(device, measured):
    peaks = {
        "float32": device.fp32_flops_per_s,
        "tf32": device.tf32_flops_per_s,
        "float16": device.fp16_flops_per_s,
        "bfloat16": device.bf16_flops_per_s,
    }
    for name, peak in peaks.items():
        if peak:
            assert measured.products_flops_per_s[name] < 1.2 * peak  # boards are clocked above the reference
    assert measured.copy_bytes_per_s < 5 * device.bandwidth_bytes_per_s  # the smaller image stays in the cache


def test_half_precision_is_faster_on_tensor_cores(device, measured):
    if device.compute_capability >= (7, 0):
        assert measured.products_flops_per_s["float16"] > 1.5 * measured.products_flops_per_s["float32"]


def test_a_kernel_costs_the_card_less_than_its_launch_costs_the_host(measured):
    assert 0 < measured.kernel_s < measured.host_s < 1e-3


def settings():
    return (
        torch.backends.cudnn.benchmark,
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.is_grad_enabled(),
        torch.cuda.current_device(),
        torch.cuda.memory_allocated(),
    )


def test_the_process_is_left_as_it_was(device):
    torch.manual_seed(3)
    expected = torch.rand(2, device="cuda")
    torch.manual_seed(3)
    torch.cuda.empty_cache()
    before = settings()
    calibrate(device, base=sustained(device), budget_s=1.0)
    assert settings() == before
    assert torch.cuda.memory_reserved() <= 64 * 2**20
    assert torch.equal(torch.rand(2, device="cuda"), expected)
