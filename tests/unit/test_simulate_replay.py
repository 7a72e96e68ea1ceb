"""A whole call replayed under each placement; every number is worked out on paper."""

from __future__ import annotations

import pytest

from autotune.records.estimate import PHASES
from autotune.records.plan import Plan
from autotune.records.trace import EventKind, OpClass
from autotune.simulate.latency import moved_s, segment_time
from autotune.simulate.replay import Replayer
from autotune.simulate.workspace import context_bytes, cublas_bytes, margin_bytes, slack_bytes
from autotune.units import GIB
from tests.unit.handmade import CARD, CPU, model, op, segment, trace

ALLOC, FREE, ENTER, EXIT = EventKind.ALLOC, EventKind.FREE, EventKind.ENTER, EventKind.EXIT
WEIGHTS = {"text_encoder": 1000, "unet": 5000, "vae": 2000}
ORDER = ("text_encoder", "unet", "vae")


def leaf(component, size_bytes, *inside):
    """A component that calls one module with weights of its own."""
    return ((ENTER, 0, 0), (ENTER, 1, size_bytes), *inside, (EXIT, 1, size_bytes), (EXIT, 0, 0))


def step(turn, component="unet"):
    work = op(OpClass.CONV, flops=1e12, moved=1e6)
    events = leaf(component, 4000, (ALLOC, 10 + turn, 500), (FREE, 10 + turn, 500))
    return segment(*events, component=component, turn=turn, ops=(work,))


CALL = trace(
    segment(*leaf("text_encoder", 800, (ALLOC, 0, 100)), component="text_encoder", phase="encoding"),
    step(0),
    step(1),
    segment(*leaf("vae", 1500, (ALLOC, 2, 800), (FREE, 0, 100)), component="vae", phase="decoding"),
    weights=WEIGHTS,
    calls=10,
    resident_buffers={"text_encoder": 7, "unet": 0, "vae": 0},
)
FACTS = model(*WEIGHTS, sequence=ORDER, fp32_bytes=300)


def replayed(plan, *, device=CPU, call=CALL, facts=FACTS, steps=10, undo=True):
    return Replayer({plan.execution: call}, model=facts, device=device, steps=steps, undo=undo).estimate(plan)


def peaks(estimate):
    return [phase.peak_bytes for phase in estimate.phases]


def test_everything_resident():
    assert peaks(replayed(Plan())) == [8000 + 100, 8000 + 100 + 500, 8000 + 100 + 800]


def test_model_offload_holds_one_component():
    estimate = replayed(Plan(offload="model"))
    assert peaks(estimate) == [1000 + 100, 5000 + 100 + 500, 2000 + 100 + 800]
    assert estimate.peak_phase.name == "denoising"
    assert estimate.peak_phase.moment == "unet.a"


def test_sequential_offload_holds_one_leaf_and_the_buffers():
    assert peaks(replayed(Plan(offload="sequential"))) == [7 + 800 + 100, 7 + 4000 + 600, 7 + 1500 + 900]


def test_an_excluded_component_stays_whole():
    facts = model(*WEIGHTS, sequence=("text_encoder", "unet"), excluded=("vae",))
    assert peaks(replayed(Plan(offload="model"), facts=facts)) == [3000 + 100, 7000 + 600, 2000 + 5000 + 900]
    assert peaks(replayed(Plan(offload="sequential"), facts=facts))[2] == 2000 + 7 + 900


@pytest.mark.parametrize("device", [CPU, CARD], ids=lambda device: device.kind)
@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
def test_parts_add_up(device, offload):
    estimate = replayed(Plan(offload=offload), device=device)
    assert [phase.name for phase in estimate.phases] == list(PHASES)
    for phase in estimate.phases:
        parts = phase.weights_bytes + phase.activations_bytes + phase.workspace_bytes + phase.overhead_bytes
        assert phase.peak_bytes == parts
    top = max(peaks(estimate))
    slack = slack_bytes(device, estimate.peak_phase.activations_bytes + estimate.peak_phase.workspace_bytes)
    assert estimate.process_bytes == top == estimate.reserved_bytes + context_bytes(device)
    assert estimate.allocated_bytes == estimate.reserved_bytes - slack
    assert estimate.needed_bytes == top + margin_bytes(device, top)
    assert estimate.peak_phase.overhead_bytes == context_bytes(device) + cublas_bytes(device) + slack
    assert estimate.latency_s == pytest.approx(sum(p.compute_s + p.transfer_s for p in estimate.phases))
    assert estimate.transfer_s == pytest.approx(sum(phase.transfer_s for phase in estimate.phases))


def test_the_second_turn_is_repeated():
    one = segment_time(step(0), CARD, tf32=False).compute_s
    estimate = replayed(Plan(), device=CARD)
    assert estimate.phase("denoising").compute_s == pytest.approx(10 * one)
    assert estimate.step_s == pytest.approx(one)
    assert replayed(Plan(), device=CARD, steps=5).step_s == pytest.approx(2 * one)  # two calls of the denoiser a step


def test_model_offload_moves_the_denoiser_once_and_leaves_every_step():
    model_wise, leaf_wise = (replayed(Plan(offload=o), device=CARD).phase("denoising") for o in ("model", "sequential"))
    assert model_wise.transfer_s == pytest.approx(moved_s(CARD, 1000) + moved_s(CARD, 5000))
    assert leaf_wise.transfer_s == pytest.approx(10 * moved_s(CARD, 4000, by_tensor=True, modules=1))


def test_weights_that_the_pipeline_casts_count_from_then_on():
    segments = [s.model_copy(update={"weights": {"vae": 4000}} if s.component == "vae" else {}) for s in CALL.segments]
    upcast = CALL.model_copy(update={"segments": tuple(segments)})
    assert peaks(replayed(Plan(), call=upcast)) == [8100, 8600, 10_900]


def test_host_ram_holds_what_waits_and_the_originals():
    half = CALL
    assert replayed(Plan(), device=CARD).host_ram_bytes == 0
    assert replayed(Plan(offload="model"), device=CARD).host_ram_bytes == 8000
    lowered = replayed(Plan(dtype="float16", offload="model"), device=CARD, call=half)
    assert (lowered.host_ram_bytes, lowered.undo_bytes) == (8000 + 900, 900)
    assert replayed(Plan(dtype="float16"), device=CARD, call=half, undo=False).host_ram_bytes == 0
    excluded = model(*WEIGHTS, sequence=("text_encoder", "unet"), excluded=("vae",))
    assert replayed(Plan(offload="model"), device=CARD, facts=excluded).host_ram_bytes == 6000


def test_on_the_cpu_everything_is_in_ram():
    assert replayed(Plan()).host_ram_bytes == 8900


def test_a_component_without_a_trace_counts_with_its_weights_and_a_wider_bar():
    call = CALL.model_copy(
        update={
            "segments": CALL.segments[:3],
            "untraced": {"vae": "RuntimeError: no fakes", "the pipeline's own code": "x"},
        }
    )
    estimate, traced = replayed(Plan(offload="model"), device=CARD, call=call), replayed(Plan(), device=CARD)
    assert estimate.notes == (
        "vae could not be traced (RuntimeError: no fakes): weights only",
        "the pipeline's own code could not be traced (x): weights only",
    )
    assert estimate.phase("decoding").weights_bytes == 2000
    assert estimate.margin_bytes == margin_bytes(CARD, estimate.process_bytes) + 1000 + 2 * GIB
    assert (estimate.latency_margin, traced.latency_margin) == (1.0, 0.35)
    assert traced.notes == ()
