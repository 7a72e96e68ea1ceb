"""The public names and their signatures, frozen: a change here is a change for users."""

from __future__ import annotations

import ast
import inspect
import re
from itertools import pairwise

import pytest

import autotune
from autotune.records.base import Record

NAMES = {
    "AutotuneError",
    "BadSizeError",
    "DoesNotFitError",
    "Explanation",
    "Front",
    "NoAcceleratorError",
    "PipelineError",
    "Plan",
    "PlanError",
    "UnknownGpuError",
    "Workload",
    "WorkloadError",
    "apply",
    "explain",
    "explore",
    "optimize",
    "plan",
    "restore",
}

ADDED = [
    "loaded_as=None",
    "controlnets=()",
    "lora_rank=None",
    "ip_adapter=None",
    "torch_version=None",
    "allocator=None",
]
"""What is said of a named model and of a machine that is not here."""
SIGNATURES = {
    "optimize": [
        "pipe",
        "*",
        "max_vram=None",
        "max_ram=None",
        "workload=None",
        "example=None",
        "calls=1",
        "quality='near'",
        "allow=()",
        "keep=None",
        "forbid=()",
        "objective='latency'",
        "plan=None",
        "device=None",
        "profiles=None",
        "undo=True",
        "on_change='replan'",
        "verbose=True",
    ],
    "apply": ["pipe", "plan", "*", "device=None", "workload=None", "undo=True", "on_change='tell'"],
    "plan": [
        "pipe_or_model",
        "*",
        "gpu=None",
        "ram=None",
        "max_vram=None",
        "max_ram=None",
        "workload=None",
        "example=None",
        "calls=1",
        "quality='near'",
        "allow=()",
        "keep=None",
        "forbid=()",
        "objective='latency'",
        "device=None",
        "profiles=None",
        "undo=True",
        *ADDED,
    ],
    "explore": [
        "pipe_or_model",
        "*",
        "gpu=None",
        "ram=None",
        "workload=None",
        "example=None",
        "calls=1",
        "allow=()",
        "keep=None",
        "forbid=()",
        "device=None",
        "profiles=None",
        "undo=True",
        *ADDED,
    ],
    "explain": [
        "pipe_or_model",
        "*",
        "gpu=None",
        "ram=None",
        "max_vram=None",
        "workload=None",
        "example=None",
        "device=None",
        *ADDED,
    ],
    "restore": ["pipe"],
}

CLASSES = sorted(name for name in NAMES if name[0].isupper())
RECORDS = sorted(name for name in CLASSES if issubclass(getattr(autotune, name), Record))
FIRST_SENTENCE = re.compile(r"[A-Z`].*[.:]$", re.DOTALL)


def written(function) -> list[str]:
    """The parameters as in the source, without annotations."""
    parameters = inspect.signature(function).parameters.values()
    bare = inspect.Signature([parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters])
    return str(bare)[1:-1].split(", ")


def test_public_names():
    assert set(autotune.__all__) == NAMES
    assert {*NAMES, "__version__"} == set(dir(autotune))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_is_what_it_says(name):
    assert getattr(autotune, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'autotune' has no attribute 'optimise'"):
        autotune.optimise  # noqa: B018


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_signature(name):
    assert written(getattr(autotune, name)) == SIGNATURES[name]


def test_every_function_is_frozen():
    assert set(SIGNATURES) == NAMES - set(CLASSES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_docstring_begins_with_a_sentence(name):
    doc = inspect.getdoc(getattr(autotune, name)) or ""
    assert FIRST_SENTENCE.fullmatch(doc.split("\n\n")[0]), doc


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_function_has_an_example(name):
    assert ">>> import autotune" in inspect.getdoc(getattr(autotune, name))


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_function_explains_its_arguments_or_says_where_they_are_explained(name):
    function = getattr(autotune, name)
    doc = inspect.getdoc(function)
    said = set(re.findall(r"^    (\w+): ", doc, re.MULTILINE))
    few = len(inspect.signature(function).parameters) < len(SIGNATURES["plan"]) / 2
    assert said or few or re.search(r"arguments are those of `(plan|optimize)`", doc)


def test_optimize_and_plan_explain_every_argument_between_them():
    said = [
        set(re.findall(r"^    (\w+): ", inspect.getdoc(getattr(autotune, name)), re.MULTILINE))
        for name in ("optimize", "plan")
    ]
    asked = [set(inspect.signature(getattr(autotune, name)).parameters) for name in ("optimize", "plan")]
    assert asked[0] <= said[0]
    assert asked[1] <= said[0] | said[1]


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_has_a_docstring(name):
    record = getattr(autotune, name)
    body = ast.parse(inspect.getsource(record)).body[0].body
    said = {line.target.id for line, after in pairwise(body) if isinstance(line, ast.AnnAssign) and is_text(after)}
    assert set(record.model_fields) - said == set()


def is_text(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
