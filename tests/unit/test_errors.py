"""The family of errors, and the nearest name."""

from __future__ import annotations

import pytest

import autotune
from autotune import errors
from autotune.errors import DoesNotFitError, nearest

BASES = {
    "BadSizeError": ValueError,
    "DoesNotFitError": Exception,
    "UnknownGpuError": LookupError,
    "NoAcceleratorError": RuntimeError,
    "PipelineError": TypeError,
    "WorkloadError": ValueError,
    "PlanError": ValueError,
}


@pytest.mark.parametrize(("name", "base"), BASES.items())
def test_each_is_ours_and_of_a_kind_people_know(name, base):
    error = getattr(errors, name)
    assert issubclass(error, errors.AutotuneError)
    assert issubclass(error, base)
    assert getattr(autotune, name) is error


def test_these_are_all():
    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert raised == {"AutotuneError", *BASES} <= set(errors.__all__)


def test_what_does_not_fit_says_what_would():
    error = DoesNotFitError("no", smallest_bytes=7, phase="decoding")
    assert (str(error), error.smallest_bytes, error.phase) == ("no", 7, "decoding")


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("hieght", ["height", "width"], "height"),
        ("HEIGHT", ["height", "width"], "height"),
        ("xyz", ["width", "height", "depth", "area"], "area, depth, height"),
        ("vae", ["vae_tiling", "vae_slicing"], "vae_tiling, vae_slicing"),
        ("anything", [], ""),
    ],
)
def test_nearest(name, known, found):
    assert nearest(name, known) == found


def test_nearest_may_be_one():
    assert nearest("vae_tilin", ["vae_tiling", "vae_slicing"], 1) == "vae_tiling"
