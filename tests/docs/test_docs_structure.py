"""Every lever has all its facets, and no file outgrows a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.cli.levers import lever_descriptions
from autotune.levers.engine import ORDER
from autotune.records.plan import EXECUTION_LEVERS, LEVERS, Plan
from autotune.simulate.replay import ACCOUNTED

ROOT = Path(__file__).parents[2]
MOST_LINES = 400
SOURCES = sorted(
    path.relative_to(ROOT) for folder in ("autotune", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)


def lever(name):
    return next((lever for lever in ORDER if lever.name == name), None)


def documented_row(name):
    return f"| `{name}` | {' | '.join(lever(name).summary)} |"


def test_there_are_sources():
    assert Path("autotune/api.py") in SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_length(path):
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_module_docstring(path):
    assert (ROOT / path).read_text(encoding="utf-8").startswith('"""')


def test_levers_are_the_fields_of_a_plan():
    assert set(LEVERS) == set(Plan.model_fields) - {"id", "reasons"}


def test_the_engine_applies_each_lever_once():
    assert sorted(lever.name for lever in ORDER) == sorted(LEVERS)


@pytest.mark.parametrize("name", LEVERS)
def test_plan_field_has_a_docstring(name):
    assert lever_descriptions()[name].endswith(".")


@pytest.mark.parametrize("name", LEVERS)
def test_a_replay_accounts_for_the_lever(name):
    assert ACCOUNTED[name]


def test_nothing_else_is_accounted_for():
    assert set(ACCOUNTED) == set(LEVERS)


@pytest.mark.parametrize("name", LEVERS)
def test_lever_has_a_class_docstring_and_a_summary(name):
    assert type(lever(name)).__doc__
    assert len(lever(name).summary) == 3
    assert all(lever(name).summary)


@pytest.mark.parametrize("name", LEVERS)
def test_the_page_of_levers_has_its_row(name):
    rows = (ROOT / "docs" / "levers.md").read_text(encoding="utf-8").splitlines()
    assert documented_row(name) in rows


def test_levers_that_change_what_is_executed_are_levers():
    assert set(EXECUTION_LEVERS) < set(LEVERS)
