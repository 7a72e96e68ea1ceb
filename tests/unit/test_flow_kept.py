"""A call that was traced once is planned for other cards without torch: the same front, or none."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest

import autotune
from autotune.flow import kept
from autotune.flow.ask import front_for, named_call, place_of
from autotune.flow.question import Question
from autotune.flow.recall import open_store
from autotune.records.kept import KEPT_VERSION
from autotune.records.plan import PLAIN, Plan
from autotune.store.calls import CallStore, calls_directory, key_of

MODEL = "sd15"
FIRST, SECOND, OLD = "RTX 4060", "RTX 3060 12GB", "GTX 1070"
SMALL = {"height": 256, "width": 256}


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A folder for caches in which the model was planned for one card."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOTUNE_CACHE_DIR", str(folder))
        autotune.plan(MODEL, gpu=FIRST, workload=SMALL, profiles=folder / "profiles")
    return folder


@pytest.fixture
def cache(traced, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(traced))
    return traced


def front(gpu, folder=None, **asked):
    """The front for that card; with a folder for profiles that is not there yet."""
    question = Question(MODEL, gpu=gpu, workload=SMALL, profiles=folder or False, **asked)
    return front_for(question)


def plain(found):
    return found.model_dump_json()


@pytest.mark.parametrize("gpu", [SECOND, OLD, "H100 PCIe", "RTX 5060 8GB", "Tesla T4"])
def test_another_card_gets_the_front_that_tracing_gives(gpu, cache, tmp_path, monkeypatch):
    cold = front(gpu)
    with monkeypatch.context() as patch:
        patch.setattr("autotune.trace.session.Session.__init__", fails)
        known = front(gpu, tmp_path)
    assert plain(known) == plain(cold)


def test_settings_of_another_machine_are_answered_too(cache, tmp_path, monkeypatch):
    asked = {"torch_version": "2.8.0", "allocator": "expandable_segments:True"}
    cold = front(SECOND, **asked)
    monkeypatch.setattr("autotune.trace.session.Session.__init__", fails)
    assert plain(front(SECOND, tmp_path, **asked)) == plain(cold)


def fails(*_, **__):
    raise AssertionError("traced")


def test_neither_torch_nor_diffusers_is_imported(cache, tmp_path):
    code = f"""
import sys
import autotune
found = autotune.explore({MODEL!r}, gpu={SECOND!r}, workload={SMALL!r}, profiles={str(tmp_path)!r})
loaded = sorted({{"torch", "diffusers", "transformers", "accelerate"}} & set(sys.modules))
print(len(found.candidates), loaded)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    number, _, loaded = done.stdout.strip().partition(" ")
    assert (int(number) > 5, loaded) == (True, "[]")


@pytest.mark.parametrize(
    "asked",
    [{"profiles": False}, {"keep": {"vae_tiling": 512}}, {"forbid": "compile"}, {"workload": {"height": 320, "width": 256}}],
)  # fmt: skip
def test_other_questions_are_traced(asked, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("autotune.trace.session.Session.__init__", fails)
    with pytest.raises(AssertionError, match="traced"):
        front_for(Question(MODEL, gpu=SECOND, **{"workload": SMALL, "profiles": tmp_path, **asked}))


def test_a_profile_is_made_of_it(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("autotune.trace.session.Session.__init__", fails)
    found = front(SECOND, tmp_path)
    monkeypatch.setattr(kept, "front_from", fails)
    assert front(SECOND, tmp_path).candidates == found.candidates
    assert len(open_store(tmp_path).entries()) > 0


def key():
    named = named_call(Question(MODEL, gpu=SECOND, workload=SMALL))
    return key_of(named.recipe.source_key, named.workload)


@pytest.mark.parametrize("wrong", ["offers", "traces", "segments", "tried", "frames"])
def test_what_does_not_hold_together_is_a_miss(wrong, cache, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    store = CallStore(calls_directory())
    call, arrays = store.find(key())
    other = CallStore(tmp_path / "calls")
    empty = {} if wrong == "offers" else ()
    other.save(call.model_copy(update={wrong: empty}), arrays)
    question = Question(MODEL, gpu=SECOND, workload=SMALL)
    named, device = named_call(question), place_of(question)[0]
    place = kept.Place(device)
    assert kept.front_kept(other, key(), place, name=MODEL, workload=named.workload) is None
    said = [record for record in caplog.records if record.name == "autotune"]
    assert len(said) <= 1


def test_keeping_that_fails_costs_no_answer(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(np, "savez_compressed", fails)
    caplog.set_level(logging.INFO)
    assert autotune.plan(MODEL, gpu=FIRST, workload=SMALL, profiles=tmp_path / "profiles")
    assert "are not kept: traced" in caplog.text


def test_a_file_holds_no_more_than_it_must(cache):
    files = list(calls_directory().glob("*.npz"))
    assert len(files) == 1
    assert files[0].stat().st_size < 1_000_000
    assert json.loads(CallStore(calls_directory()).find(key())[0].model_dump_json())["kept_version"] == KEPT_VERSION


def test_a_setting_of_this_process_is_not_the_pipelines():
    assert kept._plain(Plan(tf32=True)) == kept._plain(Plan(tf32=False)) == {**kept._plain(Plan()), "tf32": PLAIN.tf32}


def test_a_file_that_serves_more_cards_is_not_replaced(cache, tmp_path, caplog):
    call, arrays = CallStore(calls_directory()).find(key())
    store = CallStore(tmp_path)
    store.save(call, arrays)
    findings = kept._findings(call, arrays, place_of(Question(MODEL, gpu=SECOND))[0])
    few = dict(list(call.offers.items())[:1])
    for offers in ({}, few):
        kept.keep(store, key(), findings, lambda offers=offers: offers)
        assert store.find(key())[0].offers == call.offers
    kept.keep(CallStore(tmp_path / "other"), key(), findings, lambda: few)
    assert CallStore(tmp_path / "other").find(key())[0].offers == few


def test_a_broken_file_costs_one_line(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    calls_directory().mkdir(parents=True)
    path = calls_directory() / f"{key()}.npz"
    path.write_bytes(b"broken")
    autotune.plan(MODEL, gpu=FIRST, workload=SMALL, profiles=tmp_path / "profiles")
    assert [record.message for record in caplog.records if record.name == "autotune"] == [
        f"{path} is ignored: it is no traced call. The call is traced anew"
    ]
    assert CallStore(calls_directory()).find(key()) is not None
