"""Cards described by hand: what is said holds, the rest is the nearest card's and called assumed; what cannot be is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import AutotuneError, BadSizeError, NoAcceleratorError, UnknownGpuError
from autotune.probe.catalog import assumed_ram_bytes, card, listed, slug
from autotune.records.device import Device
from autotune.units import GB, GIB

ADA = "RTX 4000 Ada"


@pytest.mark.parametrize(
    "written",
    [
        "8.9,16GB,RTX 4000 Ada",
        "16GB, 8.9, RTX 4000 Ada",
        " RTX 4000 Ada ; 16 GB ; cc 8.9 ",
        "sm_89,16GB,RTX 4000 Ada",
        {"compute_capability": "8.9", "memory": "16GB", "name": ADA},
        {"compute_capability": 8.9, "memory": 16 * GB, "name": ADA},
        {"name": ADA, "memory": "16GB", "compute_capability": (8, 9), "sm_count": None},
    ],
)
def test_a_description_in_any_order_and_form(written):
    device = card(written)
    assert (device.name, device.compute_capability, device.total_bytes) == (ADA, (8, 9), 16 * GB)
    assert (device.source, device.free_bytes) == ("assumed", None)
    assert device.notes == ("described by hand; what was not said is taken from NVIDIA RTX 4000 Ada Generation",)
    assert device.fp16_flops_per_s == card(ADA).fp16_flops_per_s
    assert device.bandwidth_bytes_per_s == card(ADA).bandwidth_bytes_per_s


def test_what_is_said_holds_and_rates_go_by_the_sms():
    whole = card("NVIDIA L40S")
    said = {"compute_capability": "8.9", "memory": "44GiB", "sm_count": 71, "bandwidth": 700}
    for written in (said | {"name": "L40S"}, "8.9,44GiB,71 SMs,700 GB/s,L40S"):
        device = card(written)
        assert (device.sm_count, device.bandwidth_bytes_per_s, device.total_bytes) == (71, 700e9, 44 * GIB)
        assert device.fp16_flops_per_s == pytest.approx(whole.fp16_flops_per_s / 2)
        assert device.notes[0].endswith("taken from NVIDIA L40S times 0.50, by SM count")


@pytest.mark.parametrize(
    ("written", "model"),
    [
        ("8.9,16GB", "NVIDIA GeForce RTX 4060 Ti"),  # of the cards with 16 GB, the slowest
        ("8.9,16GB,142 SMs", "NVIDIA L40"),
        ("7.5,4GB,GTX 1650 Ti", "NVIDIA GeForce GTX 1650 Ti"),
        ("12.0,24GB,RTX 5090 Laptop", "NVIDIA GeForce RTX 5090 Laptop GPU"),
        ("7.5,16GB,RTX 5000", "Quadro RTX 5000"),
        ("8.9,30GB,RTX 5000", "NVIDIA RTX 5000 Ada Generation"),
        ("5.0,2GB,GTX 750 Ti", "NVIDIA GeForce GTX 970"),
        ("12.1,128GB", "NVIDIA GB10"),
        ("10.3,270GB", "NVIDIA B300 SXM6 AC"),
    ],
)
def test_the_rest_is_taken_from_the_nearest_card(written, model):
    device = card(written)
    assert f"taken from {model}" in device.notes[0]
    assert device.fp16_fails == ("1650" in written)
    assert device.shares_ram == (model == "NVIDIA GB10")


@pytest.mark.parametrize(
    ("written", "kind", "said"),
    [
        ("8.9", UnknownGpuError, "needs its memory"),
        ("8.9,RTX 4000 Ada", UnknownGpuError, "needs its memory"),
        ({"memory": "16GB"}, UnknownGpuError, "needs its compute capability"),
        ({}, UnknownGpuError, "needs its compute capability and its memory"),
        ("8.9,16GB,24GB", UnknownGpuError, "describes its memory twice"),
        ("8.9,16GB,Mine,Yours", UnknownGpuError, "describes its name twice"),
        ("8.8,16GB", UnknownGpuError, "is not one that torch runs on; there are 5.0, 5.2"),
        ("3.7,24GB,K80", UnknownGpuError, "is not one that torch runs on"),
        ("99.9,24GB", UnknownGpuError, "is not one that torch runs on"),
        ("8.7,16GB", NoAcceleratorError, "Jetson"),
        ("8.9,0GB", BadSizeError, "not a positive"),
        ("8.9,10TB", BadSizeError, "is not the memory of a card"),
        ("8.9,16MB", BadSizeError, "is not the memory of a card"),
        ({"compute_capability": "8.9", "memory": float("nan")}, BadSizeError, "is not a size"),
        ({"compute_capability": "8.9", "memory": -1}, BadSizeError, "not a positive"),
        ({"compute_capability": "8.9", "memory": "16GB", "color": "red"}, UnknownGpuError, "'color'; nearest: "),
        ({"compute_capability": "8.9", "memory": "16GB", "sm": 3}, UnknownGpuError, "nearest: sm_count"),
        ({"compute_capability": "8.9", "memory": "16GB", 7: 3}, UnknownGpuError, "is not described by '7'"),
        *(
            ({"compute_capability": wrong, "memory": "16GB"}, UnknownGpuError, "is not one that torch runs on")
            for wrong in (float("nan"), float("inf"), 8.95, -8.9, True, "eight", "8.9.1", [8], 10**400, "")
        ),
        *(
            ({"compute_capability": "8.9", "memory": "16GB", "sm_count": wrong}, UnknownGpuError, "write a")
            for wrong in (0, -3, 2.5, "many", float("nan"), 10**400, True, [4])
        ),
        *(
            (
                {"compute_capability": "8.9", "memory": "16GB", "bandwidth": wrong},
                UnknownGpuError,
                "write a number from",
            )
            for wrong in (0, -3, 1e9, "fast", float("nan"), float("inf"), True)
        ),
        *(
            ({"compute_capability": "8.9", "memory": "16GB", "name": wrong}, UnknownGpuError, "write a name of at most")
            for wrong in (7, " ", "x" * 101, "a\x1b[31mb", ["a"])
        ),
    ],
)
def test_what_cannot_be_true_is_refused(written, kind, said):
    with pytest.raises(kind) as caught:
        card(written)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


KEYS = st.sampled_from(["compute_capability", "memory", "name", "sm_count", "bandwidth", "other"])
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers(), max_size=2)
)


@given(st.dictionaries(KEYS, VALUES | st.sampled_from(["8.9", "12.0", "16GB", "24GiB"]), max_size=5))
def test_any_description_is_a_card_or_one_sentence(fields):
    try:
        device = card(fields)
    except AutotuneError as error:
        device = error
    assert str(device).isprintable()
    if isinstance(device, Device):
        assert device.fp32_flops_per_s > 0
        assert GB <= device.total_bytes <= 1000 * GB
        assert Device.model_validate(device.model_dump()) == device


def test_a_described_card_finds_no_profile_of_the_card_that_it_is_named_after():
    assert slug(card("8.6,12GB,NVIDIA GeForce RTX 3060")) == "nvidia-geforce-rtx-3060-12gb-assumed-8.6"
    assert slug(card("8.9,16GB")) != slug(card("8.6,16GB"))


def test_a_comma_alone_describes_nothing():
    assert card("RTX 3060, 12GB") == card("RTX 3060 12GB")


def test_the_ram_of_a_machine_that_is_not_here():
    for name in (
        "RTX 4090",
        "GTX 1660",
        "RTX 5090",
        "RTX 4090 Laptop",
        "RTX 5000 Ada Laptop",
        "Quadro RTX 3000",
        "8.9,24GB,RTX 4090",
    ):
        assert card(name).consumer
        assert assumed_ram_bytes(card(name)) == 32 * GB
    for name in (
        "T4",
        "RTX A6000",
        "H200",
        "GH200",
        "TITAN RTX",
        "V100 SXM2 16GB",
        "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
    ):
        device = card(name)
        assert not device.consumer
        assert assumed_ram_bytes(device) == max(32 * GB, 2 * device.total_bytes)
    assert assumed_ram_bytes(card("DGX Spark")) == card("GB10").total_bytes
    assert [device.name for device in listed() if device.shares_ram] == ["NVIDIA GB10"]
