"""Precision by component: every spelling, one written form, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune import Plan, PlanError
from autotune.records.precision import Precision, dtype_named

NAMES = st.sampled_from(["vae", "unet", "transformer", "text_encoder_2", "image_encoder"])
DTYPES = st.sampled_from(["float32", "float16", "bfloat16", "as_is"])
MAPPINGS = st.dictionaries(NAMES | st.just("default"), DTYPES, min_size=1)


@given(MAPPINGS)
def test_every_form_reads_back(named):
    precision = Precision(named)
    assert Precision(precision.written) == Precision(str(precision)) == Precision(precision) == precision
    assert hash(Precision(precision.written)) == hash(precision) == hash(precision.written)
    assert all(
        precision.of(name) == named.get(name, named.get("default", "as_is")) for name in ("vae", "unet", "other")
    )
    plan = Plan(dtype=named)
    assert Plan.model_validate_json(plan.model_dump_json()).precision == precision
    assert (plan.lane == "near") == bool(precision.dtypes & {"float16", "bfloat16"})


@pytest.mark.parametrize(
    ("given", "written", "shown"),
    [
        ("fp16", "float16", "fp16"),
        ("torch.bfloat16", "bfloat16", "bf16"),
        (" Half ", "float16", "fp16"),
        ("fp16, VAE fp32", "float16, vae=float32", "fp16, VAE fp32"),
        ("vae=fp32", "as_is, vae=float32", "VAE fp32"),
        ("UNet fp16, vae=FP32", "as_is, unet=float16, vae=float32", "UNet fp16, VAE fp32"),
        ({"default": "fp16", "vae": "fp16"}, "float16", "fp16"),
        ("as is", "as_is", "as it is"),
    ],
)
def test_spellings(given, written, shown):
    assert (Precision(given).written, str(Precision(given))) == (written, shown)


@pytest.mark.parametrize(
    "given", ["fp17", "", ",", "a=b=c", "fp16,fp32", "vae=fp16,VAE fp32", {}, {"a b!": "fp16"}, {"vae": 1}]
)
def test_refused(given):
    with pytest.raises(ValueError, match=r"precision|there are fp32|cannot name|twice"):
        Precision(given)
    with pytest.raises(PlanError, match="is not a valid value for this lever; there are fp32, fp16, bf16"):
        Plan(dtype=given)


def test_a_torch_dtype_is_one():
    import torch

    assert Plan(dtype=torch.float16).dtype == "float16"
    assert dtype_named(torch.bfloat16) == "bfloat16"
