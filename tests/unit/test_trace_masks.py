"""Indexing by masks: the same elements as with indices, and all of them where a mask has no values."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autotune.trace.borders import Borders
from autotune.trace.masks import nonzero, without_masks
from autotune.trace.record import Recorder

VALUES = torch.arange(24).reshape(2, 3, 4)
ROW = torch.tensor([True, False, True])
PAIR = torch.tensor([[True, False, True], [False, False, True]])


@pytest.mark.parametrize(
    "index",
    [PAIR, (slice(None), ROW), (0, ROW), (0, ROW, slice(1, 3)), (PAIR, 2), (..., torch.tensor([0, 1])), 1, (1, None)],
    ids=str,
)
def test_indices_select_what_masks_select(index):
    assert torch.equal(VALUES[without_masks(index)], VALUES[index])


def test_what_holds_no_mask_stays_as_it_is():
    index = (0, torch.tensor([0, 2]))
    assert without_masks(index) is index


def test_a_mask_without_values_selects_everything():
    with FakeTensorMode(allow_non_fake_inputs=True):
        mask = torch.zeros(2, 3, dtype=torch.bool)
        assert nonzero(mask).shape == (6, 2)


def test_fakes_are_indexed_by_real_and_fake_masks():
    recorder = Recorder()
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        values, mask = torch.zeros(2, 3, 4), torch.zeros(3, dtype=torch.bool)
    with recorder, Borders(recorder):
        assert values[PAIR].shape == (3, 4)
        assert values[:, ROW].shape == (2, 2, 4)
        with mode:
            assert values[:, mask].shape == (2, 3, 4)
            assert torch.nonzero(mask, as_tuple=False).shape == (3, 1)
