"""Precision by component: what is cast, what is kept, what a search may choose, and that originals come back."""

from __future__ import annotations

import pytest
import torch

from autotune.guard import applying
from autotune.levers.base import Subject
from autotune.levers.precisions import precisions
from autotune.probe import catalog
from autotune.probe.gpu import cpu_device
from autotune.records.halves import HalfPrecision
from autotune.records.plan import Plan
from autotune.records.precision import Precision
from autotune.records.workload import Workload
from autotune.upstream import internals, port
from benchmarks.tiny import flux, sd

AMPERE, TURING, BLACK = (catalog.card(name) for name in ("RTX 3090", "Tesla T4", "GTX 1660"))
BLACK = BLACK.model_copy(update={"fp16_fails": True})
FACTS = {
    name: HalfPrecision(
        half="bfloat16", kept_fp32=("vae",), fp16=name, fp16_kept_fp32=("vae",), why=f"it {name}", source=""
    )
    for name in ("safe", "fails", "unknown")
}
MIXED = "bf16, vae=fp32"
SAFE = "fp16, vae=fp32"


def cast(pipe, dtype):
    for name, part in port.networks(pipe).items():
        part.to(getattr(torch, Precision(dtype).of(name)))
    return pipe


def found(pipe):
    return {name: next(part.parameters()).dtype for name, part in port.networks(pipe).items()}


def offered(pipe, device, **more):
    choice = precisions(Subject(pipe, device, Workload(), **more))
    return [str(one or "as it is") for one in choice.offered], [str(one) for one in choice.named]


@pytest.mark.parametrize("before", ["fp32", "fp16", "bf16", "bf16, vae=fp32"])
@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16, vae=fp32", "unet=fp16"])
def test_each_network_gets_its_precision_and_the_originals_come_back(before, wanted):
    pipe = cast(sd(), before)
    objects = {name: dict(part.named_parameters()) for name, part in port.networks(pipe).items()}
    bits = {name: {key: value.clone() for key, value in own.items()} for name, own in objects.items()}
    plan = Plan(dtype=wanted)
    applying.apply(pipe, plan, device=cpu_device(), workload=Workload())
    for name, dtype in found(pipe).items():
        kept = plan.dtype.of(name)
        assert dtype is (getattr(torch, Precision(before).of(name)) if kept == "as_is" else getattr(torch, kept)), name
    applying.restore(pipe)
    for name, part in port.networks(pipe).items():
        for key, parameter in part.named_parameters():
            assert parameter is objects[name][key]
            assert torch.equal(parameter, bits[name][key])


def test_what_a_class_wants_in_fp32_is_raised_too():
    pipe = cast(flux(), "bf16")
    patterns = internals.kept_in_fp32(pipe.text_encoder_2, torch.float16)
    assert patterns == ("wo",)
    applying.apply(pipe, Plan(dtype="fp16"), device=cpu_device(), workload=Workload())
    dtypes = {name.split(".")[-2]: weight.dtype for name, weight in pipe.text_encoder_2.named_parameters()}
    assert dtypes["wo"] is torch.float32
    assert dtypes["wi"] is torch.float16
    applying.restore(pipe)
    assert {weight.dtype for weight in pipe.text_encoder_2.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("before", "device", "more", "wanted", "named"),
    [
        # A card with bf16: fp32 is lowered to the half precision of documented use; half precision is the owner's choice.
        ("fp32", AMPERE, {"known": FACTS["unknown"]}, ["as it is", "bf16, VAE fp32"], []),
        ("fp32", AMPERE, {}, ["as it is", "bf16"], []),
        ("fp16", AMPERE, {"known": FACTS["safe"]}, ["as it is"], []),
        ("bf16", AMPERE, {"known": FACTS["fails"]}, ["as it is"], []),
        (MIXED, AMPERE, {"known": FACTS["fails"]}, ["as it is"], []),
        # Weights that are still to be loaded are loaded as documented.
        ("bf16", AMPERE, {"known": FACTS["unknown"], "unloaded": True}, ["as it is", "bf16, VAE fp32"], []),
        (MIXED, AMPERE, {"known": FACTS["unknown"], "unloaded": True}, ["as it is"], []),
        # A card without: fp16 where it is safe, fp32 always, any other fp16 only by name.
        ("bf16", TURING, {"known": FACTS["safe"]}, ["as it is", "fp16, VAE fp32", "fp32"], []),
        ("bf16", TURING, {"known": FACTS["fails"]}, ["as it is", "fp32"], ["fp16, VAE fp32"]),
        ("bf16", TURING, {"known": FACTS["unknown"]}, ["as it is", "fp32"], ["fp16, VAE fp32"]),
        ("bf16", TURING, {}, ["as it is", "fp32"], ["fp16"]),
        ("fp32", TURING, {"known": FACTS["safe"]}, ["as it is", "fp16, VAE fp32"], []),
        ("fp32", TURING, {"known": FACTS["fails"]}, ["as it is"], ["fp16, VAE fp32"]),
        # A card that computes fp16 wrongly gets none, not even what is in it already.
        ("fp16", BLACK, {"known": FACTS["safe"]}, ["fp32"], []),
        ("fp32", BLACK, {"known": FACTS["safe"]}, ["as it is"], []),
        ("bf16", BLACK, {"known": FACTS["safe"]}, ["as it is", "fp32"], []),
    ],
)
def test_what_a_search_may_choose(before, device, more, wanted, named):
    assert offered(cast(flux(), before), device, **more) == (wanted, named)


def test_a_unet_that_nobody_has_described_counts_as_safe():
    assert offered(sd(), TURING) == (["as it is", "fp16"], [])
    assert offered(sd(), BLACK) == (["as it is"], [])


def test_what_is_known_is_told():
    choice = precisions(Subject(cast(flux(), "bf16"), TURING, Workload(), known=FACTS["fails"]))
    assert choice.caution == "it fails"
    assert "Tesla T4 computes no bf16" in choice.reason
