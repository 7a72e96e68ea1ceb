"""From the denoiser calls that were recorded to all of them: the first differs, the later ones are alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from autotune.records.trace import Segment

__all__ = ["over_call_s", "steady_s"]

Timed = Sequence[tuple[Segment, float]]
"""Segments of one call, and the seconds of each."""


def over_call_s(timed: Timed, calls: int) -> float:
    """Seconds of these segments in a call with so many calls of the denoiser; outside denoising each happens once."""
    outside_s = sum(seconds for segment, seconds in timed if segment.turn < 0)
    turns = _turns(timed)
    return outside_s + turns[min(turns)] + (calls - 1) * steady_s(timed) if turns else outside_s


def steady_s(timed: Timed) -> float:
    """Seconds of one later call of the denoiser, with the scheduler's step.

    That step is the pipeline's own code, and the last one's is not told from decoding: those before it stand for it.
    """
    turns = _turns(timed)
    if len(turns) < 2:
        return sum(turns.values())
    first, *later = sorted(turns)
    own = {turn: sum(s for segment, s in timed if segment.turn == turn and not segment.component) for turn in turns}
    networks_s = sum(turns[turn] - own[turn] for turn in later) / len(later)
    return networks_s + sum(own[turn] for turn in (first, *later[:-1])) / len(later)


def _turns(timed: Timed) -> dict[int, float]:
    turns: dict[int, float] = defaultdict(float)
    for segment, seconds in timed:
        if segment.turn >= 0:
            turns[segment.turn] += seconds
    return turns
