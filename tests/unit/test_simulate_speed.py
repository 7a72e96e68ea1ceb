"""What cards sustain: what must be true of every generation, whatever the constants are."""

from __future__ import annotations

import pytest

from autotune.probe.catalog import card, names
from autotune.records.speed import Speed
from autotune.simulate.speed import sustained
from tests.unit.handmade import CPU
from tests.unit.test_simulate_latency import SPEED


def rates(speed: Speed) -> dict[str, float]:
    return {name: value for name, value in speed.model_dump().items() if isinstance(value, float)}


@pytest.mark.parametrize("name", names())
def test_no_card_exceeds_its_peaks(name):
    device, speed = card(name), sustained(card(name))
    peaks = {
        "float32": device.fp32_flops_per_s, "tf32": device.tf32_flops_per_s, "float16": device.fp16_flops_per_s,
        "bfloat16": device.bf16_flops_per_s, "float8": device.fp8_flops_per_s,
    }  # fmt: skip
    for table in (speed.products_flops_per_s, speed.convolutions_flops_per_s):
        assert all(0 < rate <= peaks[kind] for kind, rate in table.items() if kind in peaks)
    assert max(speed.attention_flops_per_s.values()) <= max(filter(None, peaks.values()))
    for value in (speed.pointwise_bytes_per_s, speed.norm_bytes_per_s, speed.copy_bytes_per_s):
        assert 0 < value < device.bandwidth_bytes_per_s
    assert 0 < speed.back_bytes_per_s <= speed.pageable_bytes_per_s < speed.pinned_bytes_per_s
    assert all(value > 0 for value in rates(speed).values())
    assert speed.source == "catalogue"


def test_few_watts_do_not_feed_many_tensor_cores():
    def share(name):
        return sustained(card(name)).products_flops_per_s["float16"] / card(name).fp16_flops_per_s

    assert share("Tesla T4") < 0.4 < share("NVIDIA TITAN RTX")
    assert share("NVIDIA L4") < 0.7 < share("NVIDIA L40S")


def test_a_lower_power_limit_slows_tensor_cores_down():
    full = card("NVIDIA RTX A6000")
    half = full.model_copy(update={"power_limit_w": full.power_limit_w / 2})
    assert sustained(half).products_flops_per_s["float16"] < sustained(full).products_flops_per_s["float16"]
    assert sustained(half).pointwise_bytes_per_s == sustained(full).pointwise_bytes_per_s


def test_cards_without_tensor_cores_compute_everything_in_fp32():
    speed = sustained(card("Tesla P100-PCIE-16GB"))
    assert list(speed.products_flops_per_s) == ["float32"]


def test_the_link_decides_what_is_pinned_and_the_host_what_is_not():
    fast, slow = card("NVIDIA H100 80GB HBM3"), card("NVIDIA H100 80GB HBM3").model_copy(update={"pcie_generation": 4})
    assert sustained(fast).pinned_bytes_per_s == 2 * sustained(slow).pinned_bytes_per_s
    assert sustained(fast).pageable_bytes_per_s == sustained(slow).pageable_bytes_per_s
    narrow = slow.model_copy(update={"pcie_width": 4})
    assert sustained(narrow).pageable_bytes_per_s < sustained(slow).pageable_bytes_per_s
    unknown = slow.model_copy(update={"pcie_generation": None, "pcie_width": None})
    assert sustained(unknown).pinned_bytes_per_s < sustained(slow).pinned_bytes_per_s


def test_what_was_measured_is_taken():
    measured = SPEED.model_copy(update={"source": "calibrated"})
    assert sustained(card("Tesla T4").model_copy(update={"speed": measured})) is measured


def test_a_cpu_has_one_attention_and_no_gaps():
    speed = sustained(CPU)
    assert list(speed.attention_flops_per_s) == ["cpu"]
    assert speed.kernel_s == 0.0 < speed.host_s
