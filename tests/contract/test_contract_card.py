"""What a card counted, beside today's predictions: a constant that fits it worse has to say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.gpu.again import again

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "h200_202611.json"
ALLOCATED, RESERVED, PROCESS = 0.01, 0.06, 0.05
"""Shares of what was counted."""


@pytest.mark.slow
def test_bytes_of_a_card_are_predicted():
    parts = [part for part in again(RESULTS)["parts"] if part.get("measured")]
    assert len(parts) > 20
    for part in parts:
        for call, counted in (
            (call, part["measured"][call]) for call in ("first", "steady") if call in part["measured"]
        ):
            for what, share in (("allocated", ALLOCATED), ("reserved", RESERVED), ("process", PROCESS)):
                predicted, measured = part["predicted"][call][f"{what}_bytes"], counted[f"{what}_bytes"]
                assert predicted == pytest.approx(measured, rel=share), (part["name"], call, what)
