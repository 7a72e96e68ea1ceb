"""Workloads: what they refuse, how they read, and what the card's call fills in."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import WorkloadError
from autotune.records.described import MAX_EDGE_PX, Described, picture
from autotune.records.workload import Workload, with_defaults

edges = st.integers(1, 4096)


@pytest.mark.parametrize(
    ("workload", "label"),
    [
        (Workload(), "default size"),
        (Workload(height=1024, width=1024, steps=8), "1024x1024, 8 steps"),
        (Workload(height=512, width=768, steps=1, batch=2, guidance=False), "768x512, 1 step, batch 2, no guidance"),
        (Workload(height=480, width=832, frames=81, guidance=True), "832x480x81 frames"),
        (Workload(height=1024, width=1024, inputs={"image": "1024x1024"}), "1024x1024, 1 image of 1024x1024"),
        (Workload(inputs={"image": "2 x 512x512 RGB", "mask_image": "512x512 L"}),
         "size of its input, 2 images of 512x512, 1 mask of 512x512"),
        (Workload(inputs={"video": "81 x 832x480 RGB"}), "size of its input, video of 832x480x81"),
        (Workload(inputs={"latents": "1x4x64x64 torch.float16"}), "size of its input, latents 1x4x64x64"),
        (Workload(height=512, width=512, prompt_tokens=300, arguments={"strength": 0.6, "clip_skip": 1}),
         "512x512, prompt of 300 tokens, strength 0.6"),
        (Workload(height=4096, width=4096, computed=(1024, 1024, None)), "1024x1024 (asked for 4096x4096)"),
        (Workload(height=1024, width=1024, computed=(1024, 1024, None)), "1024x1024"),
        (Workload(height=480, width=832, frames=80, computed=(480, 832, 81)), "832x480x81 frames (asked for 80 frames)"),
        (Workload(computed=(768, 512, None), inputs={"image": "512x768"}), "512x768, 1 image of 512x768"),
        (Workload(height=512, width=512, additions=("LoRA rank 16",)), "512x512, LoRA rank 16"),
    ],
)  # fmt: skip
def test_a_label_is_short_and_says_what_is_computed(workload, label):
    assert workload.label == label


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": -1}, "height=-1 is not a positive whole number; write for example height=512"),
        ({"batch": 0}, "batch=0 is not a positive whole number; write for example batch=2"),
        ({"steps": 2.5}, "steps=2.5 is not a positive whole number; write for example steps=28"),
        ({"frames": True}, "frames=True is not a positive whole number; write for example frames=81"),
        ({"height": 10**9}, f"height=1000000000 is too large; nearest: {MAX_EDGE_PX}"),
        ({"height": 60_000, "width": 60_000}, "60000x60000 is too large"),
        ({"hieght": 5}, "a Workload has no 'hieght'; nearest: height"),
        ({"arguments": {"eta": math.nan}}, "eta=nan is not a number"),
        ({"inputs": {"image": "100000x5"}}, "image='100000x5' is not a size that is made up"),
    ],
)
def test_what_no_call_has_is_refused_in_one_sentence(fields, message):
    with pytest.raises(WorkloadError) as error:
        Workload(**fields)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@given(edges, edges, st.integers(1, 200))
def test_pictures_read_back_what_was_written(width, height, count):
    for said, expected in [
        (f"{width}x{height}", Described(shape=(width, height), kind="RGB")),
        (f"{width} X {height} L", Described(shape=(width, height), kind="L")),
        (f"{width}x{height}x{count}", Described(count=(count,), shape=(width, height), kind="RGB")),
        ([f"{width}x{height}"] * count, Described(count=(count,), shape=(width, height), kind="RGB")),
    ]:
        text = picture("image", said)
        assert Described.read(text) == expected
        assert str(expected) == text


@pytest.mark.parametrize("said", ["", "1024", "0x512", "512x-1", "512x512x0", "cat.png", "512x512 KEY", 5, [], ["1x1", "2x2"],
                                  "1000000000x1000000000", "9" * 400, None])  # fmt: skip
def test_what_is_no_size_of_a_picture_is_refused(said):
    with pytest.raises(WorkloadError, match="image="):
        picture("image", said)


def test_the_usual_call_fills_in_what_was_not_said():
    usual = Workload(height=1024, width=1024, steps=8, guidance=False, arguments={"max_sequence_length": 256, "eta": 0})
    said = Workload(width=512, batch=2, arguments={"eta": 1})
    merged = with_defaults(said, usual)
    assert (merged.height, merged.width, merged.steps, merged.batch, merged.guidance) == (1024, 512, 8, 2, False)
    assert merged.arguments == {"max_sequence_length": 256, "eta": 1}
    assert with_defaults(Workload(guidance=True), usual).guidance is True
    assert with_defaults(Workload(arguments={"guidance_scale": 4.0}), usual).guidance is None  # the pipeline has to say
    assert with_defaults(merged, usual) == merged


def test_the_key_leaves_out_what_changes_no_front():
    one = Workload(
        height=512, width=512, calls=20, computed=(512, 512, None), additions=("LoRA rank 4",), guidance=False
    )
    assert one.key == Workload(height=512, width=512)
    assert one.key != Workload(height=512, width=512, prompt_tokens=300)
