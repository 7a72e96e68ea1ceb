"""Calls made by hand on the allocator; every number is worked out on paper. Blocks are multiples of 512 bytes."""

from __future__ import annotations

import pytest

from autotune.records.placement import placed
from autotune.records.plan import Plan
from autotune.records.trace import EventKind, OpClass
from autotune.simulate.allocator import OutOfMemory
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.heap import Code
from autotune.simulate.program import program
from autotune.simulate.programs import Programs
from autotune.simulate.replay import Replayer
from autotune.simulate.timeline import Timeline
from autotune.simulate.workspace import context_bytes, cublas_bytes
from autotune.units import MIB
from tests.unit.handmade import CARD, model, op, segment, trace

ALLOC, FREE, OP = EventKind.ALLOC, EventKind.FREE, EventKind.OP
ENTER, EXIT = EventKind.ENTER, EventKind.EXIT
ORDER = ("text_encoder", "unet", "vae")
WEIGHTS = {"text_encoder": 512, "unet": 4096, "vae": 1024}
TENSORS = {"text_encoder": (512,), "unet.a": (1024,), "unet.b": (1536, 512), "unet": (1024,), "vae": (1024,)}


def blocks(turn):
    """A call of the denoiser: two blocks one after the other, each with a tensor of its own that goes again."""
    first, second = 10 + 2 * turn, 11 + 2 * turn
    return segment(
        (ENTER, 0, 1024), (ENTER, 1, 1024), (ALLOC, first, 512), (EXIT, 1, 1024), (FREE, first, 512),
        (ENTER, 2, 2048), (ALLOC, second, 1024), (EXIT, 2, 2048), (FREE, second, 1024), (EXIT, 0, 1024), turn=turn,
    )  # fmt: skip


CALL = trace(
    segment((ALLOC, 0, 512), component="text_encoder", phase="encoding", modules=("text_encoder",)),
    blocks(0),
    blocks(1),
    segment((ALLOC, 1, 2048), (FREE, 0, 512), component="vae", phase="decoding", modules=("vae",)),
    weights=WEIGHTS,
    tensors=TENSORS,
    blocks={"unet.a": 1024, "unet.b": 2048},
)
FACTS = model(*WEIGHTS, sequence=ORDER)


def timeline(offload="none", call=CALL, **options):
    return Timeline(
        call,
        placement=placed(FACTS, Plan(offload=offload)),
        programs=Programs(CARD),
        **options,
    )


@pytest.mark.parametrize(
    ("offload", "encoding", "denoising", "decoding"),
    [
        ("none", 5632 + 512, 5632 + 512 + 1024, 5632 + 512 + 2048),
        ("model", 512 + 512, 4096 + 512 + 1024, 1024 + 512 + 2048),
        ("group:block", 512, 1024 + 2048 + 512 + 1024, 512 + 2048),
        ("group:block+stream", 512, 1024 + 1024 + 2048 + 512 + 512, 512 + 2048),
    ],
)
def test_what_is_allocated_in_each_phase(offload, encoding, denoising, decoding):
    """By block, with a stream: while the first block runs, the second is there too."""
    usage = timeline(offload).run()
    assert usage.allocated_bytes == {"encoding": encoding, "denoising": denoising, "decoding": decoding}


def test_leaves_come_one_at_a_time_and_ahead_with_a_stream():
    apart, ahead = timeline("group:leaf").run(), timeline("group:leaf+stream").run()
    assert apart.allocated_bytes["denoising"] == 1024 + 2048 + 512 + 1024
    assert ahead.allocated_bytes["denoising"] == 1024 + 1024 + 2048 + 512 + 512


def test_sequential_offload_keeps_little_reserved():
    """accelerate empties the cache with every tensor it brings."""
    assert timeline("sequential").run().peak_allocated_bytes == 1024 + 2048 + 512 + 1024
    big = trace(
        segment((ENTER, 1, 30 * MIB), (EXIT, 1, 30 * MIB), (ENTER, 2, 40 * MIB), (EXIT, 2, 40 * MIB), turn=0),
        weights={"unet": 70 * MIB},
    )
    facts = model("unet", sequence=("unet",))

    def reserved(offload):
        one = Timeline(big, placement=placed(facts, Plan(offload=offload)), programs=Programs(CARD))
        return one.run().peak_reserved_bytes

    assert reserved("sequential") == (40 + 30) * MIB  # the second comes before the first's segment is given back
    assert reserved("group:leaf") == (40 + 30) * MIB


def test_reserved_counts_segments():
    usage = timeline().run()
    assert usage.reserved_bytes == dict.fromkeys(usage.allocated_bytes, 2 * MIB)


def test_the_first_product_takes_the_workspace_for_good():
    product = trace(segment(ops=(op(OpClass.GEMM),), turn=0), weights={"unet": 512})
    one = Timeline(product, placement=placed(model("unet"), Plan()), programs=Programs(CARD))
    assert one.run().peak_allocated_bytes == one.run(calls=2).peak_allocated_bytes == 512 + cublas_bytes(CARD)


def test_a_change_of_precision_exchanges_every_tensor():
    upcast = segment((ALLOC, 1, 512), component="vae", phase="decoding", modules=("vae",), weights={"vae": 2048})
    after = segment((FREE, 1, 512), component="", phase="decoding")
    call = trace(*CALL.segments[:3], upcast, after, weights=WEIGHTS, tensors=TENSORS)
    assert timeline(call=call).run().allocated_bytes["decoding"] == 5632 + 1024 + 512 + 512 + 1024  # both at once
    assert timeline(call=call).run(calls=2).allocated_bytes["encoding"] == 5632 + 512


def test_a_recorded_again_output_is_freed_by_its_size():
    fresh = segment((ALLOC, 90, 512), component="text_encoder", phase="encoding", modules=("text_encoder",))
    again = CALL.replaced("text_encoder", [fresh])
    assert timeline(call=again).run() == timeline().run()


def test_a_graph_keeps_its_pool():
    graphed = timeline(graphed=frozenset({"unet"})).run()
    assert graphed.allocated_bytes["decoding"] == 5632 + 512 + 2048 + 2 * MIB
    assert graphed.peak_reserved_bytes == (2 + 20) * MIB  # the pool is a segment of its own


def test_the_smallest_limit_is_enough_and_no_less_is():
    call = trace(
        segment((ALLOC, 0, 12 * MIB), (FREE, 0, 12 * MIB), (ALLOC, 1, 30 * MIB), (FREE, 1, 30 * MIB), turn=0),
        weights={"unet": 10 * MIB},
    )
    one = Timeline(call, placement=placed(model("unet"), Plan()), programs=Programs(CARD))
    assert one.run().peak_reserved_bytes == 52 * MIB
    assert one.smallest_limit() == 40 * MIB  # the cached 12 MiB are given back
    with pytest.raises(OutOfMemory):
        one.run(38 * MIB)


def test_the_allocators_settings_count():
    events = ((ALLOC, 0, 12 * MIB), (FREE, 0, 12 * MIB), (ALLOC, 1, 30 * MIB), (FREE, 1, 30 * MIB))
    plan, call = Plan(), trace(segment(*events, turn=0), weights={"unet": 10 * MIB})
    segments, pages = (
        Replayer(
            {plan.execution: call}, model=model("unet"), device=CARD, steps=1, undo=False, settings=settings
        ).estimate(plan)
        for settings in (None, Settings(expandable_segments=True))
    )
    assert segments.reserved_bytes == (10 + 12 + 30) * MIB
    assert pages.reserved_bytes == 40 * MIB  # two pages of 20 MiB: the second call for memory grows into the first's


def test_attention_and_convolutions_hold_what_they_need():
    row = op(OpClass.CONV, dtype="float16", conv=(1024, 512, 64))
    rows = program(segment((ALLOC, 0, 512), (OP, 0, 0), ops=(row,)), CARD, "sdpa")
    assert rows.tolist() == [[Code.MALLOC, 0, 512], [Code.HOLD, 0, 1600]]


def test_an_estimate_adds_up():
    plan = Plan()
    replayer = Replayer({plan.execution: CALL}, model=FACTS, device=CARD, steps=2, undo=False)
    estimate = replayer.estimate(plan)
    assert estimate.reserved_bytes == 2 * MIB
    assert estimate.process_bytes == estimate.reserved_bytes + context_bytes(CARD) == estimate.peak_phase.peak_bytes
    assert estimate.allocated_bytes == 5632 + 512 + 2048
    for phase in estimate.phases:
        parts = phase.weights_bytes + phase.activations_bytes + phase.workspace_bytes + phase.overhead_bytes
        assert phase.peak_bytes == parts
        assert sum(phase.components.values()) == phase.weights_bytes
