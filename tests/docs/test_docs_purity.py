"""What stays unimported until it is needed, each seen in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "transformers", "accelerate", "numpy", "optuna", "pydantic", "rich", "pynvml")
CARD = "NVIDIA GeForce RTX 3060 12GB"
HIT = f"app(['plan', 'sd15', '--gpu', {CARD!r}, '--max-vram', '4GB', '--json'], standalone_mode=False)"


def imported_by(code: str, *, folder) -> set[str]:
    """The heavy packages that are imported after running `code` in a fresh interpreter."""
    program = (
        f"import json, sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n"  # a command ends its process
        f"print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_probe_sees_an_import(tmp_path):
    assert "numpy" in imported_by("import numpy", folder=tmp_path)


def test_import_autotune(tmp_path):
    assert imported_by("import autotune; dir(autotune); autotune.__version__", folder=tmp_path) == set()


def test_errors_need_nothing(tmp_path):
    assert imported_by("import autotune; autotune.AutotuneError", folder=tmp_path) == set()


@pytest.mark.parametrize("name", ["Plan", "Workload", "Front", "Explanation"])
def test_records_need_no_torch(tmp_path, name):
    assert imported_by(f"import autotune; autotune.{name}", folder=tmp_path) <= {"pydantic"}


def test_command_line_before_a_command_runs(tmp_path):
    assert imported_by("import autotune.cli.app", folder=tmp_path) <= {"rich"}


def test_help(tmp_path):
    code = "from autotune.cli.app import app; app(['plan', '--help'], standalone_mode=False)"
    assert imported_by(code, folder=tmp_path) <= {"rich", "pydantic"}  # typer itself asks for pydantic


def test_a_plan_that_is_known_needs_no_torch(tmp_path, monkeypatch):
    """From traces that ship it takes numpy, and from then on it is remembered."""
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    code = f"from autotune.cli.app import app; {HIT}"
    assert imported_by(code, folder=tmp_path) <= {"numpy", "pydantic", "rich"}
    assert imported_by(code, folder=tmp_path) <= {"pydantic", "rich"}


def test_what_is_not_known_does(tmp_path):
    code = f"from autotune import explain; explain('sd15', gpu={CARD!r})"
    assert {"torch", "diffusers"} <= imported_by(code, folder=tmp_path)
