"""Recorded histories of the allocator beside their replay.

`fixtures/allocator_snapshot.json` has the format of `torch.cuda.memory._snapshot()` and was worked out on paper, in MiB:

    before    A of 20: a 8, b 8, 4 free.  S of 2: 1000 bytes.             22 reserved, 16 + 1000 bytes asked for
     0,  1    a goes: 8 free, b 8, 4 free                                 22
     2,  3    c 9.5 fits in neither hole: B of 20                         42
     4        d 8 takes the place of a                                    42
     5,  6    e 11 opens C of 12, and is not split                        54
     7        e is freed, but another stream uses it                      54
     8,  9    so f 12 opens D of 12                                       66           8 + 8 + 9.5 + 11 + 12 = 48.5 + 1000 bytes
    10        e has been used                                             66
    11, 12    f goes                                                      66
    13, 14    the cache is emptied: C and D                               42
    15, 16    g 29 opens E of 30, and is not split                        72           8 + 8 + 9.5 + 29 = 54.5 + 1000 bytes
    17        90 are not to be had                                        72
    after     A: d 8, b 8.  S: 1024 bytes.  B: c 9.5.  E: g 30.           55.5 + 1024 bytes allocated
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from autotune.errors import AutotuneError, PlanError
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.snapshot import Difference, compare
from autotune.simulate.snapshot_file import Block, Event, Segment, Snapshot, load_snapshot

MIB = 2**20
FIXTURE = Path(__file__).parent / "fixtures" / "allocator_snapshot.json"
A, B = 2**40, 2**41


def content():
    return json.loads(FIXTURE.read_text())


def snapshot(*events, segments=(), **others):
    """One device's events, each as action, MiB and address."""
    trace = tuple(Event(action=action, addr=at, size=round(size * MIB)) for action, size, at in events)
    return Snapshot(device_traces=(trace,), segments=segments, **others)


def written(tmp_path, data):
    path = tmp_path / "snapshot.pickle"
    path.write_bytes(data)
    return path


def test_the_fixture_is_replayed_without_a_difference():
    result = compare(load_snapshot(FIXTURE))
    assert result.first_difference is None
    assert result.recorded_reserved_peak_bytes == result.replayed_reserved_peak_bytes == 72 * MIB
    assert result.recorded_requested_peak_bytes == result.replayed_requested_peak_bytes == 54.5 * MIB + 1000
    assert result.recorded_active_bytes == result.replayed_active_bytes == 55.5 * MIB + 1024
    assert result.replayed_allocated_peak_bytes == 55.5 * MIB + 1024


def test_a_pickle_is_read_like_json(tmp_path):
    assert load_snapshot(written(tmp_path, pickle.dumps(content()))) == load_snapshot(FIXTURE)


def test_the_first_difference_is_named():
    """In two steps between powers of two, 9.5 MiB are 12: a segment of its own, not one of 20."""
    result = compare(load_snapshot(FIXTURE), settings=Settings(roundup_power2_divisions=(2,) * 16))
    assert result.first_difference == Difference(
        event=3, action="alloc", recorded_bytes=42 * MIB, replayed_bytes=34 * MIB
    )


def test_the_settings_of_the_snapshot_count():
    events = ("segment_map", 20, A), ("alloc", 5, A), ("segment_map", 20, A + 20 * MIB), ("alloc", 30, A + 5 * MIB)
    expandable = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "max_split_size": -1}
    assert compare(snapshot(*events, allocator_settings=expandable)).first_difference is None
    ordinary = compare(snapshot(*events)).first_difference
    assert ordinary == Difference(event=3, action="alloc", recorded_bytes=40 * MIB, replayed_bytes=50 * MIB)
    with pytest.raises(PlanError):
        compare(snapshot(*events, allocator_settings={"PYTORCH_ALLOC_CONF": "expandable_segments:yes"}))


def test_pages_that_were_there_before_cannot_be_placed():
    pages = Segment(address=A, total_size=20 * MIB, segment_type="large", is_expandable=True)
    with pytest.raises(AutotuneError, match="from the start of the process"):
        compare(snapshot(("alloc", 5, A), segments=(pages,)))


def test_unmapped_pages_are_given_back():
    events = [
        ("segment_map", 40, A),
        ("alloc", 40, A),
        ("free_requested", 40, A),
        ("free_completed", 40, A),
        ("segment_unmap", 40, A),
        ("alloc", 0.5, B),
    ]
    result = compare(snapshot(*events), settings=Settings(expandable_segments=True))
    assert result.first_difference == Difference(event=5, action="alloc", recorded_bytes=0, replayed_bytes=2 * MIB)


def test_a_segment_that_was_there_before_and_is_given_back():
    """It held 15 and a free 15 MiB, which serve 14 first: only what was undone from the end can know."""
    events = [
        ("alloc", 14, A + 15 * MIB),
        ("free_requested", 14, A + 15 * MIB),
        ("free_completed", 14, A + 15 * MIB),
        ("free_completed", 15, A),
        ("segment_free", 30, A),
    ]
    result = compare(snapshot(*events))
    assert result.first_difference is None
    assert result.replayed_reserved_peak_bytes == 30 * MIB
    assert result.replayed_active_bytes == 0


def test_a_segment_that_was_there_before_and_free():
    empty = Segment(
        address=A, total_size=20 * MIB, segment_type="large", blocks=(Block(size=20 * MIB, state="inactive"),)
    )
    result = compare(snapshot(("alloc", 5, A), ("free_requested", 5, A), ("free_completed", 5, A), segments=(empty,)))
    assert result.first_difference is None
    assert result.replayed_reserved_peak_bytes == 20 * MIB


def test_private_pools_and_unknown_events_are_passed_over():
    graph = Event(action="segment_alloc", addr=A, size=20 * MIB, pool_id=(0, 1))
    news = Event(action="workspace_snapshot", addr=A, size=20 * MIB)
    result = compare(Snapshot(device_traces=((graph, news),)))
    assert result.first_difference is None
    assert result.recorded_reserved_peak_bytes == 0


def test_the_device_is_the_one_with_events():
    event = Event(action="segment_alloc", addr=A, size=20 * MIB)
    alone = compare(Snapshot(device_traces=((), (event,))))
    assert alone.recorded_reserved_peak_bytes == 20 * MIB
    both = Snapshot(device_traces=((event,), (event,)))
    assert compare(both, device=1) == alone
    for device in (None, 2, -1):
        with pytest.raises(AutotuneError, match=r"devices \[0, 1\]"):
            compare(both, device=device)


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([("free_completed", 5, A)], "lies in no segment"),
        ([("free_completed", 5, A), ("free_completed", 5, A + MIB), ("segment_free", 20, A)], "has no room"),
        ([("free_completed", 30, A), ("segment_free", 20, A)], "has no room"),
        ([("free_completed", 0, A), ("segment_free", 20, A)], "has no room"),
    ],
)
def test_contradictions_are_named(events, words):
    with pytest.raises(AutotuneError, match=words):
        compare(snapshot(*events))


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pickle.dumps(Evil()), r"holds builtins\.exec"),
        (pickle.dumps({"device_traces": [[Path("x")]]}), "holds pathlib"),
        (pickle.dumps({"device_traces": []})[:-3], "is no snapshot"),
        (b"\x80\x04\x8a", "is no snapshot"),
        (b"", "is no snapshot"),
        (b"PK\x03\x04", "is no snapshot"),
        (b"[" * 100_000, "is no snapshot"),
        (b"[]", "its content"),
        (b"{}", "device_traces: Field required"),
        (b'{"device_traces": 5}', "device_traces"),
        (b'{"device_traces": [[{"action": "alloc", "size": -1}]]}', r"device_traces\.0\.0\.size"),
        (b'{"device_traces": [[{"action": "alloc", "size": 1e300}]]}', r"device_traces\.0\.0\.size"),
        (b'{"device_traces": [[{"size": 1}]]}', r"device_traces\.0\.0\.action"),
        (b'{"device_traces": [], "segments": [{"address": 0}]}', r"segments\.0\.total_size"),
    ],
)
def test_other_files_are_refused(tmp_path, data, words):
    with pytest.raises(AutotuneError, match=words):
        load_snapshot(written(tmp_path, data))


def test_a_file_that_names_one_list_again_and_again_is_refused(tmp_path):
    events = [{"action": "alloc", "size": 1}] * 1000
    segment = {
        "address": 0,
        "total_size": 0,
        "segment_type": "large",
        "blocks": [{"size": 1, "state": "inactive"}] * 999,
    }
    for repeated in ({"device_traces": [events] * 1000}, {"device_traces": [], "segments": (segment,) * 1000}):
        with pytest.raises(AutotuneError, match="repeats itself"):
            load_snapshot(written(tmp_path, pickle.dumps(repeated)))
