"""Who is on the device in each segment, for sequences made up by hand."""

from __future__ import annotations

import pytest

from autotune.records.placement import placed
from autotune.records.plan import Plan
from autotune.simulate.residency import Move, residency
from tests.unit.handmade import model

CALLS = ["", "text_encoder", "", "unet", "unet", "vae", ""]
ORDER = ("text_encoder", "image_encoder", "unet", "vae")


def under(offload, facts, callers):
    """Stays under that offload."""
    return residency(placed(facts, Plan(offload=offload)), callers)


def present(stays):
    return ["+".join(sorted(stay.components)) for stay in stays]


def test_resident_keeps_everything_and_moves_nothing():
    stays = residency(placed(model("text_encoder", "unet", "vae"), Plan()), CALLS)
    assert present(stays) == ["text_encoder+unet+vae"] * 7
    assert not any(stay.moves for stay in stays)


def test_model_offload_swaps_along_the_order():
    stays = under("model", model("text_encoder", "unet", "vae", sequence=ORDER), CALLS)
    assert present(stays) == ["", "text_encoder", "text_encoder", "unet", "unet", "vae", "vae"]
    assert [stay.moves for stay in stays] == [
        (),
        (Move("in", "text_encoder"),),
        (),
        (Move("out", "text_encoder"), Move("in", "unet")),
        (),
        (Move("out", "unet"), Move("in", "vae")),
        (),
    ]


def test_a_component_called_out_of_order_meets_those_that_came_later():
    stays = residency(
        placed(model("text_encoder", "unet", "vae", sequence=ORDER), Plan(offload="model")),
        ["vae", "text_encoder", "unet", "vae"],
    )
    assert present(stays) == ["vae", "text_encoder+vae", "unet+vae", "vae"]


def test_one_outside_the_order_stays_to_the_end():
    stays = residency(
        placed(model("text_encoder", "controlnet", "unet", sequence=ORDER), Plan(offload="model")),
        ["controlnet", "unet"],
    )
    assert present(stays) == ["controlnet", "controlnet+unet"]


def test_an_excluded_one_is_there_from_the_start():
    facts = model("unet", "checker", sequence=ORDER, excluded=("checker",))
    assert present(under("model", facts, ["unet", "checker"])) == [
        "checker+unet",
        "checker+unet",
    ]
    assert present(under("sequential", facts, ["unet", "checker"])) == ["checker", "checker"]
    assert (
        placed(facts, Plan(offload="model")).resident
        == placed(facts, Plan(offload="sequential")).resident
        == {"checker"}
    )


def test_an_excluded_one_that_is_in_the_order_is_swapped_all_the_same():
    facts = model("text_encoder", "unet", sequence=("text_encoder", "unet"), excluded=("unet",))
    assert present(under("model", facts, ["text_encoder", "unet"])) == [
        "text_encoder",
        "unet",
    ]
    assert placed(facts, Plan(offload="model")).resident == frozenset()
    assert present(under("sequential", facts, ["text_encoder"])) == ["unet"]


def test_text_encoders_leave_when_the_denoiser_is_called():
    facts = model("text_encoder", "text_encoder_2", "unet", "vae")
    callers = ["", "text_encoder", "text_encoder_2", "", "unet", "unet", "vae"]
    stays = residency(placed(facts, Plan(text_encoders="leave")), callers)
    both = "text_encoder+text_encoder_2+unet+vae"
    assert present(stays) == ["unet+vae", "text_encoder+unet+vae", both, both, "unet+vae", "unet+vae", "unet+vae"]
    assert stays[1].moves == (Move("in", "text_encoder"),)
    assert stays[4].moves == (Move("out", "text_encoder"), Move("out", "text_encoder_2"))
    assert stays[5].moves == ()


@pytest.mark.parametrize("offload", ["none", "group:leaf"])
def test_text_encoders_on_the_cpu_never_come(offload):
    facts = model("text_encoder", "unet", "vae", ungroupable=("vae",))
    stays = residency(placed(facts, Plan(text_encoders="cpu", offload=offload)), CALLS)
    assert set(present(stays)) == {"unet+vae" if offload == "none" else "vae"}


def test_in_groups_only_what_diffusers_cannot_group_stays_whole():
    facts = model("text_encoder", "unet", "vae", ungroupable=("vae",))
    for offload in ("group:block", "group:leaf+stream"):
        assert set(present(residency(placed(facts, Plan(offload=offload)), CALLS))) == {"vae"}
        assert placed(facts, Plan(offload=offload)).resident == {"vae"}
