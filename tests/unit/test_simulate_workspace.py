"""Memory beside tensors, by card."""

from __future__ import annotations

import pytest

from autotune.simulate.workspace import (
    context_bytes,
    conv_workspace_share,
    cublas_bytes,
    margin_bytes,
    slack_bytes,
)
from autotune.units import MIB
from tests.unit.handmade import CARD, CPU, card


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
    assert cublas_bytes(card(capability)) == cublas_kib * 1024


def test_the_cpu_has_none_of_it():
    assert context_bytes(CPU) == cublas_bytes(CPU) == slack_bytes(CPU, 10**9) == 0
    assert conv_workspace_share(CPU, "float32") == 0.0
    assert margin_bytes(CPU, 10**9) == 30_000_000


def test_convolutions_copy_more_in_half_precision():
    assert conv_workspace_share(CARD, "float16") == conv_workspace_share(CARD, "bfloat16") == 1.0
    assert conv_workspace_share(CARD, "float32") == 0.5


def test_slack_and_margin_grow_with_what_they_stand_for():
    assert slack_bytes(CARD, 0) == 20 * MIB
    assert slack_bytes(CARD, 10**9) == 20 * MIB + 200_000_000
    assert margin_bytes(CARD, 10**9) == 64 * MIB + 30_000_000
