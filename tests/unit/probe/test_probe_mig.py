"""MIG instances: each profile's share of its card, and what a card without it says."""

import pytest

from autotune.errors import UnknownGpuError
from autotune.probe import mig
from autotune.probe.catalog import card, facts_for, instance, names, slug
from autotune.units import GIB

A100 = "NVIDIA A100-SXM4-80GB"


@pytest.mark.parametrize(
    ("name", "compute_share", "memory_share", "gib"),
    [
        (f"{A100} MIG 1g.10gb", 14 / 108, 1 / 8, 10),
        (f"{A100} MIG 1g.20gb", 14 / 108, 2 / 8, 20),
        (f"{A100} MIG 3g.40gb", 42 / 108, 4 / 8, 40),
        (f"{A100} MIG 4g.40gb", 56 / 108, 4 / 8, 40),
        (f"{A100} MIG 7g.80gb", 98 / 108, 1, 80),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 14 / 108, 1 / 8, 5),
        ("NVIDIA A30 MIG 1g.6gb", 1 / 4, 1 / 4, 6),
        ("NVIDIA A30 MIG 2g.12gb", 2 / 4, 2 / 4, 12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 16 / 132, 1 / 8, 10),
        ("NVIDIA H100 80GB HBM3 MIG 2g.20gb", 32 / 132, 2 / 8, 20),
        ("NVIDIA H100 80GB HBM3 MIG 7g.80gb", 1, 1, 80),
        ("NVIDIA H100 PCIe MIG 2g.20gb", 2 / 7, 2 / 8, 20),
        ("NVIDIA H100 NVL MIG 1g.12gb", 16 / 132, 1 / 8, 12),
        ("NVIDIA H200 MIG 3g.71gb", 60 / 132, 4 / 8, 71),
        ("NVIDIA B200 MIG 1g.23gb", 1 / 7, 1 / 8, 23),
        ("NVIDIA GH200 480GB MIG 1g.12gb", 16 / 132, 1 / 8, 12),
        ("NVIDIA H20 MIG 3g.48gb", 3 / 7, 4 / 8, 48),
        ("NVIDIA GB200 MIG 1g.47gb", 1 / 7, 2 / 8, 47),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb", 1 / 4, 1 / 4, 24),
    ],
)
def test_an_instance_has_its_share_of_the_card(name, compute_share, memory_share, gib):
    part, whole = card(name), card(name.partition(" MIG ")[0])
    assert (part.name, part.source, part.compute_capability) == (name, "catalogue", whole.compute_capability)
    for rate in ("fp32", "tf32", "fp16", "bf16", "fp8"):
        of_whole, of_part = (getattr(device, f"{rate}_flops_per_s") for device in (whole, part))
        assert of_part == (None if of_whole is None else pytest.approx(of_whole * compute_share)), rate
    assert part.power_limit_w == pytest.approx(whole.power_limit_w * compute_share)
    assert part.bandwidth_bytes_per_s == pytest.approx(whole.bandwidth_bytes_per_s * memory_share)
    assert (part.pcie_generation, part.pcie_width) == (whole.pcie_generation, whole.pcie_width)
    assert part.total_bytes == int(gib * GIB - max(GIB / 2, gib * GIB * 0.02))


def test_the_parts_of_a_card_are_never_more_than_the_card():
    cut = {name: mig.profiles(card(name), _gib(name)) for name in names()}
    assert {name for name, found in cut.items() if found} == {
        name
        for name in names()
        if (card(name).compute_capability in {(8, 0), (9, 0), (10, 0)} and "B100" not in name) or "RTX PRO 6000" in name
    }
    for name, found in cut.items():
        assert len({profile.name for profile in found.values()}) == len(found)
        for profile in found.values():
            part, whole = card(f"{name} MIG {profile.name}"), card(name)
            assert 0 < profile.compute_share <= 1, part.name
            assert 0 < profile.memory_share <= 1, part.name
            assert part.total_bytes <= whole.total_bytes, part.name


def test_an_instance_says_what_its_rates_are():
    assert card(f"{A100} MIG 3g.40gb").notes == (
        "a MIG instance: the compute rates and power are the whole card's times 0.39, the bandwidth times 0.50",
    )
    assert card("NVIDIA H100 NVL MIG 7g.94gb").notes[0] == card("NVIDIA H100 NVL").notes[0]


def test_spelling_is_as_free_as_for_cards():
    for written in ("a100-sxm4-80gb mig 3g.40gb", "A100 SXM4 80GB  MIG  3G.40GB", "nvidia-a100-sxm4-80gb-mig-3g.40gb"):
        assert card(written) == card(f"{A100} MIG 3g.40gb")


def test_engines_for_media_and_graphics_change_no_rate():
    plain, with_media = card(f"{A100} MIG 1g.10gb"), card(f"{A100} MIG 1g.10gb+me")
    assert with_media == plain.model_copy(update={"name": f"{A100} MIG 1g.10gb+me"})


def test_a_compute_instance_has_all_of_the_memory_and_some_of_the_slices():
    part, around = card(f"{A100} MIG 1c.3g.40gb"), card(f"{A100} MIG 3g.40gb")
    assert part.fp16_flops_per_s == pytest.approx(around.fp16_flops_per_s / 3)
    assert part.bandwidth_bytes_per_s == around.bandwidth_bytes_per_s
    assert (part.total_bytes, part.sm_count) == (around.total_bytes, None)


def test_a_card_has_a_slug_for_each_way_to_cut_it():
    assert slug(card(f"{A100} MIG 3g.40gb")) == "nvidia-a100-sxm4-80gb-mig-3g.40gb"
    assert slug(card("NVIDIA A100 80GB PCIe MIG 1g.10gb+me")) == "nvidia-a100-pcie-80gb-mig-1g.10gb-me"
    real = facts_for(f"{A100} MIG 3g.40gb", int(39.25 * GIB), (8, 0), 42)
    assert slug(real) == "nvidia-a100-sxm4-80gb-mig-3g.40gb"


def test_a_real_instance_takes_its_rates_from_the_profile_and_its_memory_from_the_driver():
    real = facts_for(f"{A100} MIG 1g.10gb", int(9.5 * GIB), (8, 0), 14)
    assert (real.source, real.total_bytes) == ("catalogue", int(9.5 * GIB))
    assert real.fp16_flops_per_s == pytest.approx(312e12 * 14 / 108)
    assert facts_for("NVIDIA A900 MIG 1g.10gb", int(9.5 * GIB), (8, 0), 14).source == "assumed"


def test_a_name_without_a_known_profile_tells_no_instance():
    assert instance(card(A100), f"{A100} MIG 9g.90gb") is None
    assert instance(card(A100), A100) is None
    assert instance(card("RTX 3060 12GB"), "NVIDIA GeForce RTX 3060 MIG 1g.6gb") is None


@pytest.mark.parametrize("profile", ["5g.50gb", "1g.5gb", "0g.0gb", "3c.2g.20gb", "1g.10gb; rm", "", "1" * 99])
def test_a_profile_that_the_card_lacks_is_told_which_it_has(profile):
    with pytest.raises(UnknownGpuError) as caught:
        card(f"{A100} MIG {profile}")
    asked = f"{A100} MIG {profile}"
    asked = asked if len(asked) <= 60 else f"{asked[:60]}..."
    assert str(caught.value) == (
        f"gpu='{asked}' is not a MIG instance of {A100}, which has "
        "MIG 1g.10gb, MIG 1g.20gb, MIG 2g.20gb, MIG 3g.40gb, MIG 4g.40gb, MIG 7g.80gb"
    )


@pytest.mark.parametrize(
    "name", ["NVIDIA GeForce RTX 3070", "NVIDIA A40", "NVIDIA RTX A4500", "Tesla T4", "NVIDIA GB300"]
)
def test_a_card_without_mig_says_so(name):
    with pytest.raises(UnknownGpuError) as caught:
        card(f"{name} MIG 1g.6gb")
    assert str(caught.value) == (
        f"gpu='{name} MIG 1g.6gb' asks for MIG, and no MIG profile of {name} is known; there is '{name}'"
    )


def test_an_instance_of_one_of_several_cards_is_told_which_there_are():
    with pytest.raises(UnknownGpuError) as caught:
        card("H100 MIG 1g.10gb")
    assert str(caught.value) == (
        "gpu='H100 MIG 1g.10gb' names several cards; write 'NVIDIA H100 SXM5', 'NVIDIA H100 PCIe' or 'NVIDIA H100 NVL'"
    )
    assert card("H100 SXM5 MIG 1g.10gb").name == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"


def _gib(name):
    return int(slug(card(name)).rpartition("-")[2].removesuffix("gb"))
