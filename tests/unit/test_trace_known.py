"""Numbers that code writes into tensors are read back, and shapes that depend on them are the real ones."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from autotune.records.trace import EventKind
from autotune.trace.borders import Borders
from autotune.trace.record import Recorder


def run(code):
    """What the code gives inside a component, and whether a number was made up for it."""
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with recorder, Borders(recorder) as borders, mode:
        return code(), borders.made_up


def both(code):
    """The same of real tensors and of fakes; the latter made nothing up."""
    found, made_up = run(code)
    assert not made_up
    return code(), found


def unpatchify():
    sizes = torch.tensor([3, 5]).unsqueeze(0).repeat(2, 1)
    (rows, columns), _ = sizes
    return torch.rand(2, 40, 4)[0, : rows * columns].reshape(1, rows, columns, -1).shape, sizes.tolist()


def lengths():
    """Lengths of sequences as vision encoders of language models work them out."""
    grid = torch.tensor([[2, 4, 6], [1, 8, 2]])
    repeated = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
    return torch.nn.functional.pad(repeated.cumsum(0, dtype=torch.int32), (1, 0)).tolist()


def windows():
    index = torch.nn.functional.pad(torch.arange(12).reshape(3, 4), (0, 1, 0, 2), value=-100)
    ends = torch.cat([torch.tensor([0]), (index != -100).sum(1).cumsum(0)])
    chosen = index[index != -100]
    return torch.rand(12, 2)[chosen].shape, torch.unique_consecutive(torch.tensor(ends.tolist())).tolist()


def masked():
    """A known mask selects as many of what is not known."""
    return torch.rand(6, 2)[torch.arange(6) % 3 == 0].shape, torch.arange(torch.tensor([4, 3]).sum()).tolist()


def written_over():
    sizes = torch.tensor([3, 5, 7])
    first = sizes[0]
    sizes.mul_(2)
    sizes[1:] += torch.arange(2)
    return first.item(), sizes.tolist()


TABLE = torch.linspace(0.0, 1.0, 8)


def looked_up():
    """A scheduler's table, which is real, at steps that its code has written into a tensor (ConsistencyDecoderVAE)."""
    steps = torch.tensor([3, 1])
    places = [torch.where(steps == step)[0].tolist() for step in steps]
    return [TABLE[step].shape for step in steps], places, TABLE[steps[0] : 6].shape


@pytest.mark.parametrize(
    "code", [unpatchify, lengths, windows, masked, written_over, looked_up], ids=lambda code: code.__name__
)
def test_what_is_known_is_what_real_tensors_say(code):
    real, found = both(code)
    assert found == real


@pytest.mark.parametrize(
    "write", [torch.Tensor.mul_, lambda sizes, by: sizes.__setitem__(0, by[0])], ids=["mul_", "[]"]
)
def test_what_nobody_knows_is_forgotten_with_its_views(write):
    def code():
        sizes = torch.tensor([3, 5])
        first = sizes[0]
        write(sizes, torch.rand(2).long())
        return first.item()

    assert run(code) == (0, True)


def test_shapes_that_depend_on_unknown_numbers_are_refused():
    with pytest.raises(DynamicOutputShapeException):
        run(lambda: torch.arange(4).repeat_interleave(torch.rand(4).long()))


def test_what_is_worked_out_beside_the_fakes_is_not_recorded():
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with recorder, Borders(recorder), mode:
        fake = torch.arange(1000).repeat(2)
        born = [size for kind, _, size in recorder.tape.events if kind == EventKind.ALLOC]
        assert len(fake) == 2000
    assert sum(born) == 8 * 3000
