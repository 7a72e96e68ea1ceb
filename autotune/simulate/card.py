"""Whose weights are on a card, and the rows of a program that bring and send them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from autotune.records.trace import Trace
from autotune.simulate.heap import NO_ROWS, Code, Rows
from autotune.simulate.programs import Programs

__all__ = ["Card", "joined", "rows_of"]


class Card:
    """A card during a call: components, each in some precision."""

    def __init__(self, programs: Programs, trace: Trace) -> None:
        self._blocks, self._weights = programs.blocks, programs.weights(trace)
        self._shares: dict[str, float] = {}
        self._moved: set[str] = set()

    @property
    def state(self) -> tuple[dict[str, float], set[str]]:
        """What a call starts from: two calls that start from the same are the same."""
        return dict(self._shares), self._moved & set(self._shares)

    def bring(self, name: str) -> Rows:
        """Puts a component's tensors on the card, one by one."""
        if name in self._shares:
            return NO_ROWS
        self._shares[name] = 1.0
        self._moved.discard(name)
        weights = self._weights[name]
        return rows_of(Code.MALLOC, weights.slots, self._blocks(weights.sizes))

    def send(self, name: str) -> Rows:
        """Takes them off."""
        if self._shares.pop(name, None) is None:
            return NO_ROWS
        return rows_of(Code.FREE, self._slots(name), 0)

    def exchange(self, name: str, share: float) -> Rows:
        """Makes each tensor of a component anew in another precision, whose bytes are this share, before the old one goes."""
        if self._shares.get(name, share) == share:
            return NO_ROWS
        old = self._slots(name)
        self._moved ^= {name}
        self._shares[name] = share
        sizes = np.rint(self._weights[name].sizes * share).astype(np.int64)
        pairs = [rows_of(Code.MALLOC, self._slots(name), self._blocks(sizes)), rows_of(Code.FREE, old, 0)]
        return np.stack(pairs, axis=1).reshape(-1, 3)

    def _slots(self, name: str) -> NDArray[np.int64]:
        weights = self._weights[name]
        return weights.others if name in self._moved else weights.slots


def rows_of(code: int, slots: NDArray[np.int64], sizes: NDArray[np.int64] | int) -> Rows:
    """One row for each slot."""
    rows: Rows = np.empty((len(slots), 3), dtype=np.int64)
    rows[:, 0], rows[:, 1], rows[:, 2] = code, slots, sizes
    return rows


def joined(programs: Iterable[Rows]) -> Rows:
    """One after the other."""
    several = [rows for rows in programs if len(rows)]
    return np.concatenate(several) if several else NO_ROWS
