"""Tokens are shared out among experts so that no prompt needs more memory; numbers that code wrote down are read back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from autotune.trace.borders import Borders
from autotune.trace.record import Recorder
from autotune.trace.routing import shared_out


@given(tokens=st.integers(1, 500), experts=st.integers(1, 64), data=st.data())
def test_every_choice_is_made_and_nobody_chooses_an_expert_twice(tokens, experts, data):
    each = data.draw(st.integers(1, experts))
    counts = shared_out(tokens * each, experts=experts, each=each)
    assert sum(counts) == tokens * each
    assert len(counts) == experts
    assert max(counts) == counts[0] == tokens
    assert max(counts[1:], default=0) - min(counts[1:], default=0) <= 1


def run(code):
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with recorder, Borders(recorder) as borders, mode:
        return code(), borders.made_up


def test_tokens_of_a_mixture_of_experts_are_counted():
    def gate():
        chosen = torch.topk(torch.rand(10, 4), k=2, dim=-1).indices
        return chosen.view(-1).bincount().cpu().numpy().tolist()

    assert run(gate) == ([10, 4, 3, 3], False)


def test_other_counts_are_still_unknown():
    with pytest.raises(DynamicOutputShapeException):
        run(lambda: torch.zeros(8, dtype=torch.long).bincount())


def test_sizes_that_are_written_into_a_tensor_are_read_back():
    def unpatchify():
        sizes = torch.tensor([3, 5]).unsqueeze(0).repeat(2, 1)
        (rows, columns), _ = sizes
        return torch.rand(2, 40, 4)[0, : rows * columns].reshape(1, rows, columns, -1).shape, sizes.tolist()

    assert run(unpatchify) == ((torch.Size([1, 3, 5, 4]), [[3, 5], [3, 5]]), False)


def test_what_was_written_over_is_not_known_any_more():
    def doubled():
        sizes = torch.tensor([3, 5])
        first = sizes[0]
        sizes.mul_(2)
        return first.item()

    assert run(doubled) == (0, True)
