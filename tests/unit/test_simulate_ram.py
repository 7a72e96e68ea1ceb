"""RAM of weights that wait: once without a stream; with one, pinned copies beside the originals until hooks are installed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.records.placement import placed
from autotune.records.plan import Plan
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.ram import Ram, waiting_ram
from tests.unit.handmade import estimate, model, segment, trace

TENSORS = {
    "text_encoder.a": (1000,),
    "unet": (300,),
    "unet.blocks.0": (4000, 3000),
    "unet.blocks.1.linear": (2000,),
    "vae.a": (5000,),
}
WEIGHTS = {"text_encoder": 1000, "unet": 9300, "vae": 5000}
CALL = trace(segment(), weights=WEIGHTS, tensors=TENSORS, blocks={"unet.blocks.0": 7000, "unet.blocks.1": 2000})
FACTS = model(*WEIGHTS)


def ram(offload, *, facts=FACTS, settings=None, **changes):
    return waiting_ram(placed(facts, Plan(offload=offload, **changes)), CALL, settings)


@pytest.mark.parametrize("offload", ["model", "sequential", "group:block", "group:leaf"])
def test_without_a_stream_each_weight_is_there_once(offload):
    assert ram(offload) == Ram(15_300)


def test_by_block_what_is_in_no_block_is_not_pinned():
    """The text encoder goes by leaf: its copy of 1024 replaces 1000. Then the UNet's blocks: 4096 + 4096 + 2048 beside 9300."""
    peak = 1024 + 9300 + 10_240 + 5000
    assert ram("group:block+stream") == Ram(peak, installing_bytes=9000, pinned_bytes=1024 + 10_240)


def test_by_leaf_everything_is_pinned_but_a_vae():
    peak = 1024 + 9300 + 512 + 10_240 + 5000
    assert ram("group:leaf+stream") == Ram(peak, installing_bytes=9300, pinned_bytes=1024 + 512 + 10_240)


def test_the_peak_may_be_at_a_component_before_the_last():
    call = CALL.model_copy(update={"tensors": {"text_encoder.a": (8000,), "unet.a": (100,)}, "blocks": {}})
    call = call.model_copy(update={"weights": {"text_encoder": 8000, "unet": 100}})
    peak = waiting_ram(placed(model("text_encoder", "unet"), Plan(offload="group:leaf+stream")), call)
    assert peak == Ram(8000 + 8192 + 100, installing_bytes=8100 - 128, pinned_bytes=8192)


def test_pinned_as_it_is_sent_holds_the_buffers_of_one_group():
    """By block two of 4096 (of the first) and one of 2048 (of the second), by leaf one of 512 beside; 1024 for the encoder."""
    assert ram("group:block+stream+low_cpu_mem") == Ram(15_300 + 11_264, pinned_bytes=11_264)
    assert ram("group:leaf+stream+low_cpu_mem") == Ram(15_300 + 11_776, pinned_bytes=11_776)


def test_encoders_that_are_placed_apart_wait_without_a_copy():
    apart = ram("group:leaf+stream", text_encoders="cpu")
    assert apart == Ram(1000 + 9300 + 512 + 10_240 + 5000, installing_bytes=9300, pinned_bytes=512 + 10_240)


def test_what_cannot_be_grouped_is_on_the_card():
    facts = model(*WEIGHTS, ungroupable=("text_encoder",))
    assert ram("group:leaf+stream", facts=facts).peak_bytes == 9300 + 512 + 10_240 + 5000


def test_torch_can_be_told_not_to_round_large_ones():
    told = Settings(pinned_max_round_bytes=2500)
    assert ram("group:block+stream", settings=told).pinned_bytes == 1024 + 4000 + 3000 + 2048


OFFLOADS = (
    "none",
    "model",
    "group:block",
    *(f"group:{x}+stream{y}" for x in ("block", "leaf") for y in ("", "+low_cpu_mem")),
)


@given(
    st.sampled_from(OFFLOADS),
    st.dictionaries(st.sampled_from(sorted(TENSORS)), st.tuples(st.integers(1, 10**9), st.integers(1, 10**9))),
)
def test_never_less_than_the_weights_nor_more_than_three_times(offload, tensors):
    weights = {name: sum(sum(own) for path, own in tensors.items() if path.split(".")[0] == name) for name in WEIGHTS}
    call = CALL.model_copy(update={"weights": weights, "tensors": tensors})
    found = waiting_ram(placed(FACTS, Plan(offload=offload)), call)
    total = 0 if offload == "none" else sum(weights.values())
    assert total <= found.peak_bytes <= 3 * total
    assert found.installing_bytes <= sum(weights.values())
    assert found.peak_bytes - found.installing_bytes >= found.pinned_bytes * (found.installing_bytes > 0)


def test_where_both_share_one_memory():
    during = estimate(process_bytes=500, margin_bytes=50, host_ram_bytes=900, installing_bytes=300)
    assert (during.steady_ram_bytes, during.one_memory_bytes) == (600, 600 + 550)
    installing = estimate(process_bytes=100, host_ram_bytes=900, installing_bytes=300)
    assert installing.one_memory_bytes == 900
