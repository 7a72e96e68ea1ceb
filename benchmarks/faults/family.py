"""All faults of one family: in a process of its own, beside those of the others."""

from __future__ import annotations

import logging
import random
import signal
import warnings
from collections.abc import Iterator

import diffusers

from benchmarks.faults.plans import scenes_of
from benchmarks.faults.scenes import Counts, Point, Scene, sample

__all__ = ["EVERY", "suffered"]

EVERY = ("sd", "flux")
"""The families in which every point of the plan of every lever is tried."""
_IMAGE_EVERY = 4  # of the exhaustive points; the tensors are compared at each


def every(scene: Scene, plan: str) -> Iterator[Point]:
    """Each point of applying a plan and of taking it back, broken off by one exception; of another those of its rollback."""
    for phase in {"everything": ("apply", "undo"), "model": ("rollback",)}.get(plan, ()):
        last = scene.count(phase)
        for at in range(last):
            where = (last - 1, at) if phase == "rollback" else (at, 0)
            yield Point(phase, "KeyboardInterrupt", *where)


def suffered(family: str, per_scene: int, seed: int, whole: bool) -> tuple[Counts, int, int]:
    """All faults of a family; and pipelines and bytes that stay once they are let go."""
    diffusers.utils.logging.set_verbosity_error()
    logging.getLogger("autotune").disabled = True  # what is told of broken calls
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    counts, unfreed, leaked_bytes = Counts(), 0, 0
    for name, scene in scenes_of(family):
        for point in sample(scene, per_scene, random.Random(f"{seed} {family} {name}")):
            scene.suffer(point, counts)
        for number, point in enumerate(every(scene, name) if whole and family in EVERY else ()):
            scene.suffer(point, counts, look=number % _IMAGE_EVERY == 0)
        if name != "traced":  # torch.jit.trace keeps what it traced
            kept, left_bytes = scene.unfreed()
            unfreed, leaked_bytes = unfreed + kept, leaked_bytes + left_bytes
    return counts, unfreed, leaked_bytes
