"""A card with a speed of its own, and calls that were measured on it, made by hand."""

from __future__ import annotations

from typing import Any

from autotune.records.measurement import Measurement
from autotune.records.plan import Plan
from autotune.records.speed import Speed
from autotune.records.workload import Workload
from autotune.store.key import hash_speed
from tests.unit.handmade import CARD

SPEED = Speed(
    products_flops_per_s={"float32": 8e12, "tf32": 16e12, "float16": 30e12, "bfloat16": 30e12, "float8": 60e12},
    convolutions_flops_per_s={"float32": 7e12, "tf32": 14e12, "float16": 28e12, "bfloat16": 28e12, "float8": 28e12},
    attention_flops_per_s={
        "flash": 20e12,
        "efficient": 15e12,
        "efficient_float32": 7e12,
        "xformers_float32": 7e12,
        "math": 5e12,
        "cpu": 1e11,
    },
    pointwise_bytes_per_s=250e9,
    norm_bytes_per_s=180e9,
    copy_bytes_per_s=240e9,
    kernel_s=2e-6,
    product_s=3e-6,
    convolution_s=3e-6,
    host_s=15e-6,
    hook_s=50e-6,
    pinned_bytes_per_s=20e9,
    pageable_bytes_per_s=8e9,
    back_bytes_per_s=7e9,
    reused_bytes_per_s=7e9,
    tensor_s=10e-6,
    source="calibrated",
)
MEASURED_CARD = CARD.model_copy(update={"speed": SPEED})
KEY = hash_speed(SPEED)


def measured(compute_s: float, transfer_s: float, call_s: float, **changes: Any) -> Measurement:
    """A call on the card: what was predicted for it, and what it took."""
    usual = {
        "card": CARD.name, "total_bytes": CARD.total_bytes, "torch_version": "2.9.0", "model": "sd15", "plan": Plan(),
        "workload": Workload(height=512, width=512, steps=30), "speed_key": KEY, "day": "2026-01-31",
    }  # fmt: skip
    return Measurement(compute_s=compute_s, transfer_s=transfer_s, call_s=call_s, **{**usual, **changes})
