"""Measured speeds as files: found again by what was measured, and a miss with one warning where a file is not one."""

from __future__ import annotations

import json
import logging
import os
from datetime import date

import pytest

from autotune.simulate.speed import sustained
from autotune.store import speeds
from autotune.store.speeds import MeasuredSpeed, SpeedStore, speed_key
from tests.unit.handmade import CARD, CPU

DAY = date(2026, 11, 25)
SPEED = sustained(CARD).model_copy(update={"source": "calibrated", "kernel_s": 3e-6})


@pytest.fixture
def store(tmp_path):
    return SpeedStore(tmp_path / "speeds")


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_speed_is_found_again(store):
    path = store.save(CARD, SPEED, DAY)
    found = store.find(CARD)
    assert (found.speed, found.day) == (SPEED, DAY)
    assert path.name.startswith("a-card-11gib--torch-")


def test_looking_creates_nothing(store, tmp_path, caplog):
    assert store.find(CARD) is None
    assert not list(tmp_path.iterdir())
    assert not warnings_in(caplog)


def test_the_usual_folder_is_beside_the_profiles(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path))
    assert SpeedStore().save(CARD, SPEED, DAY).parent == tmp_path / "speeds"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another card"},
        {"total_bytes": 24 * 10**9},
        {"compute_capability": (8, 9)},
        {"driver": "580.65"},
    ],
    ids=str,
)
def test_another_card_or_driver_is_not_known(store, changes):
    store.save(CARD, SPEED, DAY)
    assert store.find(CARD.model_copy(update=changes)) is None


def test_another_torch_is_not_known_but_a_patch_is(store, monkeypatch):
    for version, known in (("2.13.0+cu130", True), ("2.13.1", True), ("2.14.0", False)):
        monkeypatch.setattr(speeds, "versions", lambda version=version: {"torch": version})
        if version.endswith("cu130"):
            store.save(CARD, SPEED, DAY)
        assert (store.find(CARD) is not None) is known


@pytest.mark.parametrize(
    "changes", [{"total_bytes": CARD.total_bytes - 10**7}, {"free_bytes": 1}, {"torch_device": "cuda:1"}], ids=str
)
def test_what_changes_from_call_to_call_does_not_matter(store, changes):
    store.save(CARD, SPEED, DAY)
    assert store.find(CARD.model_copy(update=changes)) is not None


def test_a_cpu_is_known_by_its_cores_not_by_its_ram(store):
    store.save(CPU, sustained(CPU), DAY)
    assert store.find(CPU.model_copy(update={"total_bytes": 10**12}))
    assert store.find(CPU.model_copy(update={"fp32_flops_per_s": 2 * CPU.fp32_flops_per_s})) is None


def test_measured_anew_the_old_one_is_replaced(store, tmp_path):
    store.save(CARD, SPEED, DAY)
    store.save(CARD, SPEED.model_copy(update={"kernel_s": 4e-6}), DAY)
    assert store.find(CARD).speed.kernel_s == 4e-6
    assert [path.suffix for path in (tmp_path / "speeds").iterdir() if path.name[0] != "."] == [".json"]


def changed(path, *keys, value):
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (["schema_version"], 2, "schema_version"),
        (["speed", "kernel_s"], -1e-6, "kernel_s is -1e-06"),
        (["speed", "host_s"], 3600.0, "host_s is 3600.0"),
        (["speed", "copy_bytes_per_s"], 0, "copy_bytes_per_s is 0.0"),
        (["speed", "copy_bytes_per_s"], float("nan"), "copy_bytes_per_s"),
        (["speed", "norm_bytes_per_s"], float("inf"), "norm_bytes_per_s"),
        (["speed", "products_flops_per_s", "float16"], -5.0, "products_flops_per_s is -5.0"),
        (["speed", "products_flops_per_s", "float32"], None, "no rate for float32"),
        (["speed", "convolutions_flops_per_s"], {}, "no rate for float32"),
        (["speed", "attention_flops_per_s"], {}, "no rate for any attention"),
        (["speed", "pinned_bytes_per_s"], None, "pinned_bytes_per_s"),
        (["speed", "ways"], 1, "ways"),
        (["key", "card"], 5, "card"),
        (["day"], "yesterday", "day"),
    ],
    ids=str,
)
def test_what_no_device_does_is_a_miss_with_one_warning(store, caplog, keys, value, words):
    path = store.save(CARD, SPEED, DAY)
    changed(path, *keys, value=value)
    before = path.read_bytes()
    assert store.find(CARD) is None
    [warning] = warnings_in(caplog)
    assert words in warning
    assert str(path) in warning
    assert "autotune probe --calibrate" in warning
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * 2_000_000],
    ids=lambda data: str(data[:4]),
)
def test_a_file_that_is_no_speed_is_a_miss_with_one_warning(store, caplog, data):
    path = store.save(CARD, SPEED, DAY)
    path.write_bytes(data)
    assert store.find(CARD) is None
    assert len(warnings_in(caplog)) == 1
    assert store.save(CARD, SPEED, DAY) == path
    assert store.find(CARD)


def test_a_pipe_is_not_waited_for(store, caplog):
    path = store.save(CARD, SPEED, DAY)
    path.unlink()
    os.mkfifo(path)
    assert store.find(CARD) is None
    assert "not a file" in warnings_in(caplog)[0]


def test_the_key_inside_decides(store):
    path = store.save(CARD, SPEED, DAY)
    changed(path, "key", "card", value="a carD")
    assert store.find(CARD) is None


def test_a_folder_that_cannot_be_written_to_keeps_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("mine")
    assert SpeedStore(tmp_path / "file" / "speeds").save(CARD, SPEED, DAY) is None
    assert "speed of a card not saved" in warnings_in(caplog)[0]
    assert SpeedStore(tmp_path / "file" / "speeds").find(CARD) is None


def test_nothing_half_written_is_left(store, monkeypatch, tmp_path):
    def fails(self, target):
        raise OSError("disk full")

    store.save(CARD, SPEED, DAY)
    monkeypatch.setattr("pathlib.Path.replace", fails)
    assert store.save(CARD, SPEED.model_copy(update={"kernel_s": 4e-6}), DAY) is None
    assert store.find(CARD).speed == SPEED
    assert not [path for path in (tmp_path / "speeds").iterdir() if path.suffix == ".tmp"]


def test_names_from_drivers_cannot_leave_the_folder(store, tmp_path):
    path = store.save(CARD.model_copy(update={"name": "../../x", "driver": "../y"}), SPEED, DAY)
    assert path.parent == tmp_path / "speeds"


def test_a_file_says_all_that_it_is_found_by(store):
    content = MeasuredSpeed.model_validate_json(store.save(CARD, SPEED, DAY).read_bytes())
    assert content.key == speed_key(CARD)
