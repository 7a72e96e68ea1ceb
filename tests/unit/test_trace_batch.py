"""Which denoisers may have their batch split: the proof on small modules that do, and do not, look across samples."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU
from torch._subclasses.fake_tensor import FakeTensorMode

from autotune.trace.batch import mixing
from autotune.trace.borders import Borders
from autotune.trace.record import Recorder
from autotune.trace.routing import Routing

CHANNELS = 3


class Halves(torch.nn.Module):
    """Guidance inside the network: what perturbed attention does."""

    def forward(self, x):
        one, other = x.chunk(2)
        return torch.cat([one * 2, other])


class First(torch.nn.Module):
    """Every sample attends to the first one."""

    def forward(self, x):
        return torch.nn.functional.scaled_dot_product_attention(x, x[:1].expand_as(x), x)


class FirstAlone(torch.nn.Module):
    def forward(self, x):
        return x + x[:1]


class Sum(torch.nn.Module):
    def forward(self, x):
        return x - x.sum(0)


class Mean(torch.nn.Module):
    def forward(self, x):
        return x - x.mean(dim=(0, 2), keepdim=True)


class OneByOne(torch.nn.Module):
    """A tensor for each sample: what is done with them is not looked at."""

    def forward(self, x):
        return torch.cat(x.unbind())


class Folded(torch.nn.Module):
    """The batch in another axis, and back: as attention heads are."""

    def forward(self, x):
        return torch.bmm(x.reshape(-1, 1, x.shape[2]), x.reshape(-1, x.shape[2], 1)).reshape(x.shape[0], -1)


class ByBatch(torch.nn.Module):
    """Another kernel for large batches."""

    def forward(self, x):
        return x.exp() if x.shape[0] > 4 else x.sin()


class Limited(torch.nn.Module):
    def forward(self, x):
        if x.shape[0] > 4:
            raise NotImplementedError("no more than 4 at a time\nsecond line")
        return x


class Constant(torch.nn.Module):
    """One embedding for all samples, and one that knows nothing of them."""

    def __init__(self):
        super().__init__()
        self.frequencies = torch.nn.Parameter(torch.ones(1, CHANNELS, 1))

    def forward(self, x):
        steps = torch.arange(5) * self.frequencies
        return x * self.frequencies + steps.sum()


def proof(model, batch=2, *, fake=True):
    """The proof of a module that takes `(batch, channels, length)`, on fakes as in a trace or on real tensors."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def run(samples):
        if not fake:
            return model(torch.ones(samples, CHANNELS, 4))
        with mode:
            return model(torch.empty(samples, CHANNELS, 4))

    with torch.no_grad():
        return mixing(run, batch)


def layers(*modules):
    return torch.nn.Sequential(*modules).eval()


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize(
    "model",
    [
        layers(torch.nn.Conv1d(CHANNELS, 6, 3), torch.nn.GroupNorm(2, 6), torch.nn.SiLU()),
        layers(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8)),
        layers(torch.nn.BatchNorm1d(CHANNELS)),
        Folded(),
        Constant(),
    ],
    ids=["convolution", "linear", "batch norm that is trained", "folded", "constants"],
)
def test_samples_that_never_meet(model, fake):
    assert proof(model, fake=fake) == ""


def test_experts_see_each_token_by_itself():
    """How many tokens each expert gets is a number that fakes do not have (`routing.py`)."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        experts = MOEFeedForwardSwiGLU(16, 32, num_routed_experts=4, num_activated_experts=2).eval()

    def run(samples):
        with Borders(Recorder(), routing=Routing(all_to_few=True)), mode:
            experts(torch.empty(samples, 9, 16))

    with torch.no_grad():
        assert mixing(run) == ""


@pytest.mark.parametrize("fake", [True, False])
@pytest.mark.parametrize(
    ("model", "operator"),
    [
        (Halves(), "aten.split.Tensor"),
        (First(), ""),
        (FirstAlone(), "aten.slice.Tensor"),
        (Sum(), "aten.sum.dim_IntList"),
        (Mean(), "aten.mean.dim"),
        (torch.nn.BatchNorm1d(CHANNELS).train(), "aten.native_batch_norm.default"),
        (torch.nn.BatchNorm1d(CHANNELS, track_running_stats=False), ""),
    ],
    ids=[
        "halves",
        "attended first",
        "first",
        "sum",
        "mean",
        "batch norm in training",
        "batch norm without statistics",
    ],
)
def test_samples_that_meet(model, operator, fake):
    why = proof(model, fake=fake)
    assert why.endswith(" looks across samples")
    assert why.startswith(operator)


@pytest.mark.parametrize("batch", [2, 3, 4, 6, 8, 12])
def test_a_part_of_any_batch_is_found(batch):
    """Parts that the batch's own size divides by are the ones that a pipeline can make."""
    for parts in (part for part in range(2, batch + 1) if batch % part == 0):

        class Parts(torch.nn.Module):
            def forward(self, x, parts=parts):
                return torch.cat([part * 2 for part in x.chunk(parts)])

        assert proof(Parts(), batch) != "", parts


def test_a_tensor_for_each_sample_is_refused():
    assert proof(OneByOne(), fake=False) == "aten.unbind.int looks across samples"
    assert proof(OneByOne()) == "it takes other operators with 7 samples than with 2"  # fakes are joined one by one


def test_a_model_that_takes_no_other_batch():
    assert proof(Limited()) == "it does not run with 7 samples (NotImplementedError: no more than 4 at a time)"


def test_an_error_without_words():
    def run(samples):
        raise KeyError

    assert mixing(run) == "it does not run with 2 samples (KeyError: no message)"


def test_a_model_that_takes_other_operators():
    assert proof(ByBatch()) == "it takes other operators with 7 samples than with 2"


def test_an_interruption_is_no_answer():
    def run(samples):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixing(run)
