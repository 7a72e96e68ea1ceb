"""Channels-last networks on a card and on the CPU: who copies, and into which order."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autotune.records.trace import EventKind, OpClass
from autotune.trace.record import Recorder

CHANNELS, EDGE = 8, 16
IMAGE_BYTES = 4 * CHANNELS * EDGE**2
WEIGHT_BYTES = 4 * CHANNELS**2 * 9


def recorded(*, on_card, nhwc, batch=1, viewed=False):
    """A convolution, a group norm and a convolution: the operators, and the sizes that came and went, in images.

    `viewed` has the first of them see tokens as an image, as after a VAE's attention.
    """
    order = torch.channels_last if nhwc else torch.contiguous_format
    recorder = Recorder(on_card=on_card)
    with torch.no_grad(), recorder, FakeTensorMode(allow_non_fake_inputs=True):
        recorder.begin()
        weight = torch.empty(CHANNELS, CHANNELS, 3, 3).contiguous(memory_format=order)
        image = torch.empty(batch, CHANNELS, EDGE, EDGE).contiguous(memory_format=order)
        if viewed:
            image = torch.empty(batch, EDGE**2, CHANNELS).mT.reshape(batch, CHANNELS, EDGE, EDGE)
        tape = recorder.tape
        image = torch.nn.functional.conv2d(image, weight, padding=1)
        before = len(tape.events)
        normed = torch.nn.functional.group_norm(image, 2)
        within = [(kind, size // batch) for kind, _, size in tape.events.since(before).tolist() if size >= IMAGE_BYTES]
        torch.nn.functional.conv2d(normed, weight, padding=1)
    convolutions = [row for row in tape.ops if row[0] in {OpClass.CONV, OpClass.CONV_NHWC}]
    return within, [(OpClass(op_class), conv_bytes) for op_class, *_, conv_bytes in convolutions]


def test_on_a_card_a_group_norm_copies_channels_last_and_the_next_convolution_copies_back():
    within, (first, second) = recorded(on_card=True, nhwc=True)
    assert within == [(EventKind.ALLOC, IMAGE_BYTES), (EventKind.ALLOC, IMAGE_BYTES), (EventKind.FREE, IMAGE_BYTES)]
    assert first == (OpClass.CONV_NHWC, (0, 0, 0))
    assert second == (OpClass.CONV_NHWC, (IMAGE_BYTES, 0, 0))


@pytest.mark.parametrize(("on_card", "nhwc"), [(False, True), (True, False), (False, False)])
def test_elsewhere_the_order_is_kept(on_card, nhwc):
    within, convolutions = recorded(on_card=on_card, nhwc=nhwc)
    assert within == [(EventKind.ALLOC, IMAGE_BYTES)]
    copied = (0, 0, 0) if nhwc else (IMAGE_BYTES, IMAGE_BYTES, WEIGHT_BYTES)
    assert convolutions == [(OpClass.CONV_NHWC if nhwc else OpClass.CONV, copied)] * 2


@pytest.mark.parametrize("batch", [1, 2])
def test_a_view_of_several_samples_is_channels_last_on_a_card_and_one_of_one_is_not(batch):
    within, (first, second) = recorded(on_card=True, nhwc=False, batch=batch, viewed=True)
    copies = (batch * IMAGE_BYTES, batch * IMAGE_BYTES, WEIGHT_BYTES)
    if batch == 1:
        assert first == (OpClass.CONV, copies)
        assert within == [(EventKind.ALLOC, IMAGE_BYTES)]
    else:
        assert first == (OpClass.CONV_NHWC, (0, 0, WEIGHT_BYTES))
        assert [kind for kind, _ in within] == [EventKind.ALLOC, EventKind.ALLOC, EventKind.FREE]
        assert second == (OpClass.CONV, copies)
