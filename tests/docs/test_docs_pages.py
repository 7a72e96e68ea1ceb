"""Every document keeps its word: commands, options and arguments exist, links resolve, snippets run."""

from __future__ import annotations

import inspect
import re
import shlex
from importlib.util import find_spec

import pytest
import typer

import autotune
from autotune.cli import outcome
from autotune.cli.app import app
from autotune.cli.options import kept
from autotune.flow.checks import check_values
from autotune.probe.catalog import card
from autotune.zoo.recipes import find, recipes
from benchmarks import readme, tiny

ROOT = readme.ROOT
PAGES = ("README.md", "docs/first-steps.md", "docs/my-card-and-my-model.md", "docs/command-line.md", "docs/levers.md",
         "docs/how-good.md")  # fmt: skip
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
CALLS = ("optimize", "plan", "explore", "apply", "explain", "restore")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", readme.text_of(page), re.MULTILINE | re.DOTALL)


def prose(page):
    """What is no block of code."""
    return re.sub(r"^```.*?^```", "", readme.text_of(page), flags=re.MULTILINE | re.DOTALL)


def commands():
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    lines += [
        line.removeprefix("$ ")
        for page in PAGES
        for block in blocks(page, "text")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    found = [tuple(words) for line in lines if (words := shlex.split(line, comments=True))]
    return list(dict.fromkeys(found))


def leaves(command):
    """Every command that does something."""
    children = getattr(command, "commands", {}).values()
    return [leaf for child in children for leaf in leaves(child)] or [command]


def test_there_is_a_page_for_each_question():
    assert set(PAGES) <= set(DOCUMENTS)
    assert {part.document for part in readme.PARTS.values()} <= set(PAGES)
    for page in PAGES[1:]:
        assert f"]({page})" in readme.text_of("README.md"), page


def test_there_are_commands():
    assert {"make", "pip", "autotune"} <= {words[0] for words in commands()}


def test_every_command_of_the_program_is_shown():
    shown = {words[1] for words in commands() if words[0] == "autotune"}
    assert set(typer.main.get_command(app).commands) <= shown


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
    """Parses a command line as the program does, without running it; its parameters by name."""
    command = typer.main.get_command(app)
    context = command.make_context("autotune", list(arguments), resilient_parsing="--version" in arguments)
    while hasattr(command, "commands") and context._protected_args:
        name, command, rest = command.resolve_command(context, context._protected_args + context.args)
        context = command.make_context(name, list(rest), parent=context)
    return context.params


def test_a_wrong_option_is_noticed():
    with pytest.raises(Exception, match="--max-vrm"):
        understood(["plan", "sd15", "--max-vrm", "4GB"])


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "autotune"], ids=" ".join)
def test_models_cards_and_levers_of_a_command_exist(words):
    asked = understood(words[1:])
    model = asked.get("model", "")
    assert not model or model.startswith("./") or find(model) is not None
    assert {*(asked.get("controlnet") or ()), *filter(None, [asked.get("ip_adapter")])} <= set(recipes())
    check_values(kept(asked.get("keep")))
    if asked.get("gpu"):
        assert card(asked["gpu"])


@pytest.mark.parametrize("page", PAGES)
def test_options_that_the_prose_names_exist(page):
    known = {flag for leaf in leaves(typer.main.get_command(app)) for option in leaf.params
             for flag in (*option.opts, *option.secondary_opts)} | {"--help", "--version", "--out", "--again"}  # fmt: skip
    said = {
        flag
        for code in re.findall(r"`([^`\n]+)`", prose(page))
        for flag in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", code)
    }
    assert said <= known


@pytest.mark.parametrize("page", PAGES)
def test_arguments_that_the_prose_names_exist(page):
    known = {name for call in CALLS for name in inspect.signature(getattr(autotune, call)).parameters}
    said = {name for code in re.findall(r"`([^`\n]+)`", prose(page)) for name in re.findall(r"^([a-z_]+)=", code)}
    assert said <= known


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


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_snippets_run(page, monkeypatch, tmp_path):
    """All of a page in one namespace, as a reader would type them, with a small pipeline for `pipe`."""
    monkeypatch.chdir(tmp_path)
    names = {"pipe": tiny.sd()}
    for snippet in blocks(page, "python"):
        exec(compile(snippet, page, "exec"), names)
    assert autotune.explain(names["pipe"], workload={"height": 64, "width": 64}).state == "as it is"


def test_commands_share_options_as_the_page_says():
    from autotune.records.plan import LEVERS

    commands = typer.main.get_command(app).commands
    flags = {name: {option.name for option in command.params} for name, command in commands.items()}
    search = {option.name for option in commands["plan"].params
              if getattr(option, "rich_help_panel", None) == "The search"}  # fmt: skip
    assert flags["explore"] == flags["plan"] - {"as_code", "verbose"}
    assert flags["explain"] == flags["plan"] - {"as_code"} - search
    assert flags["estimate"] == flags["explain"] | {"keep", *LEVERS}


def test_figures_that_are_quoted_from_the_log_stand_there():
    log = readme.text_of("docs/log.md")
    quoted = re.sub(r"<!-- (\w+):start -->.*?<!-- \1:end -->", "", readme.text_of("docs/how-good.md"), flags=re.DOTALL)
    figures = re.findall(r"\d+(?:\.\d+)? %", quoted)
    assert figures
    assert [figure for figure in figures if figure not in log] == []


def test_exit_codes_are_all_told():
    told = re.findall(r"^\| (\d+) \|", readme.text_of("docs/command-line.md"), re.MULTILINE)
    ends = (0, outcome.REFUSED, outcome.NOT_UNDERSTOOD, outcome.NOTHING_FITS, outcome.INTERRUPTED)
    assert [int(code) for code in told] == list(ends)


def test_every_value_of_quality_is_explained():
    from autotune.records.plan import LANES

    text = readme.text_of("docs/first-steps.md")
    assert [lane for lane in LANES if f'`"{lane}"`' not in text] == []
