"""The catalogue: every name finds its card, every wrong one is told what there is, real cards find their row."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from autotune.errors import UnknownGpuError
from autotune.probe.catalog import card, facts_for, names, slug
from autotune.records.device import Device
from autotune.units import GIB


def test_every_name_finds_one_card_with_its_own_slug():
    assert len(names()) == 105
    assert len({slug(card(name)) for name in names()}) == 105


def test_every_card_is_plausible():
    for device in map(card, names()):
        assert device.kind == "cuda"
        assert device.source == "catalogue"
        assert device.free_bytes is None
        assert 2e12 < device.fp32_flops_per_s < 2e14, device.name
        assert 1e11 < device.bandwidth_bytes_per_s < 1e13, device.name
        assert device.fp16_flops_per_s >= device.fp32_flops_per_s, device.name
        assert (device.bf16_flops_per_s is not None) == device.supports_bf16, device.name
        assert (device.tf32_flops_per_s is not None) == device.supports_tf32, device.name
        assert device.fp8 == (device.compute_capability >= (8, 9)), device.name
        assert not device.fp8 or device.fp8_flops_per_s == pytest.approx(2 * device.fp16_flops_per_s, rel=0.02)
        assert 35 <= device.power_limit_w <= 1000, device.name
        assert device.pcie_generation in {3, 4, 5}
        assert device.pcie_width in {8, 16}


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


@pytest.mark.parametrize(
    "written",
    [
        "RTX 3060",
        "nvidia geforce rtx 3060",
        "  GeForce  RTX   3060 ",
        "rtx3060",
        "3060",
        "RTX 3060 12 GB",
        "3060 12GiB",
    ],
)
def test_spelling_is_free(written):
    assert card(written).name == "NVIDIA GeForce RTX 3060"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("T4", "Tesla T4"),
        ("RTX 4060 Laptop", "NVIDIA GeForce RTX 4060 Laptop GPU"),
        ("A100 PCIe 80GB", "NVIDIA A100 80GB PCIe"),
        ("a100-pcie-40gb", "NVIDIA A100-PCIE-40GB"),
        ("gtx 1060 3gb", "NVIDIA GeForce GTX 1060 3GB"),
        ("B200 180GB", "NVIDIA B200"),
    ],
)
def test_the_size_may_stand_anywhere(written, name):
    assert card(written).name == name


def test_sizes_of_one_name_are_different_cards():
    smaller, larger = card("RTX 3080 10GB"), card("RTX 3080 12GB")
    assert smaller.name == larger.name
    assert (smaller.sm_count, larger.sm_count) == (68, 70)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "NVIDIA GeForce RTX 3080",
            (
                "gpu='NVIDIA GeForce RTX 3080' comes in several sizes; "
                "write 'NVIDIA GeForce RTX 3080 10GB' or 'NVIDIA GeForce RTX 3080 12GB'"
            ),
        ),
        (
            "RTX 2060",
            (
                "gpu='RTX 2060' comes in several sizes; "
                "write 'NVIDIA GeForce RTX 2060 6GB' or 'NVIDIA GeForce RTX 2060 12GB'"
            ),
        ),
        (
            "5060 Ti",
            (
                "gpu='5060 Ti' comes in several sizes; "
                "write 'NVIDIA GeForce RTX 5060 Ti 8GB' or 'NVIDIA GeForce RTX 5060 Ti 16GB'"
            ),
        ),
        ("RTX 3060 8GB", "gpu='RTX 3060 8GB' does not come with 8 GB; there is 'NVIDIA GeForce RTX 3060 12GB'"),
        (
            "H100",
            (
                "gpu='H100' is not among the 105 known cards; "
                "nearest: NVIDIA H100 80GB HBM3, NVIDIA H100 PCIe, NVIDIA H100 NVL"
            ),
        ),
    ],
)
def test_what_a_wrong_name_is_told(name, message):
    with pytest.raises(UnknownGpuError) as caught:
        card(name)
    assert str(caught.value) == message


def test_a_misspelt_name_is_told_the_nearest():
    with pytest.raises(UnknownGpuError, match=r"gpu='RTX 4091' is not among the 105 known cards; nearest: .*RTX 4090"):
        card("RTX 4091")


@pytest.mark.parametrize("name", ["RTX 3060 " + "9" * 5000 + "GB", "\0", "MIG", "3060\n" * 99])
def test_a_name_that_nobody_would_write_is_refused_like_any_other(name):
    with pytest.raises(UnknownGpuError, match="is not among the 105 known cards"):
        card(name)


@pytest.mark.parametrize("name", ["", "Radeon RX 7900"])
def test_every_suggestion_is_itself_a_name(name):
    with pytest.raises(UnknownGpuError) as caught:
        card(name)
    assert set(str(caught.value).partition("nearest: ")[2].split(", ")) <= set(names())


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
    assert slug(card("RTX 3060")) == slug(card("RTX 3060 12GB")) == "nvidia-geforce-rtx-3060-12gb"
    assert slug(card("NVIDIA A100-SXM4-80GB")) == "nvidia-a100-sxm4-80gb"
    assert slug(card("NVIDIA A100 80GB PCIe")) == "nvidia-a100-pcie-80gb"
    assert slug(card("Tesla T4")) == "tesla-t4-16gb"
    linux = facts_for("NVIDIA GeForce RTX 3060", 12_622_168_064, (8, 6), 28)
    assert slug(linux) == "nvidia-geforce-rtx-3060-12gb"
    assert slug(facts_for("NVIDIA GeForce RTX 9990", int(19.6 * GIB), (12, 0), 90)) == "nvidia-geforce-rtx-9990-20gb"


def test_a_real_card_takes_rates_from_its_row_and_the_rest_from_the_driver():
    total_bytes = int(11.7 * GIB)
    device = facts_for("NVIDIA GeForce RTX 3080", total_bytes, (8, 6), 70)
    assert device.bandwidth_bytes_per_s == card("RTX 3080 12GB").bandwidth_bytes_per_s
    assert device.total_bytes == total_bytes
    assert device.source == "catalogue"


def test_older_drivers_name_cards_without_the_maker():
    assert facts_for("GeForce RTX 3090", 24 * GIB, (8, 6), 82).fp32_flops_per_s == 35.58e12


def test_a_known_name_with_another_memory_is_assumed():
    device = facts_for("NVIDIA GeForce RTX 3060", 8 * GIB, (8, 6), 14)
    assert device.source == "assumed"
    (note,) = device.notes
    assert note == (
        "NVIDIA GeForce RTX 3060 with 8.59 GB is not in the catalogue; "
        "rates assumed from NVIDIA GeForce RTX 3050 Laptop GPU times 0.88, by SM count"
    )
    assert device.fp32_flops_per_s == pytest.approx(5.5e12 * 14 / 16)
    assert device.power_limit_w == pytest.approx(80 * 14 / 16)
    assert (device.sm_count, device.total_bytes) == (14, 8 * GIB)


def test_a_newer_generation_is_assumed_from_the_last_known_one():
    device = facts_for("NVIDIA Thing", 64 * GIB, (13, 0), None)
    assert device.compute_capability == (13, 0)
    assert device.fp8
    larger = facts_for("NVIDIA Thing", 32 * GIB, (13, 0), 340)
    assert larger.fp8_flops_per_s == pytest.approx(1007.6e12 * 340 / 188)
    assert device.supports_bf16
    assert facts_for("GeForce GTX 980", 4 * GIB, (5, 2), 16).bf16_flops_per_s is None


def test_a_device_in_a_profile_of_before_the_fp8_rate_can_still_be_read():
    device = card("RTX 4070")
    old = device.model_dump(mode="json", exclude={"fp8_flops_per_s"}) | {"fp8": True}
    assert Device.model_validate_json(json.dumps(old)) == device.model_copy(update={"fp8_flops_per_s": None})
    with pytest.raises(ValidationError, match="fp8"):
        Device.model_validate(old | {"fp8": "fast"})


def test_importing_it_reads_nothing_and_needs_no_torch():
    code = (
        "import sys; import autotune.probe.catalog as catalog; "
        "assert 'torch' not in sys.modules; assert catalog._rows.cache_info().currsize == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
