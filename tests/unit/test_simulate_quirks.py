"""Versions that do otherwise are named, and only where they matter."""

from __future__ import annotations

import pytest

from autotune.records.plan import Plan
from autotune.records.trace import OpClass
from autotune.simulate.quirks import QUIRKS, quirks_met
from autotune.simulate.replay import Replayer
from tests.unit.handmade import CARD, CPU, model, op, segment, trace


def call(op_class=OpClass.CONV_3D, dtype="bfloat16"):
    return trace(segment(ops=(op(op_class, dtype=dtype),), turn=0), weights={"unet": 512})


@pytest.mark.parametrize(
    ("version", "met"),
    [
        ("2.9.0+cu128", True),
        ("2.9.1", True),
        ("2.8.0", False),
        ("2.10.0+cu130", False),
        ("nightly", False),
        (None, False),
    ],
)
def test_by_version(version, met):
    assert bool(quirks_met(call(), CARD, version)) is met


@pytest.mark.parametrize("other", [{"op_class": OpClass.CONV}, {"dtype": "float32"}])
def test_only_the_kernels_it_touches(other):
    assert quirks_met(call(**other), CARD, "2.9.0") == ()


def test_not_on_the_cpu():
    assert quirks_met(call(), CPU, "2.9.0") == ()


def test_an_estimate_says_so():
    plan = Plan()
    replayer = Replayer(
        {plan.execution: call()}, model=model("unet"), device=CARD, steps=1, undo=False, torch_version="2.9.0"
    )
    assert replayer.exact(plan).notes == (QUIRKS[0].note,)


def test_each_has_a_source():
    assert all(quirk.source and quirk.first <= quirk.last for quirk in QUIRKS)
