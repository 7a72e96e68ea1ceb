"""Every end of a command: its exit code, its words, one JSON document where that was asked for, and no torch for a refusal."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.probe.catalog import listed
from autotune.zoo.recipes import names

REFUSALS = [
    ["plan", "sd16"],
    ["plan", "./no/such/folder"],
    ["plan", "sd15", "--gpu", "RTX 3061"],
    ["plan", "sd15", "--gpu", "T4", "--max-vram", "8"],
    ["plan", "sd15", "--gpu", "T4", "--max-vram", "4Gb"],
    ["explore", "sd15", "--gpu", "T4", "--max-ram", "-1GB"],
    ["explain", "sd15", "--gpu", "T4", "--max-vram", "1e400GB"],
    ["plan", "sd15", "--gpu", "T4", "--keep", "dtype=float7"],
    ["plan", "sd15", "--gpu", "T4", "--keep", "vae_tilin=512"],
    ["plan", "sd15", "--gpu", "T4", "--forbid", "dtyp"],
    ["plan", "sd15", "--gpu", "T4", "--allow", "everything"],
    ["plan", "sd15", "--gpu", "T4", "--width", "513"],
    ["plan", "sd15", "--gpu", "T4", "--width", "100000000"],
    ["plan", "sd15", "--gpu", "T4", "--device", "cpu"],
    ["plan", "sd15", "--device", "mps"],
    ["estimate", "sd15", "--gpu", "T4", "--offload", "modle"],
    ["estimate", "sd15", "--gpu", "T4", "--vae-tiling", "big"],
    ["profiles", "show", "no such profile"],
]
MISUNDERSTOOD = [
    ["estimate"],
    ["plan", "sd15", "--qality", "near"],
    ["plan", "sd15", "--quality", "best"],
    ["plan", "sd15", "--batch", "x"],
    ["plan", "sd15", "--keep", "dtype"],
    ["plans", "sd15"],
    ["profiles"],
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # else sentences are wrapped
    return lambda *words: CliRunner().invoke(app, list(words))


def error_in(result):
    document = json.loads(result.stdout)
    assert set(document) == {"error"}
    assert {"kind", "message", "nearest"} <= set(document["error"])
    return document["error"]


@pytest.mark.parametrize("words", REFUSALS, ids=" ".join)
def test_a_refusal_is_a_sentence_and_a_document(run, words):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    error = error_in(run(*words, "--json"))
    assert error["kind"].endswith("Error")
    assert f"error: {error['message']}\n" == result.stderr
    assert all(isinstance(name, str) and name for name in error["nearest"])


@pytest.mark.parametrize("words", MISUNDERSTOOD, ids=" ".join)
def test_what_is_not_understood_is_a_document_too(run, words):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Traceback" not in result.output
    assert error_in(run(*words, "--json"))["kind"] == "UsageError"


def test_a_refusal_names_the_nearest_for_programs(run):
    assert error_in(run("plan", "sd16", "--json"))["nearest"][0].startswith("sd")
    assert error_in(run("plan", "sd15", "--max-vram", "8", "--json"))["nearest"] == ["8GB"]
    assert error_in(run("plan", "sd15", "--gpu", "T4", "--width", "513", "--json"))["nearest"] == ["512"]
    assert error_in(run("plan", "sd15", "--forbid", "dtyp", "--json"))["nearest"] == ["dtype"]
    assert error_in(run("plan", "sd15", "--qality", "near", "--json"))["nearest"] == ["--quality"]


def test_what_nobody_expected_is_a_document_and_a_traceback(run, monkeypatch):
    monkeypatch.setattr("autotune.zoo.recipes.matching", lambda word: 1 / 0)
    result = run("models", "--json")
    assert result.exit_code == 1
    assert error_in(result) == {"kind": "internal", "message": "ZeroDivisionError: division by zero", "nearest": []}
    assert "Traceback" in result.stderr


def test_an_interruption_is_no_traceback(run, monkeypatch):
    def interrupted(word):
        raise KeyboardInterrupt

    monkeypatch.setattr("autotune.zoo.recipes.matching", interrupted)
    result = run("models", "--json")
    assert result.exit_code == 130
    assert error_in(result)["kind"] == "interrupted"
    assert "Traceback" not in result.stderr


_PROBE = """
import sys
from autotune.cli.app import app
for words in {refusals!r}:
    try:
        app(words)
    except SystemExit as end:
        assert end.code == 1, (words, end.code)
    heavy = [name for name in ("torch", "diffusers", "transformers", "optuna") if name in sys.modules]
    assert not heavy, (words, heavy)
"""


def test_no_refusal_waits_for_torch(tmp_path):
    code = _PROBE.format(refusals=REFUSALS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_library_refuses_without_torch_too():
    code = """
import sys
import autotune
for ask in (
    lambda: autotune.plan("sd16"),
    lambda: autotune.explore("sd15", gpu="RTX 3061"),
    lambda: autotune.explain("sd15", gpu="T4", max_vram=8),
    lambda: autotune.optimize("sd15"),
    lambda: autotune.optimize(None),
    lambda: autotune.plan(7),
    lambda: autotune.plan("sd15", gpu="T4", workload={"width": 513}),
    lambda: autotune.plan("sd15", gpu="T4", keep={"dtype": "float7"}),
):
    try:
        ask()
    except autotune.AutotuneError as error:
        assert str(error)
    else:
        raise SystemExit("not refused")
    assert "torch" not in sys.modules and "diffusers" not in sys.modules, error
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_optimize_wants_a_pipeline():
    import autotune

    with pytest.raises(autotune.PipelineError, match=r"'sd15' is a name; load it .* or ask autotune.plan\('sd15'\)"):
        autotune.optimize("sd15")


def test_models_and_gpus_are_listed(run):
    everything = json.loads(run("models", "--json").stdout)
    assert [entry["name"] for entry in everything] == names()
    assert json.loads(run("models", " ", "--json").stdout) == everything
    found = json.loads(run("models", "FLUX", "--json").stdout)
    assert found
    assert all("flux" in " ".join([entry["name"], entry["hub_id"], *entry["aliases"]]).casefold() for entry in found)
    assert "flux1-dev" in run("models", "flux").stdout
    cards = json.loads(run("gpus", "3060", "--json").stdout)
    assert [card["name"] for card in cards] == [card.name for card in listed("3060")]
    assert "RTX 3060" in run("gpus", "3060").stdout
    assert "no model has 'xyzzy' in its name" in run("models", "xyzzy").stdout
    assert json.loads(run("gpus", "xyzzy", "--json").stdout) == []


def test_the_version_is_printed(run):
    from autotune import __version__

    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"autotune {__version__}\n")


@pytest.mark.parametrize("truth", ["true", "True", "yes", "on", "false", "no", "off", "none"])
def test_flags_of_levers_take_words(truth):
    import typer

    command = typer.main.get_command(app).commands["estimate"]
    for words in (["--tf32", truth], [f"--tf32={truth}"]):
        context = command.make_context("estimate", ["sd15", *words, "--vae-tiling", truth, "--gpu", "T4"])
        yes = truth.casefold() in {"true", "yes", "on"}
        assert context.params["tf32"] is yes
        assert context.params["vae_tiling"] == ("auto" if yes else "off")
        assert context.params["gpu"] == "T4"


def test_a_flag_that_has_no_opposite_is_left_out_where_it_is_false():
    import typer

    command = typer.main.get_command(app).commands["estimate"]
    for words in (["--json", "false"], ["--json=off"]):
        assert command.make_context("estimate", ["sd15", *words, "--gpu", "T4"]).params["as_json"] is False
