"""The README keeps its word: generated parts are current, commands exist, links resolve, snippets run."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec

import pytest
import typer

import autotune
from autotune.cli.app import app
from benchmarks import readme, tiny

ROOT = readme.README.parent
TEXT = readme.README.read_text(encoding="utf-8")
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/log.md")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands():
    shells = [line for block in blocks("sh") for line in block.splitlines()]
    printed = [line.removeprefix("$ ") for block in blocks("text") for line in block.splitlines() if line[:2] == "$ "]
    return [words for line in (*shells, *printed) if (words := shlex.split(line, comments=True))]


def test_first_words_warn_of_the_other_package():
    head = TEXT.split("\n```", 1)[0]
    for words in ("belongs to another package", "diffusers-autotune", "autotune probe"):
        assert words in head


@pytest.mark.parametrize("name", readme.PARTS)
def test_generated_part_is_current(name):
    assert readme.filled(TEXT, name) == TEXT, "run `python -m benchmarks.readme`"


def test_a_stale_part_is_found():
    assert readme.stale(TEXT.replace("| `tf32` |", "| `tf23` |")) == ["levers"]


def test_a_missing_part_is_refused():
    with pytest.raises(ValueError, match="0 parts <!-- levers:start -->"):
        readme.filled("# nothing", "levers")


def test_every_lever_has_its_row():
    from autotune.records.plan import LEVERS

    rows = re.findall(r"^\| `(\w+)` \|", readme.lever_table(), re.MULTILINE)
    assert sorted(rows) == sorted(LEVERS)


def test_there_are_commands():
    programs = {words[0] for words in commands()}
    assert {"make", "pip", "autotune"} <= programs


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command_exists(words):
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets)
    elif program == "python":
        assert arguments[0] == "-m"
        assert find_spec(arguments[1]) is not None
    elif program == "pip":
        assert arguments[0] == "install"
        assert arguments[1].startswith(".")
    else:
        assert program == "autotune"
        understood(arguments)


def understood(arguments):
    """Parses a command line as the program does, without running it."""
    command = typer.main.get_command(app)
    context = command.make_context("autotune", list(arguments))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, context._protected_args + context.args)
        context = command.make_context(name, list(rest), parent=context)


def test_a_wrong_option_is_noticed():
    with pytest.raises(Exception, match="--max-vrm"):
        understood(["plan", "sd15", "--max-vrm", "4GB"])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_resolve(document):
    path = ROOT / document
    links = re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    for link in links:
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        goal = (path.parent / target).resolve() if target else path
        assert goal.exists(), link
        assert goal.is_relative_to(ROOT), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", goal.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, link


def test_snippets_run(monkeypatch, tmp_path):
    """All of them in one namespace, as a reader would type them, with a small pipeline for `pipe`."""
    monkeypatch.chdir(tmp_path)
    snippets = blocks("python")
    assert len(snippets) >= 2
    names = {"pipe": tiny.sd()}
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), names)
    assert autotune.explain(names["pipe"], workload={"height": 64, "width": 64}).state == "as it is"
    assert "plan" in names["front"].best(max_vram="4GB").model_dump()


def test_public_calls_are_named():
    for name in ("optimize", "plan", "explore", "apply", "explain", "restore"):
        assert f"`{name}(" in TEXT
