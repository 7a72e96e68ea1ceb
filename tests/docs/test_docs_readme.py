"""The README is one screen to the first result, and generated parts of all documents are current."""

from __future__ import annotations

import re

import pytest

from benchmarks import parts, readme

TEXT = readme.text_of("README.md")
LEVERS = readme.text_of("docs/levers.md")


def test_first_words_warn_of_the_other_package():
    head = TEXT.split("\n```", 1)[0]
    for words in ("belongs to another package", "diffusers-autotune", "autotune probe"):
        assert words in head


def test_length():
    assert len(TEXT.splitlines()) <= 160


def test_it_says_near_the_top_that_no_card_has_run_it():
    head = TEXT.split("\n## ", 1)[0]
    assert (
        "**It has run on one graphics card, an H200, and on none of 4 to 24 GB yet.** Every figure is simulated" in head
    )


def test_the_first_result_is_six_lines_that_need_no_scrolling():
    lines = readme.made("plan").splitlines()[2:-1]  # between the command and the end of the block
    assert 5 <= len(lines) <= 6
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith("simulated")
    assert [line.split()[0] for line in lines[1:]][:3] == ["plan", "expect", "against"]


def test_public_calls_are_named():
    for name in ("optimize", "plan", "explore", "apply", "explain", "restore"):
        assert f"`{name}(" in TEXT


PLANNED = ("claims", "seconds")  # what takes a search


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in PLANNED else []) for name in readme.PARTS]
)
def test_generated_part_is_current(name):
    text = readme.text_of(readme.PARTS[name].document)
    assert readme.filled(text, name) == text, "run `python -m benchmarks.readme`"


@pytest.mark.parametrize("document", readme.documents())
def test_every_part_of_a_document_is_generated(document):
    marked = re.findall(r"<!-- (\w+):start -->", readme.text_of(document))
    assert sorted(marked) == sorted(name for name, part in readme.PARTS.items() if part.document == document)


def test_a_stale_part_is_found():
    assert readme.stale("docs/levers.md", LEVERS.replace("| `tf32` | TF32 for", "| `tf23` | TF32 for")) == [
        "levers",
        "values",
    ]
    assert readme.stale("docs/levers.md", LEVERS) == []


def test_a_missing_part_is_refused():
    with pytest.raises(ValueError, match=r"docs/levers.md has 0 parts <!-- levers:start -->"):
        readme.filled("# nothing", "levers")


@pytest.mark.parametrize("name", ["levers", "values"])
def test_every_lever_has_its_row(name):
    from autotune.records.plan import LEVERS as NAMES

    rows = re.findall(r"^\| `(\w+)` \|", readme.made(name), re.MULTILINE)
    assert sorted(rows) == sorted(NAMES)


def test_sentences_say_the_figures_of_the_results():
    figures = {
        "allocated_median_pct_all": 0.024, "allocated_clusters": 7, "allocated_p90_pct_sm70": 2.14,
        "reserved_median_pct": 12.5, "reserved_clusters": 9, "out_of_memory_records": 25, "false_fits": 3,
        "false_ooms_pct": 0.0, "margin_median_pct": 3.0, "memory_records_used": 11, "memory_records_skipped_pct": 0.5,
    }  # fmt: skip
    said = " ".join(parts.on_bytes(figures))
    for words in (
        "0.02 % off",
        "of 7 settings",
        "2.1 % or less",
        "12 % off",
        "Of 25 runs",
        "3 were predicted to fit",
        "0 % were",
    ):
        assert words in said


def test_a_command_is_printed_as_who_has_just_installed_it_sees_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")
    printed = parts.printed("autotune --version")
    assert printed.startswith("```text\n$ autotune --version\nautotune ")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="ended with 1 and not 0"):
        parts.printed('autotune plan sd15 --gpu "RTX 3060"')
