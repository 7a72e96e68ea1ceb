"""A whole call replayed under each placement; every number is worked out on paper."""

from __future__ import annotations

import pytest

from autotune.records.estimate import PHASES
from autotune.records.plan import Plan
from autotune.records.trace import EventKind, OpClass
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.latency import moved_s, on_host_s, segment_time, setup_s
from autotune.simulate.margins import margin_bytes
from autotune.simulate.replay import Replayer
from autotune.simulate.workspace import context_bytes
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
    tensors={"unet.a": (3000, 1000), "vae.a": (1500,), "text_encoder.a": (800,)},
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
    assert estimate.process_bytes == top == estimate.reserved_bytes + context_bytes(device)
    assert estimate.needed_bytes == top + margin_bytes(device, "none", top)
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
    assert model_wise.transfer_s == pytest.approx(
        moved_s(CARD, 1000, back=True, large_share=0, tensors=1) + moved_s(CARD, 5000, tensors=2)
    )
    assert leaf_wise.transfer_s == pytest.approx(10 * (moved_s(CARD, 4000, tensors=2) + 2 * 6e-4))


def test_model_offload_sends_back_what_the_call_has_left():
    decoding = replayed(Plan(offload="model"), device=CARD).phase("decoding")
    there_s = moved_s(CARD, 5000, back=True, large_share=0, tensors=2) + moved_s(CARD, 2000, tensors=1)
    assert decoding.transfer_s == pytest.approx(there_s + moved_s(CARD, 2000, back=True, large_share=0, tensors=1))


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
    assert estimate.margin_bytes == margin_bytes(CARD, "none", estimate.process_bytes) + 1000 + 2 * GIB
    assert (estimate.latency_margin, traced.latency_margin) == (1.0, 0.35)
    assert traced.notes == ()


BLOCKS = trace(
    CALL.segments[0],
    *CALL.segments[1:3],
    segment(
        *leaf("vae", 1500, (ALLOC, 2, 800), (FREE, 0, 100)),
        component="vae", phase="decoding", modules=("vae", "vae.a", "vae.b"),
    ),
    weights=WEIGHTS, calls=10, blocks={"unet.a": 4500, "vae.a": 1800},
)  # fmt: skip


def test_group_offload_by_block_holds_the_block_and_what_is_in_none():
    """Text encoders go by leaf, whatever the others do."""
    assert peaks(replayed(Plan(offload="group:block"), call=BLOCKS)) == [800 + 100, 500 + 4500 + 600, 2000 + 900]
    estimate = replayed(Plan(offload="group:block"), call=BLOCKS, device=CARD)
    moved = moved_s(CARD, 5000, hooks=1) + moved_s(CARD, 5000, back=True)  # the block's and the rest's
    assert estimate.phase("denoising").transfer_s == pytest.approx(10 * moved)


def test_group_offload_by_leaf_holds_one_leaf():
    assert peaks(replayed(Plan(offload="group:leaf"), call=BLOCKS)) == [800 + 100, 4000 + 600, 1500 + 900]


def two_leaves(turn):
    events = ((ENTER, 0, 0), (ENTER, 1, 4000), (EXIT, 1, 4000), (ENTER, 2, 3000), (EXIT, 2, 3000), (EXIT, 0, 0))
    return segment(*events, turn=turn, ops=(op(flops=1e12),))


def test_a_stream_holds_the_next_leaf_too_and_copies_nothing_back():
    tensors = {"unet.a": (4000,), "unet.b": (3000,)}
    call = trace(two_leaves(0), two_leaves(1), weights={"unet": 7000}, calls=10, tensors=tensors)
    facts = model("unet")
    alone, ahead = (replayed(Plan(offload=o), call=call, facts=facts) for o in ("group:leaf", "group:leaf+stream"))
    assert (peaks(alone)[1], peaks(ahead)[1]) == (4000, 7000)
    alone, ahead, low = (
        replayed(Plan(offload=o), call=call, facts=facts, device=CARD)
        for o in ("group:leaf", "group:leaf+stream", "group:leaf+stream+low_cpu_mem")
    )
    assert ahead.transfer_s == pytest.approx(10 * moved_s(CARD, 7000, pinned=True, hooks=2))
    assert alone.transfer_s == pytest.approx(
        10 * (moved_s(CARD, 7000, hooks=2) + moved_s(CARD, 7000, back=True, large_share=0))
    )
    assert ahead.transfer_s < low.transfer_s < alone.transfer_s
    assert (alone.host_ram_bytes, ahead.host_ram_bytes, low.host_ram_bytes) == (7000, 7000 + 8192, 7000 + 4096)
    assert (ahead.steady_ram_bytes, low.steady_ram_bytes) == (8192, 7000 + 4096)


def test_pinned_copies_are_powers_of_two_unless_torch_is_told_otherwise():
    tensors = {"unet.a": (4000, 3 * 2**20), "unet.b": (3000,)}
    call = trace(two_leaves(0), weights={"unet": 7000 + 3 * 2**20}, calls=1, tensors=tensors)
    plan = Plan(offload="group:leaf+stream")

    def waiting(settings):
        parts = {"model": model("unet"), "device": CARD, "steps": 1, "undo": False, "settings": settings}
        return Replayer({plan.execution: call}, **parts).estimate(plan).steady_ram_bytes

    assert waiting(None) == 4096 + 4096 + 4 * 2**20
    told = Settings.from_environment({"PYTORCH_ALLOC_CONF": "pinned_max_round_threshold_mb:1"})
    assert waiting(told) == 4096 + 4096 + 3 * 2**20


def test_a_stream_of_blocks_hides_behind_computing():
    call = trace(two_leaves(0), two_leaves(1), weights={"unet": 7 * 10**9}, calls=10, blocks={"unet.a": 4 * 10**9})
    alone, ahead = (
        replayed(Plan(offload=o), call=call, facts=model("unet"), device=CARD).transfer_s
        for o in ("group:block", "group:block+stream")
    )
    copied_s = moved_s(CARD, 4e9, pinned=True)
    rest_s = moved_s(CARD, 3e9, hooks=1) + moved_s(CARD, 3e9, back=True)  # it is not pinned, and has no stream
    hidden_s = 0.8 * min(copied_s, segment_time(two_leaves(0), CARD, tf32=False).compute_s)
    assert 0 < hidden_s < copied_s
    assert ahead == pytest.approx(10 * (copied_s - hidden_s + rest_s))
    assert ahead < alone


def test_text_encoders_that_leave_are_not_beside_the_denoiser():
    estimate = replayed(Plan(text_encoders="leave"))
    assert peaks(estimate) == [8000 + 100, 7000 + 600, 7000 + 900]
    on_card = replayed(Plan(text_encoders="leave"), device=CARD)
    assert on_card.transfer_s == pytest.approx(
        moved_s(CARD, 1000, tensors=1) + moved_s(CARD, 1000, back=True, large_share=0, tensors=1)
    )
    assert on_card.host_ram_bytes == 1000


def test_text_encoders_on_the_cpu_take_its_time_and_none_of_the_card():
    assert peaks(replayed(Plan(text_encoders="cpu"))) == [7000, 7000 + 600, 7000 + 900]
    work = segment(*leaf("text_encoder", 800), component="text_encoder", phase="encoding", ops=(op(flops=1e12),))
    call = CALL.model_copy(update={"segments": (work, *CALL.segments[1:])})
    here, there = (replayed(Plan(text_encoders=v), call=call, device=CARD) for v in ("resident", "cpu"))
    assert there.phase("encoding").compute_s == pytest.approx(on_host_s(work)) == pytest.approx(5.0)
    assert there.phase("encoding").compute_s > here.phase("encoding").compute_s


@pytest.mark.parametrize("code", ["trace", "blocks"])
def test_compiling_costs_the_first_call_and_saves_in_the_denoiser_only(code):
    small = [op(OpClass.POINTWISE, moved=1e3)] * 500
    call = trace(
        segment(*leaf("text_encoder", 800), component="text_encoder", phase="encoding", ops=small),
        segment(turn=0, ops=small), segment(turn=1, ops=small),
        weights={"text_encoder": 1000, "unet": 5000}, calls=10,
    )  # fmt: skip
    facts = model("text_encoder", "unet")
    plain, compiled = (replayed(Plan(compile=c), call=call, facts=facts, device=CARD) for c in ("none", code))
    assert compiled.phase("denoising").compute_s < plain.phase("denoising").compute_s
    assert compiled.phase("encoding").compute_s == plain.phase("encoding").compute_s
    assert (plain.setup_s, compiled.setup_s) == (0.0, setup_s(code))
    assert compiled.per_call_s(1) - compiled.latency_s == pytest.approx(setup_s(code))
    assert compiled.per_call_s(10**9) == pytest.approx(compiled.latency_s)
