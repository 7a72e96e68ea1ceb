"""Numbers that are written into a part of a tensor: how large the part is, and that nothing else is told."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autotune.records.trace import EventKind, OpClass
from autotune.trace.borders import Borders
from autotune.trace.fills import part_bytes
from autotune.trace.record import Recorder

SHAPE = (4, 5, 6)
plain = st.one_of(
    st.integers(-7, 7), st.just(Ellipsis), st.none(),
    st.builds(slice, *[st.one_of(st.none(), st.integers(-7, 7))] * 2, st.one_of(st.none(), st.integers(1, 3))),
)  # fmt: skip


@given(index=st.one_of(plain, st.lists(plain, max_size=5).map(tuple)))
def test_the_part_is_torchs_or_none(index):
    tensor = torch.zeros(SHAPE, dtype=torch.float16)
    try:
        expected = tensor[index].numel() * 2
    except (IndexError, TypeError, ValueError):
        expected = None
    found = part_bytes(tensor, index)
    assert found == expected or (found is None and isinstance(index, tuple) and index.count(Ellipsis) > 1)


@pytest.mark.parametrize(
    "index", [True, [0, 1], torch.tensor([0]), (0, torch.tensor(1)), slice(torch.tensor(0), None), "x"]
)
def test_other_indices_are_torchs_business(index):
    assert part_bytes(torch.zeros(SHAPE), index) is None


def test_a_row_is_one_kernel_and_no_tensor():
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), recorder, Borders(recorder), mode:
        mask = torch.zeros(100, 100)
        assert isinstance(mask, FakeTensor)
        before = len(recorder.tape.events)
        mask[3, :10] = 0
        mask[..., 5] = -1.5
        told = recorder.tape.events.since(before)
    assert told[:, 0].tolist() == [EventKind.OP, EventKind.OP]
    assert [op[0] for op in recorder.tape.ops[-2:]] == [OpClass.COPY, OpClass.COPY]
    assert [op[3] for op in recorder.tape.ops[-2:]] == [2 * 40, 2 * 400]


def test_values_that_are_known_are_written_too():
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), recorder, Borders(recorder) as borders, mode:
        sizes = torch.tensor([1, 2, 3])
        sizes[1] = 7
        known = borders.value_of(sizes)
    assert known.tolist() == [1, 7, 3]


def test_what_is_out_of_range_is_refused():
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), recorder, Borders(recorder), mode, pytest.raises(IndexError):
        torch.zeros(3)[5] = 1
