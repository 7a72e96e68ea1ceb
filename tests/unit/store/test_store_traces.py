"""Traced calls as files: what is put away comes back, and what somebody else has put there does not."""

from __future__ import annotations

import errno
import logging
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.records.kept import KeptCall, KeptTrace
from autotune.records.plan import Plan
from autotune.records.trace import EventKind
from autotune.records.workload import Workload
from autotune.store import calls, files
from autotune.store.calls import CallStore, key_of
from autotune.store.key import versions
from autotune.store.traces import packed, read, unpacked, written
from tests.unit.handmade import model, op, segment, trace

KEY = "1f0c"
SHARED = segment((EventKind.ALLOC, 0, 512), (EventKind.FREE, 0, 512), ops=(op(flops=7.5),))
OTHER = segment((EventKind.ALLOC, 3, 1024), component="vae", phase="decoding")
TRACES = [trace(SHARED, OTHER, weights={"unet": 8192}), trace(SHARED, SHARED, weights={"unet": 4096})]


def kept(key=KEY, traces=TRACES):
    pieces = packed(traces)
    plain = Plan().model_dump(mode="json")
    call = KeptCall(
        key=key,
        versions=versions(),
        model=model("unet", "vae"),
        workload=Workload(height=512, width=512),
        found=plain,
        precise=plain,
        refused=(),
        tried=(),
        offers={},
        frames=pieces.frames,
        modules=pieces.modules,
        segments=pieces.segments,
        traces=tuple(
            KeptTrace(execution={}, frame=frame, segments=segments) for frame, segments in pieces.places
        ),
    )  # fmt: skip
    return call, pieces.arrays


def same(one, other):
    """Whether two traces say the same."""
    for mine, theirs in zip(one.segments, other.segments, strict=True):
        for name in type(mine).model_fields:
            a, b = getattr(mine, name), getattr(theirs, name)
            if isinstance(a, np.ndarray):
                assert (a.dtype, a.tolist()) == (b.dtype, b.tolist())
            else:
                assert a == b
    return all(
        getattr(one, name) == getattr(other, name) for name in type(one).model_fields if name != "segments"
    )  # fmt: skip


def test_traces_come_back_and_what_they_share_is_shared():
    found = unpacked(*read(written(*kept())))
    assert all(map(same, found, TRACES))
    assert found[0].segments[0] is found[1].segments[0] is found[1].segments[1]
    assert len(packed(TRACES).segments) == 2


@given(st.data())
def test_a_file_that_was_tampered_with_gives_the_same_or_nothing(data):
    whole = written(*kept())
    place = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    changed = (
        whole[:place]
        if cut
        else whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    )
    try:
        found = unpacked(*read(changed))
    except ValueError:
        return
    assert all(map(same, found, TRACES))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", -1), ("kind", len(EventKind)), ("ref", -1), ("size", -1), ("size", 2**62), ("op_class", 99),
        ("op_dtype", -1), ("op_flops", np.nan), ("op_bytes", np.inf), ("op_kernels", -1), ("op_conv_bytes", -1),
    ],
)  # fmt: skip
def test_rows_that_mean_nothing_are_refused(name, value):
    call, arrays = kept()
    arrays = {**arrays, name: arrays[name].copy()}
    arrays[name][0] = value
    with pytest.raises(ValueError, match=r"^(an event|a kernel) is none$"):
        unpacked(*read(written(call, arrays)))


@pytest.mark.parametrize(
    "kind", [EventKind.OP, EventKind.ENTER, EventKind.EXIT, EventKind.ATTENTION, EventKind.ATTENTION_END]
)
def test_references_to_nowhere_are_refused(kind):
    lost = segment((EventKind.ALLOC, 0, 512))
    call, arrays = kept(traces=[trace(lost, weights={})])
    arrays = {**arrays, "kind": np.array([kind], dtype=np.int8), "ref": np.array([9], dtype=np.int32)}
    with pytest.raises(ValueError, match=r"an event is none"):
        unpacked(
            call, {name: array[:1] if name in {"kind", "ref", "size"} else array for name, array in arrays.items()}
        )


def test_pieces_that_are_missing_or_left_over_are_refused():
    call, arrays = kept()
    short = {**arrays, "ref": arrays["ref"][:-1]}
    long = {**arrays, "ref": np.append(arrays["ref"], np.int32(0))}
    for wrong in (short, long):
        with pytest.raises(ValueError, match=r"rows are (missing|left over)"):
            unpacked(call, wrong)
    for field, value in (("frame", 9), ("segments", (9,))):
        lost = call.model_copy(update={"traces": (call.traces[0].model_copy(update={field: value}),)})
        with pytest.raises(ValueError, match="a piece is missing"):
            unpacked(lost, arrays)


def test_arrays_of_another_kind_are_refused():
    call, arrays = kept()
    for wrong in (arrays["size"].astype(np.int32), arrays["size"].reshape(-1, 1), np.array(7)):
        with pytest.raises(ValueError, match="size is of another kind"):
            read(written(call, {**arrays, "size": wrong}))


class TestFolder:
    """A folder of files that many may write to."""

    def test_a_call_is_found_under_its_key_alone(self, tmp_path, caplog):
        store = CallStore(tmp_path / "calls")
        assert store.find(KEY) is None
        store.save(*kept())
        assert all(map(same, unpacked(*store.find(KEY)), TRACES))
        (tmp_path / "calls" / f"{KEY}.npz").rename(tmp_path / "calls" / "2b.npz")
        assert store.find(KEY) is store.find("2b") is None
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert "2b.npz is ignored: it is another call's. The call is traced anew" in caplog.text

    @pytest.mark.parametrize("data", [b"", b"PK", b"not a zip" * 99])
    def test_a_broken_file_is_a_miss_in_one_line_and_written_anew(self, data, tmp_path, caplog):
        store = CallStore(tmp_path)
        (tmp_path / f"{KEY}.npz").write_bytes(data)
        assert store.find(KEY) is None
        assert len(caplog.messages) == 1
        assert "\n" not in caplog.messages[0]
        store.save(*kept())
        assert store.find(KEY) is not None

    def test_a_folder_in_the_files_place_is_a_miss(self, tmp_path, caplog):
        (tmp_path / f"{KEY}.npz").mkdir()
        assert CallStore(tmp_path).find(KEY) is None
        assert "not a file" in caplog.text

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
    def test_a_disk_that_takes_nothing_is_no_error(self, code, tmp_path, monkeypatch, caplog):
        caplog.set_level(logging.INFO)

        def refuse(path, data):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(files, "write", refuse)
        CallStore(tmp_path).save(*kept())
        assert [record.levelno for record in caplog.records if record.name == "autotune"] == [logging.INFO]
        assert os.strerror(code) in caplog.text
        assert CallStore(tmp_path).find(KEY) is None

    def test_what_a_killed_process_has_left_is_swept_away(self, tmp_path):
        old, new = tmp_path / ".1f.npz.7.tmp", tmp_path / ".2b.npz.8.tmp"
        for path in (old, new):
            path.touch()
        os.utime(old, (0, 0))
        CallStore(tmp_path).save(*kept())
        assert (old.exists(), new.exists()) == (False, True)

    def test_an_editors_lock_beside_our_code_is_no_error(self, monkeypatch, tmp_path):
        (tmp_path / "store").mkdir()
        (tmp_path / ".#flow.py").symlink_to("nobody@nowhere")
        monkeypatch.setattr(calls, "__file__", str(tmp_path / "store" / "calls.py"))
        assert len(calls._code.__wrapped__()) == 16

    def test_what_was_used_longest_ago_makes_room(self, tmp_path):
        one = len(written(*kept()))
        store = CallStore(tmp_path, most_bytes=2 * one + one // 2)
        for number, key in enumerate(("first", "second")):
            store.save(*kept(key))
            os.utime(tmp_path / f"{key}.npz", (number, number))
        assert store.find("first") is not None  # which makes it the newest
        store.save(*kept("third"))
        assert store.find("second") is None
        assert None not in (store.find("first"), store.find("third"))
        CallStore(tmp_path / "small", most_bytes=one - 1).save(*kept())
        assert not (tmp_path / "small").exists()


def test_another_version_or_other_code_has_another_key(monkeypatch):
    call = Workload(height=512, width=512)
    keys = {key_of("1f0c", call), key_of("2b", call), key_of("1f0c", Workload(height=768, width=512))}
    with monkeypatch.context() as patch:
        patch.setattr(calls, "versions", lambda: {"torch": "2.9.0"})
        keys.add(key_of("1f0c", call))
    monkeypatch.setattr(calls, "_code", lambda: "edited")
    keys.add(key_of("1f0c", call))
    assert len(keys) == 5
