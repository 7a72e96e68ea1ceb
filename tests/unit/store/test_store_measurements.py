"""Measurements on disk: what is kept, what is skipped, and who is told."""

from __future__ import annotations

import json
import logging
import multiprocessing

import pytest

from autotune.store.measurements import MeasurementStore
from tests.unit.measured import MEASURED_CARD, measured

CALL = measured(6.0, 2.0, 9.0)


@pytest.fixture
def store(tmp_path):
    return MeasurementStore(tmp_path / "measurements")


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_is_added_is_found_in_order(store):
    calls = [measured(6.0, 2.0, seconds, peak_reserved_bytes=7) for seconds in (9.0, 8.0, 10.0)]
    for call in calls:
        assert store.add(call).exists()
    assert store.find(MEASURED_CARD) == calls


def test_looking_creates_nothing(store, tmp_path):
    assert store.find(MEASURED_CARD) == []
    assert list(tmp_path.iterdir()) == []


def test_the_users_cache_is_the_usual_place(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    assert MeasurementStore().add(CALL) == tmp_path / "measurements" / "a-card-11gib.jsonl"


def test_another_card_is_another_card(store):
    store.add(CALL)
    for other in ({"name": "another card"}, {"total_bytes": 24 * 10**9}):
        assert store.find(MEASURED_CARD.model_copy(update=other)) == []
    driver_says = MEASURED_CARD.model_copy(update={"total_bytes": MEASURED_CARD.total_bytes - 10**7})
    assert store.find(driver_says) == [CALL]


def test_names_that_look_alike_as_files_are_told_apart(store):
    store.add(CALL)
    alike = MEASURED_CARD.model_copy(update={"name": "A-Card"})
    assert store.find(alike) == []
    store.add(measured(6.0, 2.0, 8.0, card="A-Card"))
    assert [call.call_s for call in store.find(MEASURED_CARD)] == [9.0]
    assert [call.call_s for call in store.find(alike)] == [8.0]


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "\N{SNOWMAN}", "x" * 200, "a\nb"])
def test_no_name_leaves_the_folder(store, tmp_path, name):
    path = store.add(measured(6.0, 2.0, 9.0, card=name))
    assert path.parent == tmp_path / "measurements"
    assert len(store.find(MEASURED_CARD.model_copy(update={"name": name}))) == 1


def test_the_latest_two_hundred_are_kept(store):
    path = store.add(CALL)
    lines = [measured(6.0, 2.0, seconds).model_dump_json() for seconds in range(1, 301)]
    path.write_text("\n".join(lines))
    assert [call.call_s for call in store.find(MEASURED_CARD)] == [*range(101, 301)]
    store.add(CALL)
    assert len(path.read_bytes().splitlines()) == 200
    assert [call.call_s for call in store.find(MEASURED_CARD)] == [*range(102, 301), 9.0]


def changed(**changes):
    return json.dumps({**json.loads(CALL.model_dump_json()), **changes}).encode()


BROKEN = {
    "no json": b"see above",
    "cut short": CALL.model_dump_json().encode()[:-9],
    "other json": b"[1, 2]",
    "not utf-8": b"\xff\xfe",
    "too deep": b"[" * 100_000,
    "a field too many": changed(command="rm"),
    "no seconds": changed(call_s=0),
    "less than none": changed(compute_s=-1),
    "endless": changed(call_s=float("inf")),
    "no number": changed(transfer_s=float("nan")),
    "a number too large": CALL.model_dump_json().replace("9.0", "9" * 400).encode(),
    "bytes below none": changed(peak_reserved_bytes=-1),
    "a name too long": changed(model="x" * 201),
    "a plan that is none": changed(plan={"offload": "everything"}),
    "a call that is none": changed(workload={"steps": 0}),
    "no day": changed(day="tomorrow"),
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_skipped_with_one_warning(store, caplog, line):
    path = store.add(CALL)
    path.write_bytes(line + b"\n" + path.read_bytes() + line + b"\n")
    for _ in range(2):
        assert store.find(MEASURED_CARD) == [CALL]
    assert warnings_in(caplog) == [f"{path} has lines that are no measurements; they are skipped"]
    store.add(CALL)
    assert store.find(MEASURED_CARD) == [CALL, CALL]


@pytest.mark.parametrize("what", ["too large", "a folder"])
def test_what_is_no_file_of_ours_is_left_as_it_is(store, caplog, what):
    path = store.add(CALL)
    if what == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(b"\n" * 2_000_001)
    assert store.find(MEASURED_CARD) == []
    assert store.add(CALL) is None
    (warning,) = warnings_in(caplog)
    assert warning.startswith(f"{path} is ignored: ")
    assert path.is_dir() if what == "a folder" else path.stat().st_size == 2_000_001


def test_a_folder_that_cannot_be_made_is_one_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    store = MeasurementStore(tmp_path / "file" / "measurements")
    for _ in range(3):
        assert store.add(CALL) is None
    assert store.find(MEASURED_CARD) == []
    assert len(warnings_in(caplog)) == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_nothing_is_left_behind_but_the_file_and_the_lock(store, tmp_path):
    store.add(CALL)
    names = {path.name for path in (tmp_path / "measurements").iterdir()}
    assert names <= {"a-card-11gib.jsonl", ".lock"}


def add_some(folder):
    store = MeasurementStore(folder)
    for _ in range(10):
        store.add(CALL)


def test_processes_that_add_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=add_some, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(MeasurementStore(tmp_path).find(MEASURED_CARD)) == 20
