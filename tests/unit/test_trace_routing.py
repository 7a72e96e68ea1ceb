"""Tokens are shared out among experts so that no prompt needs more memory."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from autotune.trace.borders import Borders
from autotune.trace.record import Recorder
from autotune.trace.routing import Routing, shared_out


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


def test_for_a_proof_all_tokens_go_to_the_same_experts():
    def gate(tokens):
        return torch.topk(torch.rand(tokens, 4), k=2, dim=-1).indices.flatten().bincount().tolist()

    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with recorder, Borders(recorder, routing=Routing(all_to_few=True)), mode:
        assert [gate(10), gate(35)] == [[10, 10, 0, 0], [35, 35, 0, 0]]
