"""The kernel that torch takes for an attention, and what that kernel allocates on the side."""

from __future__ import annotations

import pytest

from autotune.records.plan import Plan
from autotune.simulate.attention import attention_bytes, attention_flops, attention_use, kernel_of, temporary_bytes
from autotune.simulate.replay import Replayer
from tests.unit.handmade import CPU, attention, card, model, segment, trace

AMPERE, TURING, PASCAL = (8, 6), (7, 5), (6, 1)


@pytest.mark.parametrize(
    ("capability", "changes", "kernel"),
    [
        (AMPERE, {}, "flash"),
        (AMPERE, {"dtype": "bfloat16"}, "flash"),
        (AMPERE, {"head_dim": 256, "value_dim": 256}, "flash"),
        (AMPERE, {"head_dim": 12, "value_dim": 12}, "flash"),  # padded to 16
        ((9, 0), {}, "flash"),
        ((12, 0), {}, "flash"),
        (AMPERE, {"masked": True}, "efficient"),
        (AMPERE, {"head_dim": 512, "value_dim": 512}, "efficient"),  # the VAE's one head
        (AMPERE, {"value_dim": 32}, "efficient"),
        (AMPERE, {"dtype": "float32"}, "efficient"),
        (AMPERE, {"dtype": "float32", "head_dim": 12, "value_dim": 12}, "efficient"),
        (AMPERE, {"dtype": "float32", "head_dim": 6, "value_dim": 6}, "math"),
        (AMPERE, {"masked": True, "head_dim": 12, "value_dim": 12}, "math"),
        (TURING, {}, "efficient"),
        (TURING, {"head_dim": 40, "value_dim": 40}, "efficient"),
        (TURING, {"head_dim": 12, "value_dim": 12}, "math"),
        (TURING, {"dtype": "bfloat16"}, "math"),
        (TURING, {"dtype": "float32", "head_dim": 6, "value_dim": 6}, "efficient"),
        (PASCAL, {}, "efficient"),
        (PASCAL, {"head_dim": 6, "value_dim": 6}, "efficient"),  # no tensor cores, no alignment
        (PASCAL, {"dtype": "bfloat16"}, "math"),
        (AMPERE, {"dtype": "float64"}, "math"),
        ((3, 7), {}, "math"),
    ],
)
def test_kernel(capability, changes, kernel):
    assert kernel_of(attention(**changes), card(capability)) == kernel


def test_the_cpu_has_its_own_kernel():
    assert kernel_of(attention(), CPU) == "cpu"
    assert temporary_bytes(attention(), "cpu") == 0


@pytest.mark.parametrize(
    ("kernel", "changes", "size_bytes"),
    [
        ("flash", {"batch": 2, "heads": 8, "query_length": 4096, "head_dim": 40, "value_dim": 40}, 2 * 8 * 4096 * 4),
        ("flash", {"head_dim": 12, "value_dim": 12}, 16 * 4 + 4 * 16 * 16 * 2),  # q, k, v and output in 16
        ("efficient", {}, 0),
        ("efficient", {"value_dim": 128}, 0),
        ("efficient", {"query_length": 4096, "head_dim": 512, "value_dim": 512}, 4096 * 512 * 4),
        ("efficient", {"query_length": 4096, "head_dim": 512, "value_dim": 512, "dtype": "float32"}, 0),
        (
            "efficient",
            {"batch": 2, "heads": 10, "query_length": 4096, "key_length": 77, "masked": True},
            2 * 10 * 4096 * 80 * 2,
        ),
        ("efficient", {"query_length": 4096, "key_length": 80, "masked": True}, 0),
        ("math", {"dtype": "float32", "head_dim": 8, "value_dim": 8}, 13 * 16 * 16 + 2 * 16 * 8 * 4),
        ("math", {"head_dim": 8, "value_dim": 8}, 13 * 16 * 16 + 4 * 16 * 8 * 4),
    ],
)
def test_temporaries(kernel, changes, size_bytes):
    assert temporary_bytes(attention(**changes), kernel) == size_bytes


def test_flops_are_two_matrix_products():
    assert attention_flops(attention(heads=3, query_length=2, key_length=5, head_dim=8, value_dim=4)) == 2 * 30 * 12


def test_only_the_math_kernel_moves_scores():
    one = attention(batch=2, query_length=4, key_length=8, head_dim=16, value_dim=16)
    inputs = 2 * (4 + 8 + 8 + 4) * 16 * 2
    assert attention_bytes(one, "flash") == attention_bytes(one, "efficient") == inputs
    assert attention_bytes(one, "math") == inputs + 6 * 4 * 2 * 4 * 8


def called(*attentions, component="unet"):
    return trace(segment(turn=0, attentions=attentions, component=component), weights={component: 512})


LONG = {"query_length": 4096, "key_length": 4096}


@pytest.mark.parametrize(
    ("capability", "changes", "kernels", "why"),
    [
        (AMPERE, {"dtype": "bfloat16"}, ("flash",), ""),
        ((7, 0), {"dtype": "bfloat16"}, (), "no fused attention for bfloat16 before compute capability 8.0"),
        ((7, 0), {"dtype": "float16"}, ("efficient",), ""),
        ((7, 0), {"dtype": "float32"}, ("efficient",), ""),
        (PASCAL, {"dtype": "bfloat16"}, (), "no fused attention for bfloat16 before compute capability 8.0"),
        (AMPERE, {"dtype": "float64"}, (), "no fused attention for float64"),
        (AMPERE, {"dtype": "float32", "head_dim": 6, "value_dim": 6}, (), "no fused kernel for float32 heads of 6"),
        (
            AMPERE,
            {"masked": True, "head_dim": 12, "value_dim": 12},
            (),
            "no fused kernel for masked float16 heads of 12",
        ),
        ((3, 7), {}, (), "no fused attention before compute capability 5.0"),
    ],
)
def test_what_is_said_of_a_kernel_is_what_is_counted(capability, changes, kernels, why):
    one, device = attention(**LONG, **changes), card(capability)
    use = attention_use(called(one), device)
    assert (use.kernels, use.unfused) == (kernels, why)
    assert use.scores_bytes == (0 if kernels else temporary_bytes(one, kernel_of(one, device)))
    assert (use.scores_bytes >= 4 * 4096**2) is bool(why)


def test_the_kernels_with_most_arithmetic_come_first_and_the_largest_scores_count():
    use = attention_use(
        called(
            attention(dtype="float32"),
            attention(**LONG),
            attention(head_dim=512, value_dim=512, masked=True, **LONG),
            attention(dtype="float64"),
            attention(dtype="float64", **LONG),
            component="text_encoder",
        ),
        card(AMPERE),
    )
    assert use.kernels == ("efficient", "flash")
    assert use.scores_bytes == temporary_bytes(attention(dtype="float64", **LONG), "math")
    assert use.words.startswith(
        "fused (efficient, flash), but no fused attention for float64: scores of the text encoder take "
    )


def test_step_by_step_has_no_kernel_and_a_chosen_one_is_named():
    calls = {
        Plan(attention=value).execution: called(attention(**LONG))
        for value in (None, "sliced:max", "backend:_native_math")
    }
    replayer = Replayer(calls, model=model("unet"), device=card(AMPERE), steps=1, undo=False)
    fused, sliced, math = (
        replayer.estimate(Plan(attention=key)) for key in (None, "sliced:max", "backend:_native_math")
    )
    assert fused.attention.words == "fused (flash)"
    assert sliced.attention is None
    assert math.attention.unfused == "math attention was chosen"
    assert attention_use(called(), card(AMPERE)) is None
