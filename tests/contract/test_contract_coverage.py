"""The checked-in table of what is traced fully, made anew: every pipeline of the zoo and 40 classes of diffusers."""

from __future__ import annotations

import diffusers
import pytest

from autotune.zoo.recipes import names
from benchmarks import coverage
from benchmarks.coverage import TABLE, Row, kept, rows, table
from benchmarks.coverage_classes import CLASSES

LEAST_SHARE = 0.9


@pytest.mark.slow
def test_the_table_is_what_tracing_finds():
    assert table(rows()) == TABLE.read_text(encoding="utf-8")


def test_nine_of_ten_are_traced_fully():
    found = list(kept().values())
    zoo, classes = found[: len(names())], found[len(names()) :]
    for part in (zoo, classes):
        assert sum(not row.reason for row in part) >= LEAST_SHARE * len(part)


def test_the_classes_are_forty_and_none_is_deprecated():
    assert len({known.pipeline_class for known in CLASSES}) == len(CLASSES) == 40
    for known in CLASSES:
        cls = getattr(diffusers, known.pipeline_class)
        assert "deprecated" not in cls.__module__
        assert not hasattr(cls, "_last_supported_version")


def test_the_table_names_every_model_and_class():
    text = TABLE.read_text(encoding="utf-8")
    for name in (*names(), *(known.pipeline_class for known in CLASSES)):
        assert f"\n| {name} | " in text


def test_what_is_not_named_stays_as_the_table_has_it(monkeypatch):
    monkeypatch.setattr(coverage, "traced", lambda name: Row(name, "traced", "anew", "vae: no"))
    found = {row.name: row for row in rows(["sd15", "FluxPipeline"])}
    anew = [name for name, row in found.items() if row.of == "traced"]
    assert anew == ["sd15", "FluxPipeline"]
    assert {name: row for name, row in kept().items() if name not in anew}.items() <= found.items()
    assert table(found.values()).count("falls back |") == 2


def test_the_rows_of_the_table_are_read_as_they_were_written():
    assert table(kept().values()) == TABLE.read_text(encoding="utf-8")


def test_a_table_tells_the_reasons():
    text = table([Row("one", "Class", "256x256", "") for _ in names()] + [Row("Two", "one", "", "vae: no")])
    assert "| one | Class | 256x256 | full |  |" in text
    assert "| Two | one |  | falls back | vae: no |" in text
    assert f"{len(names())} of {len(names()) + 1} (99 %) are traced fully" in text
