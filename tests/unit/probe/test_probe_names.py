"""Names as people write them: each is its card, a choice of several, or one sentence; never another card."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autotune.errors import AutotuneError, NoAcceleratorError, UnknownGpuError
from autotune.probe.catalog import card, names
from autotune.probe.names import read
from autotune.probe.table import rows, vocabulary
from autotune.records.device import Device
from autotune.units import GIB

# A name and the card that it means, by NVML's name and the nominal GiB.
CARDS = [
    ("4060", "NVIDIA GeForce RTX 4060", 8),
    ("RTX-4090", "NVIDIA GeForce RTX 4090", 24),
    ("rtx4090", "NVIDIA GeForce RTX 4090", 24),
    ("GeForce RTX™ 4090 (24GB)", "NVIDIA GeForce RTX 4090", 24),
    ("NVIDIA(R) GeForce(R) RTX 4090", "NVIDIA GeForce RTX 4090", 24),
    ("ASUS GeForce RTX 4090 OC", "NVIDIA GeForce RTX 4090", 24),
    ("desktop 4090", "NVIDIA GeForce RTX 4090", 24),
    ("nvidia geforce rtx 3070 ti", "NVIDIA GeForce RTX 3070 Ti", 8),
    ("3060ti", "NVIDIA GeForce RTX 3060 Ti", 8),
    ("1080ti", "NVIDIA GeForce GTX 1080 Ti", 11),
    ("4070 ti super", "NVIDIA GeForce RTX 4070 Ti SUPER", 16),
    ("4070TiSuper", "NVIDIA GeForce RTX 4070 Ti SUPER", 16),
    ("2070s", "NVIDIA GeForce RTX 2070 SUPER", 8),
    ("RTX 3060 12GB", "NVIDIA GeForce RTX 3060", 12),
    ("3060 12GiB", "NVIDIA GeForce RTX 3060", 12),
    ("rtx 3060, 12 GB VRAM", "NVIDIA GeForce RTX 3060", 12),
    ("RTX 3060 12288MiB", "NVIDIA GeForce RTX 3060", 12),
    ("RTX 3060 8GB", "NVIDIA GeForce RTX 3060", 8),
    ("3060 12", "NVIDIA GeForce RTX 3060", 12),
    ("'RTX 3060 12GB'", "NVIDIA GeForce RTX 3060", 12),
    ("rtx306012gb", "NVIDIA GeForce RTX 3060", 12),
    ("RTX 3080 10GB", "NVIDIA GeForce RTX 3080", 10),
    ("RTX 3090", "NVIDIA GeForce RTX 3090", 24),
    ("RTX 3090 Ti", "NVIDIA GeForce RTX 3090 Ti", 24),
    ("RTX 4060 Ti 16GB", "NVIDIA GeForce RTX 4060 Ti", 16),
    ("4060ti 16g", "NVIDIA GeForce RTX 4060 Ti", 16),
    ("4060 ti 16", "NVIDIA GeForce RTX 4060 Ti", 16),
    ("4090 48GB", "NVIDIA GeForce RTX 4090", 48),
    ("4060 Ti (16 GiB)", "NVIDIA GeForce RTX 4060 Ti", 16),
    ("RTX 5060 Ti 8GB", "NVIDIA GeForce RTX 5060 Ti", 8),
    ("RTX 5050", "NVIDIA GeForce RTX 5050", 8),
    ("RTX 5060", "NVIDIA GeForce RTX 5060", 8),
    ("5090 d", "NVIDIA GeForce RTX 5090 D", 32),
    ("5090D v2", "NVIDIA GeForce RTX 5090 D v2", 24),
    ("4060 laptop", "NVIDIA GeForce RTX 4060 Laptop GPU", 8),
    ("RTX 4090 Laptop", "NVIDIA GeForce RTX 4090 Laptop GPU", 16),
    ("4090m", "NVIDIA GeForce RTX 4090 Laptop GPU", 16),
    ("4090 mobile", "NVIDIA GeForce RTX 4090 Laptop GPU", 16),
    ("RTX 4050", "NVIDIA GeForce RTX 4050 Laptop GPU", 6),
    ("RTX 2050", "NVIDIA GeForce RTX 2050", 4),
    ("RTX 2050 Laptop GPU", "NVIDIA GeForce RTX 2050", 4),
    ("RTX 3050", "NVIDIA GeForce RTX 3050", 8),
    ("RTX 3050 6GB", "NVIDIA GeForce RTX 3050", 6),
    ("3050 laptop", "NVIDIA GeForce RTX 3050 Laptop GPU", 4),
    ("3050 6GB laptop", "NVIDIA GeForce RTX 3050 6GB Laptop GPU", 6),
    ("3080 mobile 16GB", "NVIDIA GeForce RTX 3080 Laptop GPU", 16),
    ("RTX A5000 laptop", "NVIDIA RTX A5000 Laptop GPU", 16),
    ("RTX A5000", "NVIDIA RTX A5000", 24),
    ("RTX 2080 Ti", "NVIDIA GeForce RTX 2080 Ti", 11),
    ("RTX 2080 Ti 22GB", "NVIDIA GeForce RTX 2080 Ti", 22),
    ("GTX 1650", "NVIDIA GeForce GTX 1650", 4),
    ("1650 super", "NVIDIA GeForce GTX 1650 SUPER", 4),
    ("GTX 1660", "NVIDIA GeForce GTX 1660", 6),
    ("GTX 1660 Ti", "NVIDIA GeForce GTX 1660 Ti", 6),
    ("MX450", "NVIDIA GeForce MX450", 2),
    ("GTX 1080", "NVIDIA GeForce GTX 1080", 8),
    ("gtx 1060 3gb", "NVIDIA GeForce GTX 1060 3GB", 3),
    ("GTX 1050 Ti", "NVIDIA GeForce GTX 1050 Ti", 4),
    ("GTX 980 Ti", "NVIDIA GeForce GTX 980 Ti", 6),
    ("TITAN RTX", "NVIDIA TITAN RTX", 24),
    ("titanv", "NVIDIA TITAN V", 12),
    ("TITAN Xp", "NVIDIA TITAN Xp", 12),
    ("Titan X Pascal", "NVIDIA TITAN X (Pascal)", 12),
    ("Titan X Maxwell", "NVIDIA GeForce GTX TITAN X", 12),
    ("GTX Titan X", "NVIDIA GeForce GTX TITAN X", 12),
    ("RTX A1000", "NVIDIA RTX A1000", 8),
    ("RTX A1000 Laptop GPU", "NVIDIA RTX A1000 Laptop GPU", 4),
    ("A1000 laptop 6GB", "NVIDIA RTX A1000 6GB Laptop GPU", 6),
    ("RTX A2000 12GB", "NVIDIA RTX A2000 12GB", 12),
    ("RTX A6000", "NVIDIA RTX A6000", 48),
    ("quadro rtx a6000", "NVIDIA RTX A6000", 48),
    ("RTX A 6000", "NVIDIA RTX A6000", 48),
    ("RTX 2000 Ada", "NVIDIA RTX 2000 Ada Generation", 16),
    ("RTX 4000 Ada", "NVIDIA RTX 4000 Ada Generation", 20),
    ("RTX 4000 SFF Ada", "NVIDIA RTX 4000 SFF Ada Generation", 20),
    ("RTX 4500 Ada", "NVIDIA RTX 4500 Ada Generation", 24),
    ("RTX 5000 Ada", "NVIDIA RTX 5000 Ada Generation", 32),
    ("RTX 5000 Ada laptop", "NVIDIA RTX 5000 Ada Generation Laptop GPU", 16),
    ("RTX 5880 Ada", "NVIDIA RTX 5880 Ada Generation", 48),
    ("rtx6000ada", "NVIDIA RTX 6000 Ada Generation", 48),
    ("Quadro RTX 6000", "Quadro RTX 6000", 24),
    ("RTX PRO 4000 Blackwell", "NVIDIA RTX PRO 4000 Blackwell", 24),
    ("rtx pro 6000 max-q", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96),
    ("RTX PRO 6000 Workstation", "NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96),
    ("rtx 6000 blackwell server", "NVIDIA RTX PRO 6000 Blackwell Server Edition", 96),
    ("Quadro P4000", "Quadro P4000", 8),
    ("p5000", "Quadro P5000", 16),
    ("T4", "Tesla T4", 16),
    ("colab T4", "Tesla T4", 16),
    ("kaggle P100", "Tesla P100-PCIE-16GB", 16),
    ("P40", "Tesla P40", 24),
    ("V100 PCIe 32GB", "Tesla V100-PCIE-32GB", 32),
    ("A2", "NVIDIA A2", 16),
    ("A16", "NVIDIA A16", 16),
    ("L4", "NVIDIA L4", 24),
    ("l40", "NVIDIA L40", 48),
    ("L40S PCIe", "NVIDIA L40S", 48),
    ("A100 40GB PCIe", "NVIDIA A100-PCIE-40GB", 40),
    ("A100 PCIe 80GB", "NVIDIA A100 80GB PCIe", 80),
    ("A100 SXM 80GB", "NVIDIA A100-SXM4-80GB", 80),
    ("A100-80GB-SXM4", "NVIDIA A100-SXM4-80GB", 80),
    ("h100 pcie", "NVIDIA H100 PCIe", 80),
    ("H100 SXM", "NVIDIA H100 80GB HBM3", 80),
    ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", 80),
    ("H100 94GB", "NVIDIA H100 NVL", 94),
    ("H800 SXM", "NVIDIA H800", 80),
    ("H20", "NVIDIA H20", 96),
    ("H200", "NVIDIA H200", 141),
    ("H200 NVL", "NVIDIA H200 NVL", 141),
    ("GH200", "NVIDIA GH200 480GB", 96),
    ("GH200 96GB", "NVIDIA GH200 480GB", 96),
    ("B200 192GB", "NVIDIA B200", 180),
    ("GB200", "NVIDIA GB200", 186),
    ("B300", "NVIDIA B300 SXM6 AC", 288),
    ("GB10", "NVIDIA GB10", 128),
    ("DGX Spark", "NVIDIA GB10", 128),
]
# A name that several cards have, and what has to be written instead.
CHOICES = [
    ("RTX 3060", ["NVIDIA GeForce RTX 3060 8GB", "NVIDIA GeForce RTX 3060 12GB"]),
    ("RTX 3080", ["NVIDIA GeForce RTX 3080 10GB", "NVIDIA GeForce RTX 3080 12GB"]),
    ("RTX 2060", ["NVIDIA GeForce RTX 2060 6GB", "NVIDIA GeForce RTX 2060 12GB"]),
    ("4060 Ti", ["NVIDIA GeForce RTX 4060 Ti 8GB", "NVIDIA GeForce RTX 4060 Ti 16GB"]),
    ("RTX A2000", ["NVIDIA RTX A2000 6GB", "NVIDIA RTX A2000 12GB"]),
    ("T1000", ["NVIDIA T1000 4GB", "NVIDIA T1000 8GB"]),
    ("Tesla M40", ["Tesla M40 12GB", "Tesla M40 24GB"]),
    ("RTX PRO 5000", ["NVIDIA RTX PRO 5000 Blackwell 48GB", "NVIDIA RTX PRO 5000 72GB Blackwell"]),
    ("A100 80GB", ["NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"]),
    ("a100 pcie", ["NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"]),
    (
        "A100",
        ["NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"],
    ),
    ("A800", ["NVIDIA A800-SXM4-80GB", "NVIDIA A800 80GB PCIe"]),
    ("H100", ["NVIDIA H100 SXM5", "NVIDIA H100 PCIe", "NVIDIA H100 NVL"]),
    ("8x H100", ["NVIDIA H100 SXM5", "NVIDIA H100 PCIe", "NVIDIA H100 NVL"]),
    ("H800", ["NVIDIA H800 SXM5", "NVIDIA H800 PCIe"]),
    ("P100", ["Tesla P100-PCIE-16GB", "Tesla P100-SXM2-16GB"]),
    ("V100 32GB", ["Tesla V100-PCIE-32GB", "Tesla V100-SXM2-32GB"]),
    ("V100", [f"Tesla V100-{form}-{size}GB" for form in ("PCIE", "SXM2") for size in (16, 32)]),
    ("RTX 4000", ["Quadro RTX 4000", "NVIDIA RTX 4000 Ada Generation"]),
    ("RTX 5000", ["Quadro RTX 5000", "NVIDIA RTX 5000 Ada Generation"]),
    ("6000", ["Quadro RTX 6000", "NVIDIA RTX 6000 Ada Generation"]),
    (
        "RTX PRO 6000",
        [f"NVIDIA RTX PRO 6000 Blackwell {form} Edition" for form in ("Workstation", "Max-Q Workstation", "Server")],
    ),
    (
        "titan",
        [
            "NVIDIA GeForce GTX TITAN X",
            "NVIDIA TITAN Xp",
            "NVIDIA TITAN X (Pascal)",
            "NVIDIA TITAN V",
            "NVIDIA TITAN RTX",
        ],
    ),
    ("Titan X", ["NVIDIA GeForce GTX TITAN X", "NVIDIA TITAN X (Pascal)"]),
    ("RTX 2060 mobile", ["NVIDIA GeForce RTX 2060 6GB", "NVIDIA GeForce RTX 2060 12GB"]),
    ("RTX 2070 Max-Q", ["NVIDIA GeForce RTX 2070"]),
    ("NVIDIA GeForce RTX 2070 with Max-Q Design", ["NVIDIA GeForce RTX 2070"]),
    ("GTX 1660 Ti laptop", ["NVIDIA GeForce GTX 1660 Ti"]),
    ("RTX 3080 Max-Q", ["NVIDIA GeForce RTX 3080 Laptop GPU"]),
]
ELSEWHERE = {
    "an AMD GPU": (
        "7900XTX|7900 xtx|RX 6800|RX 7900 XTX|rx580|radeon|Radeon 780M|Radeon RX 9070|9070 XT|7900 GRE|instinct|MI250|MI300X"
        "|mi 300x|AMD W7900|Vega 64|Strix Halo|gfx1100|AMD A100"
    ),
    "an Intel GPU": (
        "Arc A770|Arc B580|a770|b580|arc|iris|Iris Xe|XPU|xe|Intel UHD 630|Gaudi 2|Data Center GPU Max 1550|Intel A2"
    ),
    "an Apple GPU": "M2 Ultra|M3 Max|M4 Pro|m1|M1|m2ultra|M4 24GB|Apple M4|mps|Mac Studio|MacBook Pro",
    "an NVIDIA Jetson or DRIVE board": "Jetson Orin|Jetson|Orin|Orin Nano|AGX Xavier|Nano|Jetson TX2|Thor|NVIDIA Thor",
    "another maker's accelerator": "TPU|TPU v4|tpu-v5e|v5e|Trainium|Ascend 910B|Moore Threads S80|NPU",
}
TOO_OLD = [
    *("K80", "Tesla K80", "K40", "Tesla K40m", "K20X", "Quadro K4000", "Tesla M2090"),
    *("GTX 780 Ti", "GTX 680", "GTX 580", "GT 710", "TITAN Black"),
]
NAMES = names()


def answer(name):
    """The card, or the error."""
    try:
        return card(name)
    except AutotuneError as error:
        return error


def refusal(name):
    error = answer(name)
    assert isinstance(error, AutotuneError), error
    assert len(str(error)) < 420
    assert str(error).isprintable()
    return error


@pytest.mark.parametrize(("written", "name", "gib"), CARDS)
def test_a_name_means_its_card(written, name, gib):
    found = card(written)
    assert found.name == name
    assert 0.9 <= found.total_bytes / (gib * GIB) <= 1.001


@pytest.mark.parametrize(("written", "choices"), CHOICES)
def test_a_name_of_several_cards_is_a_choice(written, choices):
    error = refusal(written)
    assert isinstance(error, UnknownGpuError)
    assert list(error.choices) == choices
    assert set(choices) <= set(NAMES)
    assert all(repr(choice) in str(error) for choice in choices)


def test_sizes_forms_and_less_power_are_told_apart():
    assert str(refusal("RTX 3060")) == (
        "gpu='RTX 3060' comes in several sizes; write 'NVIDIA GeForce RTX 3060 8GB' or 'NVIDIA GeForce RTX 3060 12GB'"
    )
    assert str(refusal("P100")) == (
        "gpu='P100' names several cards; write 'Tesla P100-PCIE-16GB' or 'Tesla P100-SXM2-16GB'"
    )
    assert "the Max-Q part is an NVIDIA GeForce RTX 2070 with less power" in str(refusal("RTX 2070 Max-Q"))
    assert str(refusal("RTX 3070 16")).startswith(
        "gpu='RTX 3070 16' does not come with 16 GB; there is 'NVIDIA GeForce RTX 3070 8GB'"
    )


def test_other_makers_are_not_supported_yet_and_nothing_is_near_them():
    for what, written in ELSEWHERE.items():
        for name in written.split("|"):
            error = refusal(name)
            assert isinstance(error, NoAcceleratorError), name
            assert f"is {what}, which is not supported yet" in str(error), name
            assert not any(word in str(error) for word in ("nearest", "RTX", "GTX")), name


def test_cards_that_torch_no_longer_runs():
    for name in TOO_OLD:
        error = refusal(name)
        assert isinstance(error, UnknownGpuError)
        assert "older than compute capability 5.0" in str(error), name
        assert "nearest" not in str(error)


@pytest.mark.parametrize(
    ("written", "close"),
    [
        ("RTX 9090", "NVIDIA GeForce RTX 5090"),
        ("RTX 6090", "NVIDIA GeForce RTX 5090"),
        ("RTX 4091", "NVIDIA GeForce RTX 4090"),
        ("GTX 4090", "NVIDIA GeForce RTX 4090"),
        ("RTX 5070 Super", "NVIDIA GeForce RTX 5070"),
        ("GTX 960", "NVIDIA GeForce GTX 970"),
        ("A7000", "NVIDIA RTX A6000"),
        ("L60", "NVIDIA L40"),
        ("H300", "NVIDIA H200"),
        ("T1200", "NVIDIA T1000 4GB"),
        ("V100 SXM3", "Tesla V100-PCIE-16GB"),
        ("Tessla T4", "Tesla T4"),
    ],
)
def test_a_card_that_there_is_not_is_told_the_nearest_by_generation(written, close):
    message = str(refusal(written))
    assert "is not among the 192 known cards" in message
    near = message.partition("nearest: ")[2].split(", ")
    assert near[0] == close
    assert set(near) <= set(NAMES)


@pytest.mark.parametrize(
    "name", ["", " ", "rtx", "laptop", "nvidia gpu", "8GB", "asdf", "\0\x1b[m", "GeForce RTX Ti", "🚀", "0", "CMP 40HX"]
)
def test_a_name_that_tells_no_model_gets_an_example(name):
    message = str(refusal(name))
    assert "write a name such as 'NVIDIA GeForce RTX 4060'" in message
    assert card("NVIDIA GeForce RTX 4060")


@pytest.mark.parametrize("name", ["cpu", "cuda", "CUDA:0"])
def test_a_device_of_this_machine_is_not_a_cards_name(name):
    assert f"write device='{name.lower()}'" in str(refusal(name))


@pytest.mark.parametrize("name", [3060, None, 8.9, ["RTX 3060"], b"T4"])
def test_what_is_no_text_is_no_name(name):
    assert isinstance(refusal(name), UnknownGpuError)


def test_of_several_cards_one_is_planned_for_and_that_is_said():
    for written in ("kaggle T4 x2", "T4x2", "2x T4", "2 x T4", "dual T4"):
        assert card(written).name == "Tesla T4"
        assert card(written).notes[-1] == "2 cards were named; the plan is for one of them"
    assert card("T4").notes == card("T4 ").notes


def means(found, row, name):
    """Whether an answer is the card of that row, or a choice that offers it."""
    return found == row.facts or name in getattr(found, "choices", ())


def test_every_name_that_a_driver_reports_means_its_card_or_a_choice_with_it():
    for row, name in zip(rows(), NAMES, strict=True):
        assert means(answer(row.facts.name), row, name) or row.rare, row.facts.name


@st.composite
def spellings(draw):
    """A name of the catalogue as somebody might write it."""
    index = draw(st.integers(0, len(NAMES) - 1))
    words = NAMES[index].replace("-", " ").replace("Max Q", "Max-Q").split()
    optional = {"NVIDIA", "GeForce", "Tesla", "Generation", "GPU", "Edition"}
    words = [word for word in words if word not in optional or draw(st.booleans())]
    words = [draw(st.sampled_from([word, word.upper(), word.lower(), word.swapcase()])) for word in words]
    joints = st.sampled_from([" ", "  ", "-", "_", ""])
    text = words[0] + "".join(draw(joints) + word for word in words[1:])
    around = draw(st.sampled_from(["{}", " {} ", "nvidia {}", "{} GPU", "({})"]))
    return index, around.format(text)


@given(spellings())
def test_every_card_is_found_in_any_spelling(spelling):
    index, written = spelling
    assert means(answer(written), rows()[index], NAMES[index]), written


@given(st.text(max_size=300))
@example("9" * 5000)
@example("3060\n" * 99)
@example("x" * 10**6)
@example("rtx" * 60)
@example("RTX 3060 " + "9" * 50 + "GB")
@example("1" * 40 + ".1,16GB")
def test_any_text_is_a_card_or_one_short_sentence(text):
    found = answer(text)
    assert isinstance(found, Device) or refusal(text)


def test_glued_words_are_taken_apart_only_where_nothing_is_left():
    assert read("rtx4070tisuper16gb", vocabulary()).words == {"rtx", "4070", "ti", "super"}
    assert read("rtx4070tisuper16gb", vocabulary()).sizes == {16}
    assert read("RTX 40 70 Ti", vocabulary()).words == {"rtx", "4070", "ti"}
    assert read("rtx40900", vocabulary()).unknown == ("rtx40900",)
    assert read("MX550", vocabulary()).words == frozenset()
