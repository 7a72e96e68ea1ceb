"""Every example in every docstring runs and gives what it says."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import autotune
from benchmarks import tiny

MODULES = sorted(["autotune", *(module.name for module in pkgutil.walk_packages(autotune.__path__, "autotune."))])


def examples_of(name):
    """The doctests of a module. `demo_pipeline()` builds a small Stable Diffusion anew each time it is called."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    module = import_module(name)
    return [test for test in finder.find(module, name, extraglobs={"demo_pipeline": tiny.sd}) if test.examples]


def failures_of(test):
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in examples_of(name):
        assert failures_of(test) == ""


def test_the_main_calls_have_examples():
    found = {test.name for test in examples_of("autotune.api")}
    assert {f"autotune.api.{name}" for name in ("optimize", "apply", "plan", "explore", "explain", "restore")} <= found


def test_a_wrong_example_is_noticed():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert "Got:\n    2" in failures_of(wrong)
