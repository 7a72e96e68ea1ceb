"""Channels-last networks on a card and on the CPU: who copies, and into which order."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autotune.records.trace import EventKind, OpClass
from autotune.trace.record import Recorder

BATCH, CHANNELS, EDGE = 2, 8, 16
IMAGE_BYTES = 4 * BATCH * CHANNELS * EDGE**2


def recorded(*, on_card, nhwc):
    """A convolution, a group norm and a convolution: the operators, and the sizes that came and went."""
    order = torch.channels_last if nhwc else torch.contiguous_format
    recorder = Recorder(on_card=on_card)
    with torch.no_grad(), recorder, FakeTensorMode(allow_non_fake_inputs=True):
        recorder.begin()
        weight = torch.empty(CHANNELS, CHANNELS, 3, 3).contiguous(memory_format=order)
        image = torch.empty(BATCH, CHANNELS, EDGE, EDGE).contiguous(memory_format=order)
        tape = recorder.tape
        image = torch.nn.functional.conv2d(image, weight, padding=1)
        before = len(tape.events)
        normed = torch.nn.functional.group_norm(image, 2)
        within = [(kind, size) for kind, _, size in tape.events[before:] if size >= IMAGE_BYTES]
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
    copied = (0, 0, 0) if nhwc else (IMAGE_BYTES, IMAGE_BYTES, 4 * CHANNELS**2 * 9)
    assert convolutions == [(OpClass.CONV_NHWC if nhwc else OpClass.CONV, copied)] * 2
