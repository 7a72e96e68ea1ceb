"""The card's call: the same workload, and so the same profile, whether the model is built or only looked up."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from autotune.probe.workload import resolve_workload
from autotune.records.workload import Workload, with_defaults
from autotune.zoo.build import build
from autotune.zoo.card_call import card_call
from autotune.zoo.recipes import find, names


@pytest.mark.parametrize("name", names())
def test_looking_it_up_resolves_what_building_it_does(name):
    recipe = find(name)
    if missing := [package for package in recipe.requires if find_spec(package) is None]:
        pytest.skip(f"{name} needs {', '.join(missing)}")
    usual = card_call(recipe)
    pipe = build(recipe)
    for said in (Workload(), Workload(steps=3, batch=2)):
        assert resolve_workload(pipe, said, defaults=usual).key == with_defaults(said, usual).key
