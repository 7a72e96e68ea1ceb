"""Memory beside tensors, by card."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.simulate.margins import margin_bytes
from autotune.simulate.workspace import (
    bare_context_bytes,
    context_bytes,
    conv_workspace_bytes,
    cublas_bytes,
)
from autotune.units import GIB, MIB
from tests.unit.handmade import CARD, CPU, card


@pytest.mark.parametrize(
    ("capability", "context_mib", "cublas_kib"),
    [
        ((6, 1), 396, 8320),
        ((7, 5), 396, 8320),
        ((8, 6), 396, 8320),
        ((8, 9), 396, 8320),
        ((9, 0), 772, 32768),
        ((12, 0), 772, 32768),
    ],
)
def test_context_and_cublas(capability, context_mib, cublas_kib):
    assert context_bytes(card(capability)) == context_mib * MIB
    kernels_mib = 254 if capability >= (9, 0) else 96  # they are loaded as they are used
    assert bare_context_bytes(card(capability)) == (context_mib - kernels_mib) * MIB
    assert cublas_bytes(card(capability)) == cublas_kib * 1024


def test_the_cpu_has_none_of_it():
    assert context_bytes(CPU) == bare_context_bytes(CPU) == cublas_bytes(CPU) == 0
    assert conv_workspace_bytes(CPU, "float32", np.array([[100, 200, 30]])).tolist() == [0]
    assert margin_bytes(CPU, "none", 10**9) == 30_000_000


@pytest.mark.parametrize(
    ("capability", "dtype", "wanted"),
    [
        ((8, 0), "float16", 100 + 200 + 30),
        ((9, 0), "bfloat16", 100 + 200 + 30),
        ((7, 5), "float16", 100 + 200 + 30),
        ((7, 0), "float16", 200 + 30),
        ((8, 0), "float32", 200 + 30),
        ((9, 0), "float32", 100 + 200 + 30),
        ((6, 1), "float16", 2 * (100 + 200) + 225),
        ((6, 1), "float32", 0),
    ],
)
def test_convolutions_copy_their_operands(capability, dtype, wanted):
    assert conv_workspace_bytes(card(capability), dtype, np.array([[100, 200, 30]])).tolist() == [wanted]


def test_beside_large_tf32_convolutions_hopper_holds_a_little_more():
    sizes = np.array([[GIB // 2, GIB // 2 - 1, 10], [GIB // 2, GIB // 2, 10]])
    assert conv_workspace_bytes(card((9, 0)), "float32", sizes).tolist() == [GIB + 9, GIB + 10 + 16 * MIB]
    assert conv_workspace_bytes(card((9, 0)), "float16", sizes).tolist() == [GIB + 9, GIB + 10]


def test_the_margin_grows_with_what_it_stands_for():
    assert margin_bytes(CARD, "model", 10**9) == 64 * MIB + 30_000_000
