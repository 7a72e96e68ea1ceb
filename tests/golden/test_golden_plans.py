"""The plans that are chosen for well-known models and caps. `AUTOTUNE_ACCEPT=1 pytest tests/golden` writes them anew.

Only levers are kept, no numbers: a change here is a change of what people get.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import autotune

GOLDEN = Path(__file__).with_name("plans.json")
GPU = "NVIDIA GeForce RTX 3060 12GB"
CAPS = ("2GB", "4GB", "6GB", "8GB", "12GB")
LANES = ("exact", "near")


def plans_of(model):
    front = autotune.explore(model, gpu=GPU, profiles=False)
    best = {(cap, lane): front.best(max_vram=cap, quality=lane) for cap in CAPS for lane in LANES}
    return {
        f"{cap} {lane}": "does not fit"
        if candidate is None
        else json.loads(json.dumps(candidate.plan.changes, default=str))
        for (cap, lane), candidate in best.items()
    }


@pytest.mark.parametrize("model", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow), "flux-dev"])
def test_the_plans_are_the_accepted_ones(model):
    found = plans_of(model)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("AUTOTUNE_ACCEPT"):
        GOLDEN.write_text(json.dumps({**golden, model: found}, indent=2) + "\n")
        return
    assert found == golden[model]
