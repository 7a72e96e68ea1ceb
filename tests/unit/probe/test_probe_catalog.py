"""The catalogue: every name finds its card, every wrong one is told what there is, real cards find their row."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from autotune.probe.catalog import card, facts_for, listed, names, slug
from autotune.records.device import Device
from autotune.units import GIB


def test_every_name_finds_one_card_with_its_own_slug():
    assert len(names()) == 192
    assert len({slug(card(name)) for name in names()}) == 192
    assert [card(name) for name in names()] == listed()


def test_every_card_is_plausible():
    for device in map(card, names()):
        assert device.kind == "cuda"
        assert device.source == "catalogue"
        assert device.free_bytes is None
        assert 1e12 < device.fp32_flops_per_s < 2e14, device.name
        assert 7e10 < device.bandwidth_bytes_per_s < 1e13, device.name
        assert device.fp16_flops_per_s >= device.fp32_flops_per_s, device.name
        assert (device.bf16_flops_per_s is not None) == device.supports_bf16, device.name
        assert (device.tf32_flops_per_s is not None) == device.supports_tf32, device.name
        assert device.fp8 == (device.compute_capability >= (8, 9)), device.name
        assert not device.fp8 or device.fp8_flops_per_s == pytest.approx(2 * device.fp16_flops_per_s, rel=0.02)
        assert device.bf16_flops_per_s in {None, device.fp16_flops_per_s}, device.name
        assert (device.tf32_flops_per_s or device.fp32_flops_per_s) >= 0.97 * device.fp32_flops_per_s, device.name
        assert (device.tf32_flops_per_s or 0) <= 0.52 * device.fp16_flops_per_s, device.name
        assert 30 <= device.power_limit_w <= 1400, device.name
        # Products from DRAM are bound by memory at 20 FLOP a byte and less on every card that was ever sold.
        assert device.fp16_flops_per_s > 15 * device.bandwidth_bytes_per_s, device.name
        assert 0.3e12 < device.fp32_flops_per_s / (device.sm_count or 100) * 2 < 1.5e12, device.name
        assert device.pcie_generation in {3, 4, 5, 6}
        assert device.pcie_width in {4, 8, 16}
        assert device.shares_ram == (device.name == "NVIDIA GB10")


def test_a_known_card_in_full():
    device = card("NVIDIA GeForce RTX 3060 12GB")
    assert device.name == "NVIDIA GeForce RTX 3060"
    assert device.torch_device == "cuda:0"
    assert device.compute_capability == (8, 6)
    assert (device.sm_count, device.pcie_generation, device.pcie_width) == (28, 4, 16)
    assert device.total_bytes == 12_884_377_600
    assert (device.fp32_flops_per_s, device.fp16_flops_per_s) == (12.74e12, 25.5e12)
    assert device.bandwidth_bytes_per_s == 360e9
    assert (device.fp8_flops_per_s, device.power_limit_w) == (None, 170.0)


def test_sizes_of_one_name_are_different_cards():
    smaller, larger = card("RTX 3080 10GB"), card("RTX 3080 12GB")
    assert smaller.name == larger.name
    assert (smaller.sm_count, larger.sm_count) == (68, 70)


def test_cards_are_listed_by_words_of_the_name_as_it_is_typed():
    assert [device.name for device in listed("TITAN x")] == [
        "NVIDIA GeForce GTX TITAN X",
        "NVIDIA TITAN Xp",
        "NVIDIA TITAN X (Pascal)",
        "NVIDIA TITAN RTX",
    ]
    assert [device.total_bytes > 11e9 for device in listed("rtx 3060 12GB")] == [True]
    assert [device.name for device in listed("sxm5 h100")] == ["NVIDIA H100 80GB HBM3"]
    assert listed("") == listed(None) == listed()
    assert listed("radeon") == []


def test_half_precision_is_the_rate_that_really_applies():
    pascal, p100, gtx16, turing = map(card, ["GTX 1080 Ti", "Tesla P100-PCIE-16GB", "GTX 1660 Ti", "RTX 2080"])
    assert pascal.fp16_flops_per_s == pascal.fp32_flops_per_s
    assert p100.fp16_flops_per_s == pytest.approx(2 * p100.fp32_flops_per_s, rel=0.01)
    assert gtx16.fp16_flops_per_s == pytest.approx(2 * gtx16.fp32_flops_per_s, rel=0.01)
    assert turing.fp16_flops_per_s == 40.3e12


@pytest.mark.parametrize(
    ("name", "tflops", "watts"),
    [
        ("RTX 4090", 330.3, 450),
        ("RTX 5090", 419.0, 575),
        ("NVIDIA L4", 242.5, 72),
        ("NVIDIA L40S", 733.0, 350),
        ("NVIDIA H100 80GB HBM3", 1979.0, 700),
        ("NVIDIA H100 PCIe", 1513.0, 350),
    ],
)
def test_fp8_rates_and_board_power(name, tflops, watts):
    assert card(name).fp8_flops_per_s == tflops * 1e12
    assert card(name).power_limit_w == watts


def test_what_two_cards_of_almost_one_name_do_differently():
    a10, a10g = card("A10"), card("A10G")
    assert (a10.sm_count, a10.fp32_flops_per_s, a10.fp16_flops_per_s, a10.power_limit_w) == (72, 31.24e12, 125e12, 150)
    assert (a10g.sm_count, a10g.fp32_flops_per_s, a10g.fp16_flops_per_s, a10g.power_limit_w) == (80, 35e12, 70e12, 300)


def test_the_driver_keeps_its_share_where_no_total_was_reported():
    assert card("RTX 3090").total_bytes == int(24 * GIB * 0.98)
    assert card("NVIDIA L4").total_bytes == int(24 * GIB * 0.92)
    assert card("RTX 4090").total_bytes == 25_262_096_384


def test_the_slug_does_not_depend_on_where_the_size_was_written():
    assert slug(card("3060 12g")) == slug(card("RTX 3060 12GB")) == "nvidia-geforce-rtx-3060-12gb"
    assert slug(card("NVIDIA A100-SXM4-80GB")) == "nvidia-a100-sxm4-80gb"
    assert slug(card("NVIDIA A100 80GB PCIe")) == "nvidia-a100-pcie-80gb"
    assert slug(card("Tesla T4")) == "tesla-t4-16gb"
    linux = facts_for("NVIDIA GeForce RTX 3060", 12_622_168_064, (8, 6), 28)
    assert slug(linux) == "nvidia-geforce-rtx-3060-12gb"
    assert (
        slug(facts_for("NVIDIA GeForce RTX 9990", int(19.6 * GIB), (12, 0), 90))
        == "nvidia-geforce-rtx-9990-20gb-assumed-12.0"
    )


def test_a_real_card_takes_rates_from_its_row_and_the_rest_from_the_driver():
    total_bytes = int(11.7 * GIB)
    device = facts_for("NVIDIA GeForce RTX 3080", total_bytes, (8, 6), 70)
    assert device.bandwidth_bytes_per_s == card("RTX 3080 12GB").bandwidth_bytes_per_s
    assert device.total_bytes == total_bytes
    assert device.source == "catalogue"


def test_older_drivers_name_cards_without_the_maker():
    assert facts_for("GeForce RTX 3090", 24 * GIB, (8, 6), 82).fp32_flops_per_s == 35.58e12


def test_a_known_name_with_another_memory_is_assumed():
    device = facts_for("NVIDIA GeForce RTX 3060", 20 * GIB, (8, 6), 14)
    assert device.source == "assumed"
    (note,) = device.notes
    assert note == (
        "NVIDIA GeForce RTX 3060 with 21.47 GB is not in the catalogue; "
        "rates assumed from NVIDIA GeForce RTX 3060 times 0.50, by SM count"
    )
    assert device.fp32_flops_per_s == pytest.approx(12.74e12 * 14 / 28)
    assert device.power_limit_w == pytest.approx(170 * 14 / 28)
    assert (device.sm_count, device.total_bytes) == (14, 20 * GIB)


def test_two_sizes_of_one_name_are_told_apart_by_their_memory():
    for gib in (8, 12):
        device = facts_for("NVIDIA GeForce RTX 3060", int(gib * GIB * 0.98), (8, 6), 28)
        assert device.bandwidth_bytes_per_s == card(f"RTX 3060 {gib}GB").bandwidth_bytes_per_s
    assert (
        facts_for("NVIDIA H800", 80 * GIB, (9, 0), 132).bandwidth_bytes_per_s == card("H800 SXM").bandwidth_bytes_per_s
    )
    assert facts_for("NVIDIA GH200 480GB", 95 * GIB, (9, 0), 132).source == "catalogue"


@pytest.mark.parametrize(
    ("name", "capability", "sm_count", "model"),
    [
        ("NVIDIA GeForce RTX 3050 A Laptop GPU", (8, 6), 16, "NVIDIA GeForce RTX 3050 Laptop GPU"),
        ("NVIDIA RTX A3500 Laptop GPU", (8, 6), 34, "NVIDIA RTX A3000 Laptop GPU"),
        ("NVIDIA GeForce RTX 3040", (8, 6), 18, "NVIDIA GeForce RTX 3050"),
        ("NVIDIA GeForce GTX 1640", (7, 5), 12, "NVIDIA GeForce GTX 1650"),
        ("NVIDIA GeForce MX550", (7, 5), 16, "NVIDIA GeForce GTX 1650"),
        ("NVIDIA GeForce GTX 750 Ti", (5, 0), 5, "NVIDIA GeForce GTX 970"),
        ("NVIDIA Thing", (12, 1), 40, "NVIDIA GB10"),
    ],
)
def test_an_unknown_card_is_taken_for_one_of_its_kind(name, capability, sm_count, model):
    device = facts_for(name, 4 * GIB, capability, sm_count)
    assert f"rates assumed from {model}" in device.notes[0]
    assert device.shares_ram == (model == "NVIDIA GB10")


def test_cards_that_compute_nan_in_fp16():
    failing = {device.name for device in listed() if device.fp16_fails}
    assert failing == {
        *(f"NVIDIA GeForce GTX {number}" for number in ("1630", "1650", "1650 SUPER", "1650 Ti")),
        *(f"NVIDIA GeForce GTX {number}" for number in ("1660", "1660 SUPER", "1660 Ti")),
        *("NVIDIA GeForce MX450", "NVIDIA T1000", "NVIDIA T1000 8GB", "NVIDIA T600", "NVIDIA T400 4GB"),
    }
    for name in (
        "NVIDIA GeForce GTX 1660 Ti",
        "GeForce GTX 1650 with Max-Q Design",
        "Quadro T2000",
        "NVIDIA GeForce MX550",
    ):
        device = facts_for(name, 6 * GIB, (7, 5), 22)
        assert device.fp16_fails
        assert "known to give black images in fp16" in device.notes
    for name in ("Tesla T4", "NVIDIA GeForce RTX 2060", "Quadro RTX 4000"):
        assert not facts_for(name, 8 * GIB, (7, 5), 40).fp16_fails


def test_old_cards_say_which_torch_runs_on_them():
    for device in listed():
        said = "torch runs here from its CUDA 12.6 wheels only" in device.notes
        assert said == (device.compute_capability < (7, 5)), device.name


def test_a_newer_generation_is_assumed_from_the_last_known_one():
    device = facts_for("NVIDIA Thing", 64 * GIB, (13, 0), None)
    assert device.compute_capability == (13, 0)
    assert device.fp8
    assert not device.shares_ram
    larger = facts_for("NVIDIA Thing", 32 * GIB, (13, 0), 340)
    assert larger.fp8_flops_per_s == pytest.approx(877.9e12 * 340 / 188)
    assert device.supports_bf16
    assert facts_for("GeForce GTX 950", 2 * GIB, (5, 2), 6).bf16_flops_per_s is None


def test_a_device_in_a_profile_of_before_the_fp8_rate_can_still_be_read():
    device = card("RTX 4070")
    old = device.model_dump(mode="json", exclude={"fp8_flops_per_s"}) | {"fp8": True}
    assert Device.model_validate_json(json.dumps(old)) == device.model_copy(update={"fp8_flops_per_s": None})
    with pytest.raises(ValidationError, match="fp8"):
        Device.model_validate(old | {"fp8": "fast"})


def test_importing_it_reads_nothing_and_needs_no_torch():
    code = (
        "import sys; import autotune.probe.catalog as catalog; from autotune.probe import table; "
        "assert table.rows.cache_info().currsize == 0; catalog.card('4090'); "
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
