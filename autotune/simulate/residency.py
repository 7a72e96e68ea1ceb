"""Which components' weights are on the device during each segment, and what is moved to get there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from autotune.records.placement import Placement

__all__ = ["Move", "Stay", "residency"]


class Move(NamedTuple):
    """A component's weights going in or out."""

    direction: Literal["in", "out"]
    component: str


class Stay(NamedTuple):
    """What is on the device during one segment, and what was moved just before it."""

    components: frozenset[str]
    moves: tuple[Move, ...]


def residency(placement: Placement, callers: Sequence[str]) -> list[Stay]:
    """One stay for each segment; `callers` names the component of each, empty for the pipeline's own code.

    Weights that come piece by piece are no part of a stay: the segment's own events tell them.
    """
    here = set(placement.resident)
    stays = []
    for caller in callers:
        out = [name for name in sorted(here) if caller and caller in placement.of(name).leaves_before]
        here.difference_update(out)
        comes = caller not in here and placement.of(caller).comes_whole
        moves = [*(Move("out", name) for name in out), *([Move("in", caller)] if comes else [])]
        here |= {caller} if comes else set()
        stays.append(Stay(frozenset(here), tuple(moves)))
    return stays
