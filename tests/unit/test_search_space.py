"""The product of domains, and what a caller may fix in it."""

from __future__ import annotations

import pytest

from autotune.errors import PlanError
from autotune.search.space import Space

SPACE = Space(
    values={"dtype": (None, "float16"), "vae_tiling": (None, 512, 256), "offload": (None, "model")},
    reasons={"dtype": "fp32 weights"},
)


def test_every_plan_comes_once_under_its_own_name():
    plans = list(SPACE.plans())
    assert len(plans) == SPACE.size == 12
    assert [plan.id for plan in plans] == [f"p{n}" for n in range(12)]
    assert len({tuple(plan.values.items()) for plan in plans}) == 12
    assert plans[0].changes == {}


def test_a_fixed_lever_has_one_value():
    space = SPACE.restricted({"offload": "model", "vae_tiling": False})
    assert space.values == {"dtype": (None, "float16"), "vae_tiling": (False,), "offload": ("model",)}
    assert SPACE.size == 12


def test_a_fixed_value_need_not_be_offered():
    assert SPACE.restricted({"vae_tiling": 128}).values["vae_tiling"] == (128,)


def test_an_unknown_lever_is_refused():
    with pytest.raises(PlanError) as caught:
        SPACE.restricted({"vae_tilling": False})
    assert str(caught.value) == "no lever 'vae_tilling'; nearest: vae_tiling, vae_slicing, attention"
