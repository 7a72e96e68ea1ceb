"""One recorded call of a module, and how it is written down again without being made.

A call leaves three things behind: what it returns, what it has written into lists that it was given (the caches of VAEs that
go from frame to frame), and the ends of tensors that only these lists held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from autotune.records.trace import EventKind
from autotune.trace.record import Recorder
from autotune.trace.tape import Op, Rows, Tape
from autotune.upstream.fakes import undispatched, viewed

__all__ = ["PLAIN", "Before", "Lengths", "Recording", "captured", "holders_in", "lengths", "written_again"]

PLAIN = (int, float, str, bool, type(None), torch.dtype)
"""Values that are as good as their copies."""
Lengths = tuple[int, int, int]
"""Of a tape: its events, operators and attentions."""
_H = TypeVar("_H", list[Any], dict[Any, Any])


class _View(NamedTuple):
    """A tensor that a call leaves behind: a view of a storage that it made, or of an argument's."""

    argument: int | None
    """Place among the leaves of the arguments of one that has this storage."""
    number: int
    """Of the storage, where the call made it."""
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    """In elements; of an argument's storage from where the argument starts."""
    dtype: torch.dtype


class Before(NamedTuple):
    """What is known of a call's arguments when it is over and they may be gone."""

    storages: Mapping[int, int]
    """The place of the first leaf with a storage, by the storage's address."""
    numbers: Mapping[int, int]
    """The same by the number under which the storage was recorded."""
    views: Mapping[int, tuple[torch.dtype, int]]
    """The type and the offset of those leaves."""
    lists: tuple[list[Any], ...]
    dicts: tuple[tuple[dict[Any, Any], tuple[Any, ...]], ...]
    """Each with what it holds, by identity."""

    @classmethod
    def of(cls, leaves: Sequence[Any], arguments: Any, recorder: Recorder) -> Before:
        """Of a call that is about to be made."""
        storages: dict[int, int] = {}
        numbers: dict[int, int] = {}
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, torch.Tensor):
                storages.setdefault(leaf.untyped_storage()._cdata, place)
                number = recorder.number_of(leaf)
                if number is not None:
                    numbers.setdefault(number, place)
        views = {place: (leaves[place].dtype, int(leaves[place].storage_offset())) for place in storages.values()}
        dicts = tuple((one, _held(one)) for one in holders_in(arguments, dict))
        return cls(storages, numbers, views, tuple(holders_in(arguments, list)), dicts)


class Recording(NamedTuple):
    """What one call wrote, and what it left behind."""

    path: str
    events: Rows
    born: NDArray[np.int64]
    """Numbers of the storages that it made, ascending."""
    ops: list[Op]
    attentions: list[Any]
    modules: list[str]
    starts: Lengths
    ended: Mapping[int, int]
    """Storages from before the call that ended in it: the place of a leaf that had them, by number."""
    kept: Mapping[int, int]
    """Bytes of storages that it left alive, by number."""
    outputs: list[Any]
    spec: TreeSpec
    written: list[list[Any]]
    """What is in the lists afterwards."""


def lengths(tape: Tape) -> Lengths:
    """Where the tape is now."""
    return len(tape.events), len(tape.ops), len(tape.attentions)


def holders_in(value: Any, kind: type[_H]) -> Iterator[_H]:
    """The lists, or dictionaries, among a call's arguments."""
    if isinstance(value, kind):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from holders_in(item, kind)


def captured(
    path: str, tape: Tape, starts: Lengths, before: Before, output: Any, recorder: Recorder
) -> Recording | None:
    """What the call wrote, if it can be written again: all that it leaves alive it returns, or puts into the lists."""
    events = tape.events.since(starts[0])
    made, gone = (events[events[:, 0] == kind] for kind in (EventKind.ALLOC, EventKind.FREE))
    ended = {ref: before.numbers.get(ref) for ref in np.setdiff1d(gone[:, 1], made[:, 1]).tolist()}
    if None in ended.values():
        return None
    alive = dict(made[~np.isin(made[:, 1], gone[:, 1]), 1:].tolist())
    returned, spec = tree_flatten(output)
    left = [[_left(leaf, alive, before, recorder) for leaf in leaves] for leaves in (returned, *before.lists)]
    if any(one is NotImplemented for leaves in left for one in leaves) or any(
        _held(d) != was for d, was in before.dicts
    ):
        return None
    if {one.number for leaves in left for one in leaves if isinstance(one, _View) and one.argument is None} != set(
        alive
    ):
        return None
    return Recording(
        path=path,
        events=events,
        born=np.sort(made[:, 1]),
        ops=tape.ops[starts[1] :],
        attentions=tape.attentions[starts[2] :],
        modules=list(tape.modules),
        starts=starts,
        ended={ref: place for ref, place in ended.items() if place is not None},
        kept=alive,
        outputs=left[0],
        spec=spec,
        written=left[1:],
    )


def written_again(
    recording: Recording,
    path: str,
    leaves: list[Any],
    lists: Sequence[list[Any]],
    recorder: Recorder,
    mode: FakeTensorMode,
) -> Any:
    """Writes the call's events with numbers of their own, and leaves behind what it would have: its output is returned.

    `leaves` is empty afterwards: what only the lists held has ended by then, and that is told where the call ended it.
    """
    tape = recorder.tape
    first = recorder.new_numbers(len(recording.born))
    old = {ref: _Old.of(leaves[place], recorder) for ref, place in recording.ended.items()}
    made = _Made(recording, first, leaves, recorder, mode)
    with undispatched(), torch._C.DisableTorchFunction():
        written = [[made.tensor(item) for item in items] for items in recording.written]
        output = tree_unflatten([made.tensor(item) for item in recording.outputs], recording.spec)
    del made
    leaves.clear()
    start = len(tape.events)
    for given, items in zip(lists, written, strict=True):
        given[:] = items
    others = tape.events.cut(start)  # ends of which the recorded call knows nothing
    ended = {ref: storage.number for ref, storage in old.items() if storage.has_ended(recorder)}
    tape.events.extend(_renumbered(recording, path, first, ended, tape))
    tape.events.extend(others)
    tape.ops += recording.ops
    tape.attentions += recording.attentions
    return output


def _renumbered(recording: Recording, path: str, first: int, ended: Mapping[int, int], tape: Tape) -> Rows:
    """The recorded events as they are here.

    Args:
        recording: what is written again.
        path: of the module here.
        first: number of the first storage that is made.
        ended: of storages from before the call the number here; those that somebody else holds do not end.
        tape: what has been written.
    """
    rows = recording.events.copy()
    kind, ref = rows[:, 0], rows[:, 1]
    is_made = kind == EventKind.ALLOC
    is_end = kind == EventKind.FREE
    is_own = is_made | (is_end & np.isin(ref, recording.born))
    is_border = (kind == EventKind.ENTER) | (kind == EventKind.EXIT)
    is_op = kind == EventKind.OP
    is_attention = ~(is_made | is_end | is_border | is_op)
    ref[is_own] = first + np.searchsorted(recording.born, ref[is_own])
    ref[is_op] += len(tape.ops) - recording.starts[1]
    ref[is_attention] += len(tape.attentions) - recording.starts[2]
    entered, which = np.unique(ref[is_border], return_inverse=True)
    modules = (path + recording.modules[row].removeprefix(recording.path) for row in entered.tolist())
    ref[is_border] = np.array([tape.modules.setdefault(here, len(tape.modules)) for here in modules], dtype=np.int64)[
        which
    ]
    is_kept = ~is_end | is_own
    for row in np.flatnonzero(is_end & ~is_own).tolist():
        number = ended.get(int(ref[row]))
        is_kept[row] = number is not None
        ref[row] = -1 if number is None else number
    found: Rows = rows[is_kept]
    return found


def _held(dictionary: dict[Any, Any]) -> tuple[Any, ...]:
    return tuple((key, id(value)) for key, value in dictionary.items())


def _left(leaf: Any, alive: Mapping[int, int], before: Before, recorder: Recorder) -> Any:
    """How to make what was left behind; NotImplemented where that is not known."""
    if isinstance(leaf, PLAIN):
        return leaf
    if not isinstance(leaf, torch.Tensor):
        return NotImplemented
    number, argument = recorder.number_of(leaf), before.storages.get(leaf.untyped_storage()._cdata)
    if number in alive:
        argument = None  # a storage may have the address of an argument's that is gone
    elif argument is None or (number is not None and before.numbers.get(number) != argument):
        return NotImplemented
    offset = int(leaf.storage_offset())
    if argument is not None:
        dtype, first = before.views[argument]
        if dtype != leaf.dtype:
            return NotImplemented
        offset -= first
    return _View(
        argument, -1 if number is None else number, tuple(leaf.shape), tuple(leaf.stride()), offset, leaf.dtype
    )


class _Old(NamedTuple):
    """A storage from before a call that ends in it. Its end is told by hand, so the recorder is not to."""

    key: int
    number: int

    @classmethod
    def of(cls, leaf: torch.Tensor, recorder: Recorder) -> _Old:
        """The storage of an argument."""
        number = recorder.number_of(leaf)
        assert number is not None  # it had one when the call was recorded, and calls are told apart by that
        return cls(recorder.mute(leaf), number)

    def has_ended(self, recorder: Recorder) -> bool:
        """Whether it is gone; if not, the recorder will tell."""
        return recorder.has_ended(self.key, self.number)


class _Made:
    """Tensors that are left behind; two views of one storage are two views of one storage, and one view twice is one tensor."""

    def __init__(
        self,
        recording: Recording,
        first: int,
        leaves: Sequence[Any],
        recorder: Recorder,
        mode: FakeTensorMode,
    ) -> None:
        self._recording, self._first, self._leaves = recording, first, leaves
        self._recorder, self._mode = recorder, mode
        self._bases: dict[int, torch.Tensor] = {}
        self._views: dict[_View, torch.Tensor] = {}

    def tensor(self, item: Any) -> Any:
        """A view made again; a plain value as it is."""
        if not isinstance(item, _View):
            return item
        if item not in self._views:
            self._views[item] = self._view(item)
        return self._views[item]

    def _view(self, view: _View) -> torch.Tensor:
        """Made of a tensor on the meta device, without a way through the dispatcher."""
        if view.argument is not None:
            leaf: torch.Tensor = self._leaves[view.argument]
            if (tuple(leaf.shape), tuple(leaf.stride()), 0) == (view.shape, view.stride, view.offset):
                return leaf
            offset = int(leaf.storage_offset()) + view.offset
            return viewed(self._mode, leaf, view.shape, view.stride, offset, view.dtype)
        base = self._bases.get(view.number)
        if base is None:
            size_bytes = self._recording.kept[view.number]
            base = torch.empty(size_bytes // view.dtype.itemsize, dtype=view.dtype, device="meta")
            number = self._first + int(np.searchsorted(self._recording.born, view.number))
            self._bases[view.number] = base
            self._recorder.bind(base, number, size_bytes)
        return viewed(self._mode, base, view.shape, view.stride, view.offset, view.dtype)
