"""Traces as bytes and back: a table of what is small, and nine arrays. What comes back is checked before it is relied on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.kept import Frame, KeptCall, KeptSegment
from autotune.records.trace import DTYPES, EventKind, OpClass, Segment, Trace
from autotune.units import GB

__all__ = ["Arrays", "Packed", "facts_in", "packed", "read", "unpacked", "written"]

_LARGEST_BYTES = 2 * GB  # of a file's arrays together; ten minutes of video at full length are some hundred MB
_LARGEST_TENSOR_BYTES = 10_000 * GB
_EVENTS = {"kind": np.int8, "ref": np.int32, "size": np.int64}
_OPS = {
    "op_class": np.int8, "op_dtype": np.int8, "op_flops": np.float64, "op_bytes": np.float64, "op_kernels": np.int32,
    "op_conv_bytes": np.int64,
}  # fmt: skip
_NAMED = ("component", "method", "phase", "turn", "attentions", "weights")
_FACTS = "facts"

Arrays = Mapping[str, NDArray[Any]]


class Packed(NamedTuple):
    """Traces taken apart, each piece once."""

    arrays: Arrays
    frames: tuple[Frame, ...]
    modules: tuple[tuple[str, ...], ...]
    segments: tuple[KeptSegment, ...]
    places: tuple[tuple[int, tuple[int, ...]], ...]
    """Of each trace its frame and its segments."""


def packed(traces: Sequence[Trace]) -> Packed:
    """The pieces of these traces. Segments that several share, as objects, are one."""
    segments = list({id(segment): segment for trace in traces for segment in trace.segments}.values())
    place_of = {id(segment): place for place, segment in enumerate(segments)}
    modules = {paths: place for place, paths in enumerate(dict.fromkeys(segment.modules for segment in segments))}
    shared = [Frame(**{name: getattr(trace, name) for name in Frame.model_fields}) for trace in traces]
    frames = {str(frame): frame for frame in shared}
    frame_of = {text: place for place, text in enumerate(frames)}
    places = [
        (frame_of[str(frame)], tuple(place_of[id(segment)] for segment in trace.segments))
        for trace, frame in zip(traces, shared, strict=True)
    ]
    arrays = {
        name: np.concatenate([getattr(segment, name) for segment in segments]).astype(kind, copy=False)
        for name, kind in (_EVENTS | _OPS).items()
    }
    kept = tuple(_kept(segment, modules[segment.modules]) for segment in segments)
    return Packed(arrays, tuple(frames.values()), tuple(modules), kept, tuple(places))


def _kept(segment: Segment, modules: int) -> KeptSegment:
    named: dict[str, Any] = {name: getattr(segment, name) for name in _NAMED}
    return KeptSegment(**named, events=len(segment.kind), ops=len(segment.op_class), modules=modules)


def unpacked(call: KeptCall, arrays: Arrays) -> list[Trace]:
    """The traces of a call, in its order.

    Raises:
        ValueError: the pieces do not fit together.
    """
    segments, event, op = [], 0, 0
    for kept in call.segments:
        fields: dict[str, Any] = {name: getattr(kept, name) for name in _NAMED}
        fields |= {name: arrays[name][event : event + kept.events] for name in _EVENTS}
        fields |= {name: arrays[name][op : op + kept.ops] for name in _OPS}
        event, op = event + kept.events, op + kept.ops
        segment = Segment(**fields, modules=_at(call.modules, kept.modules))
        _check(segment, kept)
        segments.append(segment)
    if any(len(arrays[name]) != event for name in _EVENTS) or any(len(arrays[name]) != op for name in _OPS):
        raise ValueError("rows are left over")
    whole = [Trace(**{name: getattr(frame, name) for name in Frame.model_fields}, segments=()) for frame in call.frames]
    return [
        _at(whole, one.frame).model_copy(update={"segments": tuple(_at(segments, place) for place in one.segments)})
        for one in call.traces
    ]


def written(call: KeptCall, arrays: Arrays) -> bytes:
    """A file of both."""
    stream = io.BytesIO()
    facts = np.frombuffer(call.model_dump_json().encode(), dtype=np.uint8)
    np.savez_compressed(stream, allow_pickle=False, **{_FACTS: facts}, **arrays)
    return stream.getvalue()


def read(data: bytes) -> tuple[KeptCall, Arrays]:
    """Both from a file.

    Raises:
        ValueError: it is no such file.
    """
    return _read(data, {**_EVENTS, **_OPS})


def facts_in(data: bytes) -> KeptCall:
    """The facts alone, whose arrays are left packed.

    Raises:
        ValueError: it is no such file.
    """
    return _read(data, {})[0]


def _read(data: bytes, wanted: Mapping[str, type[Any]]) -> tuple[KeptCall, Arrays]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(one.file_size for one in archive.infolist()) > _LARGEST_BYTES:
                raise ValueError("its arrays are too large")
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: _array(found[name], kind, name) for name, kind in wanted.items()}
            facts = _array(found[_FACTS], np.uint8, _FACTS)
    except Exception as error:  # a broken archive is met in a dozen ways
        ours = str(error) if type(error) is ValueError and "\n" not in str(error) else "it is no traced call"
        raise ValueError(ours) from error
    return KeptCall.model_validate_json(facts.tobytes()), arrays


def _array(found: Any, kind: type, name: str) -> NDArray[Any]:
    """The array, if it is of that kind."""
    shape = (3,) if name == "op_conv_bytes" else ()
    if (
        not isinstance(found, np.ndarray)
        or found.dtype != kind
        or found.ndim != 1 + len(shape)
        or found.shape[1:] != shape
    ):
        raise ValueError(f"{name} is of another kind")
    return found


def _check(segment: Segment, kept: KeptSegment) -> None:
    """Refuses rows that point outside of their tables."""
    lengths_by_name = dict.fromkeys(_EVENTS, kept.events) | dict.fromkeys(_OPS, kept.ops)
    if any(len(getattr(segment, name)) != length for name, length in lengths_by_name.items()):
        raise ValueError("rows are missing")
    lengths = np.full(len(EventKind), np.iinfo(np.int32).max, dtype=np.int64)
    lengths[EventKind.OP] = kept.ops
    lengths[[EventKind.ENTER, EventKind.EXIT]] = len(segment.modules)
    lengths[[EventKind.ATTENTION, EventKind.ATTENTION_END]] = len(segment.attentions)
    inside = (segment.kind >= 0) & (segment.kind < len(EventKind))
    inside &= (segment.ref >= 0) & (segment.size >= 0) & (segment.size <= _LARGEST_TENSOR_BYTES)
    if not inside.all() or not (segment.ref < lengths[segment.kind]).all():
        raise ValueError("an event is none")
    coded = (segment.op_class >= 0) & (segment.op_class < len(OpClass))
    coded &= (segment.op_dtype >= 0) & (segment.op_dtype < len(DTYPES)) & (segment.op_kernels >= 0)
    coded &= np.isfinite(segment.op_flops) & np.isfinite(segment.op_bytes) & (segment.op_conv_bytes >= 0).all(axis=1)
    if not coded.all():
        raise ValueError("a kernel is none")


def _at(several: Sequence[Any], place: int) -> Any:
    if not 0 <= place < len(several):
        raise ValueError("a piece is missing")
    return several[place]
