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

PLANE = np.array([False])


@pytest.mark.parametrize(
    ("capability", "context_mib", "cublas_kib"),
    [
        ((6, 1), 396, 8320),
        ((7, 5), 396, 8320),
        ((8, 6), 396, 8320),
        ((8, 9), 396, 8320),
        ((9, 0), 544, 32768),
        ((12, 0), 544, 32768),
    ],
)
def test_context_and_cublas(capability, context_mib, cublas_kib):
    assert context_bytes(card(capability)) == context_mib * MIB
    assert bare_context_bytes(card(capability)) == (context_mib - 96) * MIB  # kernels are loaded as they are used
    assert cublas_bytes(card(capability)) == cublas_kib * 1024


def test_the_cpu_has_none_of_it():
    assert context_bytes(CPU) == bare_context_bytes(CPU) == cublas_bytes(CPU) == 0
    assert conv_workspace_bytes(CPU, "float32", np.array([[100, 200, 30]]), is_3d=PLANE).tolist() == [0]
    assert margin_bytes(CPU, "none", 10**9) == 30_000_000


@pytest.mark.parametrize(
    ("capability", "dtype", "wanted"),
    [
        ((8, 0), "float16", 100 + 200 + 30),
        ((9, 0), "bfloat16", 100 + 200 + 30),
        ((7, 5), "float16", 100 + 200 + 30),
        ((7, 0), "float16", 200 + 30),
        ((8, 0), "float32", 200 + 30),
        ((6, 1), "float16", 2 * (100 + 200) + 225),
        ((6, 1), "float32", 0),
    ],
)
def test_convolutions_copy_their_operands(capability, dtype, wanted):
    assert conv_workspace_bytes(card(capability), dtype, np.array([[100, 200, 30]]), is_3d=PLANE).tolist() == [wanted]


def test_a_workspace_of_four_gib_is_passed_over_in_two_dimensions():
    sizes = np.array([[2 * GIB, 2 * GIB - 1, 0], [2 * GIB, 2 * GIB, 0]])
    planes, volumes = np.array([False, False]), np.array([True, True])
    assert conv_workspace_bytes(CARD, "float16", sizes, is_3d=planes).tolist() == [4 * GIB - 1, 2 * GIB]
    assert conv_workspace_bytes(CARD, "float16", sizes, is_3d=volumes).tolist() == [4 * GIB - 1, 4 * GIB]


def test_the_margin_grows_with_what_it_stands_for():
    assert margin_bytes(CARD, "model", 10**9) == 64 * MIB + 30_000_000
