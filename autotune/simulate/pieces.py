"""Weights that come in pieces while a component runs: leaf by leaf or block by block.

Follows accelerate 1.15 `AlignDevicesHook` (hooks.py), which empties the cache with every tensor that it brings
(`set_module_tensor_to_device`), and diffusers 0.42 hooks/group_offloading.py: with a stream, the next group is brought to the
side stream's pool before the current one runs (`ModuleGroup.onload_`, `GroupOffloadingHook.pre_forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.trace import EventKind, Segment, Trace
from autotune.simulate.heap import LOCAL, STREAM, Code, Rows
from autotune.simulate.program import Border

__all__ = ["Granularity", "Pieces", "block_of", "by_block", "by_leaf", "resident", "with_pieces"]


_CODE = LOCAL - 1
_REST = -1
Granularity = Literal["leaf", "block"]


class Pieces(NamedTuple):
    """Weights of a component that come while it runs."""

    sizes: Mapping[int, tuple[int, ...]]
    """Bytes of the tensors of each piece, by the module that it comes and goes with: its row in the segment's `modules`."""
    rest: tuple[int, ...] = ()
    """Of the tensors in no piece: they come with the call and stay to its end."""
    stream: int = 0
    """Where pieces are brought to. With a stream of their own the next one is brought before a piece runs."""
    empties_cache: bool = False
    """Whether the cache is emptied with every piece."""


def by_leaf(segment: Segment) -> Pieces:
    """Each module with weights of its own is a piece, in one tensor."""
    entered = (segment.kind == EventKind.ENTER) & (segment.size > 0)
    rows, sizes = segment.ref[entered].tolist(), segment.size[entered].tolist()
    return Pieces({row: (size,) for row, size in zip(rows, sizes, strict=True)})


def by_block(segment: Segment, trace: Trace) -> Pieces:
    """Each block of the network's lists is a piece."""
    rows = {path: row for row, path in enumerate(segment.modules) if path in trace.blocks}
    sizes: dict[int, tuple[int, ...]] = dict.fromkeys(rows.values(), ())
    rest: tuple[int, ...] = ()
    for path, own in trace.tensors.items():
        if path.partition(".")[0] == segment.component:
            owner = block_of(path, trace)
            if owner is None:
                rest += own
            elif owner in rows:
                sizes[rows[owner]] += own
    return Pieces(sizes, rest)


def resident(rows: Rows) -> Rows:
    """The segment's rows where no weights come or go."""
    return rows[(rows[:, 0] & _CODE) < Border.ENTER]


def with_pieces(rows: Rows, pieces: Pieces, blocks: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Rows:
    """The segment's rows with those of weights that come and go between them.

    Args:
        rows: with borders of modules.
        pieces: what comes and goes there.
        blocks: rounds sizes to those of blocks.
    """
    is_border = (rows[:, 0] & _CODE) >= Border.ENTER
    matters = is_border & np.isin(rows[:, 1], list(pieces.sizes))
    matters[np.argmax(is_border)] = is_border.any()  # what is in no piece comes with the first module
    at = np.flatnonzero(matters)
    first_slot = int(rows[(rows[:, 0] & LOCAL) > 0, 1].max(initial=-1)) + 1
    steps, counts = _steps(rows[at].tolist(), pieces)
    moved, lengths = _moves(steps, pieces, first_slot, blocks)
    ends = np.concatenate([[0], np.cumsum(lengths)])[np.cumsum(counts)]  # rows of each border and all before it
    places = np.repeat(at - np.cumsum(is_border)[at] + 1, np.diff(ends[:-1], prepend=0))
    kept = rows[~is_border]
    return np.insert(kept, np.append(places, np.full(ends[-1] - len(places), len(kept))), moved, axis=0)


def block_of(path: str, trace: Trace) -> str | None:
    """The block that the module is, or lies in; None if there is none."""
    while path:
        if path in trace.blocks:
            return path
        path = path.rpartition(".")[0]
    return None


_BRING_REST, _BRING, _SEND, _EMPTY = range(4)


def _steps(borders: list[list[int]], pieces: Pieces) -> tuple[list[tuple[int, int]], list[int]]:
    """What is done with which piece, -1 being what is in none, and how many steps belong to each border and to the end."""
    order = [row for code, row, _ in borders if code == Border.ENTER and row in pieces.sizes]
    held: dict[int, None] = {}
    steps: list[tuple[int, int]] = []
    counts, entered = [], 0
    for code, row, _ in borders:
        before = len(steps)
        if code != Border.ENTER:
            if row in held:
                del held[row]
                steps.append((_SEND, row))
        else:
            if _REST not in held:
                steps.append((_BRING_REST, _REST))
                held[_REST] = None
            if row in pieces.sizes:
                entered += 1
                for piece in (row, *(order[entered : entered + 1] if pieces.stream else ())):
                    if piece not in held:
                        steps.append((_BRING, piece))
                        held[piece] = None
                if pieces.empties_cache:
                    steps.append((_EMPTY, _REST))
        counts.append(len(steps) - before)
    steps += [(_SEND, piece) for piece in held]
    return steps, [*counts, len(held)]


def _moves(
    steps: list[tuple[int, int]],
    pieces: Pieces,
    first_slot: int,
    blocks: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> tuple[Rows, NDArray[np.int64]]:
    """The rows of the steps, one for each tensor of their piece, and how many each has."""
    tensors = {_REST: pieces.rest, **pieces.sizes}
    numbers = {piece: number for number, piece in enumerate(tensors)}
    held = np.array([len(sizes) for sizes in tensors.values()], dtype=np.int64)
    sizes = blocks(np.array([size for own in tensors.values() for size in own], dtype=np.int64))
    firsts = np.cumsum(held) - held  # of each piece's tensors
    done, piece = np.array([(what, numbers[row]) for what, row in steps], dtype=np.int64).reshape(-1, 2).T
    lengths = np.where(done == _EMPTY, 1, held[piece])
    tensor = (
        np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(firsts[piece], lengths)
    )
    done = np.repeat(done, lengths)
    empties = done == _EMPTY
    tensor[empties] = 0
    there = Code.MALLOC + LOCAL + STREAM * pieces.stream
    codes = np.array([Code.MALLOC + LOCAL, there, Code.FREE + LOCAL, Code.EMPTY], dtype=np.int64)
    rows: Rows = np.empty((len(done), 3), dtype=np.int64)
    rows[:, 0] = codes[done]
    rows[:, 1] = np.where(empties, 0, first_slot + tensor)
    rows[:, 2] = np.where(done <= _BRING, sizes[tensor] if len(sizes) else 0, 0)
    return rows, lengths
