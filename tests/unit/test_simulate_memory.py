"""Live bytes of segments made by hand; every number is worked out on paper."""

from __future__ import annotations

from autotune.records.trace import EventKind, OpClass
from autotune.simulate.memory import segment_memory
from tests.unit.handmade import CARD, CPU, attention, card, op, segment

ALLOC, FREE, OP = EventKind.ALLOC, EventKind.FREE, EventKind.OP
ENTER, EXIT = EventKind.ENTER, EventKind.EXIT
BEGIN, END = EventKind.ATTENTION, EventKind.ATTENTION_END


def test_live_bytes_rise_and_fall():
    memory = segment_memory(segment((ALLOC, 0, 100), (ALLOC, 1, 50), (FREE, 0, 100), (ALLOC, 2, 30)), CPU)
    assert memory.peak.activations_bytes == 150
    assert memory.net_bytes == 80


def test_a_segment_may_free_what_came_before_it():
    memory = segment_memory(segment((FREE, 0, 100), (ALLOC, 1, 40)), CPU)
    assert memory.peak.activations_bytes == -60
    assert memory.net_bytes == -60


def test_a_card_hands_out_blocks_of_512():
    memory = segment_memory(segment((ALLOC, 0, 1), (ALLOC, 1, 513), (FREE, 0, 1)), CARD)
    assert memory.peak.activations_bytes == 512 + 1024
    assert memory.net_bytes == 1024


def test_nothing_happened():
    memory = segment_memory(segment(component="vae"), CARD)
    leaves, blocks = memory.streams["leaf"], memory.streams["block"]
    assert memory.peak.total_bytes == leaves.peak.total_bytes == blocks.prefetched_peak.total_bytes == 0
    assert memory.net_bytes == leaves.moves == blocks.moved_bytes == 0
    assert memory.peak.module == "vae"


def test_leaves_bring_their_weights_and_take_them_along():
    memory = segment_memory(
        segment(
            (ENTER, 0, 0),
            (ENTER, 1, 1000),
            (ALLOC, 0, 700),
            (EXIT, 1, 1000),
            (FREE, 0, 700),
            (ENTER, 2, 1200),
            (ALLOC, 1, 300),
            (EXIT, 2, 1200),
            (EXIT, 0, 0),
        ),
        CPU,
    )
    assert memory.peak == (700, 0, 0, "unet.a")
    leaves = memory.streams["leaf"]
    assert leaves.peak == (700, 0, 1000, "unet.a")
    assert leaves.prefetched_peak == (700, 0, 2200, "unet.a")
    assert (leaves.moved_bytes, leaves.moves) == (2200, 2)


def test_blocks_come_whole_and_the_next_one_ahead():
    """Two blocks of 3000 and 5000 bytes, whose leaves are smaller; what lies between them is in neither."""
    events = segment(
        (ENTER, 0, 0), (ENTER, 1, 1000), (ALLOC, 0, 70), (EXIT, 1, 1000), (ALLOC, 1, 10), (ENTER, 2, 1200), (EXIT, 2, 1200),
        (EXIT, 0, 0),
    )  # fmt: skip
    blocks = segment_memory(events, CPU, {"unet.a": 3000, "unet.b": 5000}).streams["block"]
    assert blocks.peak == (80, 0, 5000, "unet.b")
    assert blocks.prefetched_peak == (70, 0, 8000, "unet.a")
    assert (blocks.moved_bytes, blocks.moves) == (8000, 2)


def test_weights_of_a_module_stay_while_its_children_run():
    memory = segment_memory(segment((ENTER, 0, 400), (ENTER, 1, 1000), (EXIT, 1, 1000), (EXIT, 0, 400)), CPU)
    assert memory.streams["leaf"].peak.weights_bytes == 1400


def test_a_convolution_works_beside_its_output():
    rows = (op(OpClass.CONV, dtype="float16", conv=(3072, 1024, 18)), op(OpClass.CONV, conv=(3072, 1024, 36)))
    halves = segment((ENTER, 1, 0), (ALLOC, 0, 512), (OP, 0, 0), (EXIT, 1, 0), ops=rows[:1])
    full = segment((ALLOC, 0, 512), (OP, 0, 0), ops=rows[1:])
    assert segment_memory(halves, CARD).peak == (512, 4114, 0, "unet.a")
    assert segment_memory(full, CARD).peak.workspace_bytes == 3108
    assert segment_memory(halves, CPU).peak.workspace_bytes == 0


def test_attention_is_the_cards_own_affair():
    """What comes and goes inside is how the CPU does it; the output stays, and the card's own buffers come on top."""
    inside = segment(
        (ALLOC, 0, 1024), (BEGIN, 0, 0), (ALLOC, 1, 99_999), (ALLOC, 2, 2048), (FREE, 1, 99_999), (END, 0, 0),
        attentions=(attention(heads=4, query_length=128),),
    )  # fmt: skip
    on_card = segment_memory(inside, CARD)
    assert on_card.peak.activations_bytes == 1024 + 2048
    assert on_card.peak.workspace_bytes == 4 * 128 * 4
    assert segment_memory(inside, CPU).peak.activations_bytes == 1024 + 99_999 + 2048
    bfloat16 = segment((BEGIN, 0, 0), (END, 0, 0), attentions=(attention(dtype="bfloat16"),))
    turing = segment_memory(bfloat16, card((7, 5)))
    assert turing.peak.workspace_bytes == 13 * 16 * 16 + 4 * 16 * 64 * 4
