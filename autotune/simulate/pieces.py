"""Weights that come in pieces while a component runs: leaf by leaf or block by block.

Follows accelerate 1.15 `AlignDevicesHook` (hooks.py), which empties the cache with every tensor that it brings
(`set_module_tensor_to_device`), and diffusers 0.42 hooks/group_offloading.py: with a stream, the next group is brought to the
side stream's pool before the current one runs (`ModuleGroup.onload_`, `GroupOffloadingHook.pre_forward`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count, islice, repeat
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.trace import EventKind, Segment, Trace
from autotune.simulate.heap import LOCAL, STREAM, Code, Rows
from autotune.simulate.program import Border

__all__ = ["Granularity", "Pieces", "block_of", "by_block", "by_leaf", "resident", "with_pieces"]


_CODE = LOCAL - 1
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
    moved, counts = _moves(rows[at].tolist(), pieces, first_slot)
    places = np.repeat(at - np.cumsum(is_border)[at] + 1, counts[:-1])
    inserted = np.array(moved, dtype=np.int64).reshape(-1, 3)
    inserted[:, 2] = blocks(inserted[:, 2])
    kept = rows[~is_border]
    return np.insert(kept, np.append(places, np.full(counts[-1], len(kept))), inserted, axis=0)


def block_of(path: str, trace: Trace) -> str | None:
    """The block that the module is, or lies in; None if there is none."""
    while path:
        if path in trace.blocks:
            return path
        path = path.rpartition(".")[0]
    return None


def _moves(borders: list[list[int]], pieces: Pieces, first_slot: int) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Rows of what is moved, and how many of them belong to each border and to the end."""
    order = [row for code, row, _ in borders if code == Border.ENTER and row in pieces.sizes]
    slots = count(first_slot)
    held: dict[int | None, list[int]] = {}
    moves: list[tuple[int, int, int]] = []

    def bring(piece: int | None, sizes: tuple[int, ...], code: int) -> None:
        if piece not in held:
            held[piece] = taken = list(islice(slots, len(sizes)))
            moves.extend(zip(repeat(code), taken, sizes, strict=False))

    def send(piece: int | None) -> None:
        for slot in held.pop(piece, ()):
            moves.append((Code.FREE + LOCAL, slot, 0))

    here, there = Code.MALLOC + LOCAL, Code.MALLOC + LOCAL + STREAM * pieces.stream
    counts, entered = [], 0
    for code, row, _ in borders:
        before = len(moves)
        if code == Border.ENTER:
            bring(None, pieces.rest, here)
            if row in pieces.sizes:
                entered += 1
                for piece in (row, *(order[entered : entered + 1] if pieces.stream else ())):
                    bring(piece, pieces.sizes[piece], there)
                if pieces.empties_cache:
                    moves.append((Code.EMPTY, 0, 0))
        else:
            send(row)
        counts.append(len(moves) - before)
    before = len(moves)
    for piece in list(held):
        send(piece)
    return moves, [*counts, len(moves) - before]
