"""The file that `torch.cuda.memory._dump_snapshot` writes, or the same as JSON: what the allocator did, and what is there.

A file may come from anyone: unpickling makes numbers, strings and containers and nothing else.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import ConfigDict, Field, ValidationError

from autotune.errors import AutotuneError
from autotune.records.base import Record

__all__ = ["OWN_POOL", "Block", "Event", "Segment", "Snapshot", "load_snapshot"]

_Bytes = Annotated[int, Field(ge=0, lt=2**48)]
_Address = Annotated[int, Field(ge=0, lt=2**64)]
_PoolId = tuple[int, int]
OWN_POOL: _PoolId = (0, 0)  # others are private pools, of CUDA graphs and of `torch.cuda.MemPool`


class _Read(Record):
    model_config = ConfigDict(extra="ignore")


class Event(_Read):
    """`TraceEntry` in torch/cuda/memory.py."""

    action: str
    """"alloc", "free_requested", "free_completed", "segment_alloc", ...; those that are not known are passed over."""
    addr: _Address = 0
    size: _Bytes = 0
    """Of an allocation what was asked for, of a segment its bytes."""
    stream: _Address = 0
    pool_id: _PoolId = OWN_POOL


class Block(_Read):
    """`Block` there; blocks cover their segment in order."""

    size: _Bytes
    requested_size: _Bytes = 0
    state: str


class Segment(_Read):
    """`Segment` there, at the time of the snapshot."""

    address: _Address
    total_size: _Bytes
    stream: _Address = 0
    segment_type: Literal["small", "large"]
    device: int = 0
    is_expandable: bool = False
    segment_pool_id: _PoolId = OWN_POOL
    active_size: _Bytes = 0
    blocks: tuple[Block, ...] = ()


class Snapshot(_Read):
    """What is there at the end, and the events that led to it, oldest first, by device."""

    segments: tuple[Segment, ...] = ()
    device_traces: tuple[tuple[Event, ...], ...]
    allocator_settings: dict[str, Any] = {}


class _Unpickler(pickle.Unpickler):
    """Numbers, strings and containers: whatever would have to be imported is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds {module}.{name}")


def load_snapshot(path: str | Path) -> Snapshot:
    """The snapshot in a file, pickled or JSON.

    Raises:
        AutotuneError: something else, or something that would have to be executed to be read.
    """
    data = Path(path).read_bytes()
    try:
        content = _Unpickler(io.BytesIO(data)).load() if data[:1] == pickle.PROTO else json.loads(data)
    except Exception as error:  # a broken pickle can raise nearly anything
        raise AutotuneError(f"{path} is no snapshot of the allocator: {error or type(error).__name__}") from error
    if _count(content) > len(data):  # a few bytes can name one list a million times
        raise AutotuneError(f"{path} is no snapshot of the allocator: it repeats itself")
    try:
        return Snapshot.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        raise AutotuneError(f"{path} is no snapshot of the allocator: {where}: {first['msg']}") from error


def _count(content: object) -> int:
    """Entries of the lists that will be read."""
    if not isinstance(content, Mapping):
        return 0
    traces, segments = content.get("device_traces"), content.get("segments")
    lists = [traces, segments]
    if isinstance(traces, list | tuple):
        lists += traces
    if isinstance(segments, list | tuple):
        lists += [part.get("blocks") for part in segments if isinstance(part, Mapping)]
    return sum(len(part) for part in lists if isinstance(part, list | tuple))
