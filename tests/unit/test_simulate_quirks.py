"""Versions that do otherwise are named where they matter, and counted in bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.records.plan import Plan
from autotune.records.trace import EventKind, OpClass
from autotune.simulate.memory import segment_memory
from autotune.simulate.quirks import QUIRKS, columns_bytes, notes_on, quirks_of
from autotune.simulate.replay import Replayer
from autotune.trace.record import Recorder
from autotune.units import size
from tests.unit.handmade import CARD, CPU, card, model, op, segment, trace

# 96 channels to 32 at 4x4 positions with a kernel of 27: input, output and weight in bytes of half precision.
CHANNELS, OUT, POSITIONS, KERNEL = 96, 32, 16, 27
BYTES = (2 * CHANNELS * POSITIONS, 2 * OUT * POSITIONS, 2 * OUT * CHANNELS * KERNEL)
FLOPS = 2 * OUT * POSITIONS * CHANNELS * KERNEL
COLUMNS = 2 * CHANNELS * KERNEL * POSITIONS


def convolution(op_class=OpClass.CONV_3D, dtype="bfloat16", conv=BYTES):
    return segment(ops=(op(op_class, dtype=dtype, flops=FLOPS, conv=conv),), turn=0)


def call(**of):
    return trace(convolution(**of), weights={"unet": 512})


@pytest.mark.parametrize(
    ("version", "met"),
    [
        ("2.9.0+cu128", True),
        ("2.9.1", True),
        ("2.9", True),
        ("2.8.0", False),
        ("2.10.0+cu130", False),
        ("nightly", False),
        (None, False),
    ],
)
def test_by_version(version, met):
    quirks = quirks_of(CARD, version)
    assert bool(quirks) is met
    workspace = segment_memory(convolution(), CARD, quirks=quirks).peak.workspace_bytes
    assert workspace == (COLUMNS if met else sum(BYTES))
    assert bool(notes_on(call(), quirks, version)) is met


@pytest.mark.parametrize("other", [{"op_class": OpClass.CONV}, {"dtype": "float32"}, {"conv": (0, 0, 0)}])
def test_only_the_kernels_it_touches(other):
    quirks = quirks_of(CARD, "2.9.0")
    assert notes_on(call(**other), quirks, "2.9.0") == ()
    assert segment_memory(convolution(**other), CARD, quirks=quirks) == segment_memory(convolution(**other), CARD)


def test_on_every_card_and_not_on_the_cpu():
    assert quirks_of(CPU, "2.9.0") == ()
    for capability in ((6, 0), (7, 0), (9, 0)):
        found = segment_memory(convolution(), card(capability), quirks=quirks_of(card(capability), "2.9.0"))
        assert found.peak.workspace_bytes == COLUMNS


@settings(deadline=None)  # the first convolution of a process takes seconds
@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 3), st.integers(2, 3), st.integers(1, 2), st.integers(3, 9))
def test_columns_are_those_of_a_real_convolution(channels, out, frames, kernel, stride, edge):
    layer = torch.nn.Conv3d(channels, out, (1, kernel, kernel), stride=stride, dtype=torch.bfloat16)
    recorder = Recorder()
    with recorder, torch.no_grad():
        recorder.begin()
        positions = layer(torch.zeros(1, channels, frames, edge, edge, dtype=torch.bfloat16))[0, 0].numel()
    recorded = recorder.cut().segment("vae", "decode", "decoding", -1, {})
    (rows,) = QUIRKS[0].touches(recorded).nonzero()
    assert columns_bytes(recorded, rows).tolist() == [2 * channels * kernel**2 * positions]


def test_an_estimate_counts_it_and_says_so():
    plan, big = Plan(), 2**15  # so many times the positions
    bytes_of = (BYTES[0] * big, BYTES[1] * big, BYTES[2])
    large = segment(
        (EventKind.OP, 0, 0), ops=(op(OpClass.CONV_3D, dtype="float16", flops=FLOPS * big, conv=bytes_of),), turn=0
    )
    traces = {plan.execution: trace(large, weights={"unet": 512})}

    def replayed(version):
        parts = {"model": model("unet"), "device": CARD, "steps": 1, "undo": False}
        return Replayer(traces, **parts, torch_version=version).estimate(plan)

    quirky, usual = replayed("2.9.0"), replayed("2.8.0")
    (note,) = quirky.notes
    assert note.startswith("torch 2.9.0: half-precision 3-D convolutions run without cuDNN")
    assert size(COLUMNS * big) in note
    assert usual.notes == ()
    more = COLUMNS * big - sum(bytes_of)
    assert quirky.allocated_bytes - usual.allocated_bytes == pytest.approx(more, rel=1e-3)


def test_each_has_a_source():
    assert all(quirk.source and quirk.first <= quirk.last for quirk in QUIRKS)
