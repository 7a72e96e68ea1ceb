"""One fault in one scene: a tiny pipeline in some state of its owner's, a plan, and what must hold afterwards."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

import torch

from autotune.guard.applying import apply, optimized_of, restore
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from benchmarks.faults.inject import ERRORS, AtChange, AtLine, AtUndo, Injector
from benchmarks.faults.seen import Seen, weights_of

__all__ = ["PHASES", "Counts", "Point", "Scene", "sample"]

_DEEP = 8  # undos of a rollback among which the second fault comes


@dataclass
class Counts:
    """What is wanted of all points together: `points` many, and nothing of the rest."""

    points: int = 0
    not_reached: int = 0
    wrong_images: int = 0
    half_applied: int = 0
    said: list[str] = field(default_factory=list)
    """What was wrong, a line each."""


@dataclass(frozen=True)
class Point:
    """A fault: in which phase, by what, at which point of it."""

    phase: str
    error: str
    at: int
    also: int = 0
    """For a rollback: at which of its points the second fault comes."""


class Scene:
    """A pipeline that lives through many faults; one that does not survive is built again.

    Args:
        name: for messages.
        build: makes the pipeline, in the state that its owner has it in.
        run: a seeded call.
        plan: the plan.
        device: where it runs.
        workload: the resolved call.
        denoisers: what a trace showed of the denoisers.
    """

    def __init__(
        self,
        name: str,
        build: Callable[[], Any],
        run: Callable[[Any], torch.Tensor],
        plan: Plan,
        *,
        device: Device,
        workload: Workload,
        denoisers: dict[str, DenoiserFacts],
    ) -> None:
        self.name, self._build, self._run, self.plan = name, build, run, plan
        self._apply = partial(apply, plan=plan, device=device, workload=workload, denoisers=denoisers)
        self._fresh()

    def _fresh(self) -> None:
        self.pipe = self._build()
        self.plain = self._run(self.pipe)
        self._apply(self.pipe)
        self.planned = self._run(self.pipe)
        restore(self.pipe)
        self._before = Seen(self.pipe)

    def count(self, phase: str) -> int:
        """How many points the phase has."""
        counter = _injector(phase, None, "KeyboardInterrupt")
        if phase in {"restore line", "call"}:
            self._apply(self.pipe)
        with counter:
            if phase == "call":
                self._run(self.pipe)
            elif phase == "restore line":
                restore(self.pipe)
            else:
                self._apply(self.pipe)
                if phase == "undo":
                    restore(self.pipe)
        restore(self.pipe)
        return counter.points

    def suffer(self, point: Point, counts: Counts, *, look: bool = True) -> None:
        """One fault, and whether the pipeline is right afterwards; with `look` an image is made too."""
        counts.points += 1
        PHASES[point.phase](self, point, counts)
        wrong = list(self._before.differences(self.pipe))
        if wrong:
            counts.half_applied += 1
            self._note(counts, point, f"{wrong[0]} and {len(wrong) - 1} more")
        elif look and not self._gives(self.plain):
            counts.wrong_images += 1
            self._note(counts, point, "another image, or none")
            wrong = ["an image"]
        if wrong:
            self._fresh()

    def _gives(self, image: torch.Tensor) -> bool:
        """Whether a call gives this image; one that raises gives none."""
        try:
            return torch.equal(self._run(self.pipe), image)
        except Exception:
            return False

    def _note(self, counts: Counts, point: Point, words: str) -> None:
        counts.said.append(f"{self.name}, {self.plan.changes}, {point}: {words}")

    def _failing(self, injector: Injector, do: Callable[[], object], counts: Counts) -> None:
        """Does it under the injector, which is to break it off."""
        with injector:
            try:
                do()
            except BaseException as error:
                if not injector.was_reached:
                    counts.said.append(f"{self.name}, {self.plan.changes}: {type(error).__name__}: {error}")
        counts.not_reached += not injector.was_reached

    def in_apply(self, point: Point, counts: Counts) -> None:
        """A plan that is broken off: nothing of it is left, or all of it where the point lies behind its end."""
        injector = _injector(point.phase, point.at, point.error)
        self._failing(injector, lambda: self._apply(self.pipe), counts)
        under = optimized_of(self.pipe)
        if under is not None and under.is_whole:
            restore(self.pipe)

    def in_rollback(self, point: Point, counts: Counts) -> None:
        """A plan that is broken off, and its rollback too: nothing is left, or `restore` goes on."""
        with AtUndo(point.also, ERRORS[point.error]):
            self._failing(AtChange(point.at, ERRORS[point.error]), lambda: self._apply(self.pipe), counts)
        restore(self.pipe)

    def in_restore(self, point: Point, counts: Counts) -> None:
        """A plan that is broken off while it is taken back: called again, `restore` goes on."""
        injector = _injector(point.phase, point.at, point.error)
        if isinstance(injector, AtUndo):  # undos are counted from when they are pushed
            self._failing(injector, lambda: (self._apply(self.pipe), restore(self.pipe)), counts)
        else:
            self._apply(self.pipe)
            self._failing(injector, lambda: restore(self.pipe), counts)
        restore(self.pipe)

    def in_call(self, point: Point, counts: Counts) -> None:
        """A call that is broken off: the next one is right, and so is what is left when the plan goes."""
        self._apply(self.pipe)
        self._failing(_injector(point.phase, point.at, point.error), lambda: self._run(self.pipe), counts)
        if not self._gives(self.planned):
            counts.wrong_images += 1
            self._note(counts, point, "another image at the next call, or none")
        restore(self.pipe)

    def unfreed(self) -> tuple[int, int]:
        """Pipelines that somebody keeps once they are let go under the plan, and the bytes of weights that stay with them."""
        pipe = self._build()
        self._apply(pipe)
        self._run(pipe)
        alive = ref(pipe)
        weights = [ref(tensor) for tensor in weights_of(pipe).values()]
        del pipe
        gc.collect()
        left = [tensor for tensor in (weight() for weight in weights) if tensor is not None]
        return int(alive() is not None), sum(tensor.numel() * tensor.itemsize for tensor in left)


def _injector(phase: str, at: int | None, error: str) -> Injector:
    kinds = {"apply": AtChange, "rollback": AtChange, "undo": AtUndo}
    return kinds.get(phase, AtLine)(at, ERRORS[error])


PHASES: dict[str, Callable[[Scene, Point, Counts], None]] = {
    "apply": Scene.in_apply,
    "apply line": Scene.in_apply,
    "rollback": Scene.in_rollback,
    "undo": Scene.in_restore,
    "restore line": Scene.in_restore,
    "call": Scene.in_call,
}
"""Where a fault may come, by name: at changes and lines of applying, at undos and lines of restoring, in a rollback and in a
call."""


def sample(scene: Scene, count: int, chance: random.Random) -> Iterator[Point]:
    """So many points, as many in each phase as in any other, each with an exception by chance."""
    sizes = {phase: scene.count(phase) for phase in PHASES}
    for number in range(count):
        phase = list(PHASES)[number % len(PHASES)]
        also = chance.randrange(2 * _DEEP) if phase == "rollback" else 0
        yield Point(phase, chance.choice(list(ERRORS)), chance.randrange(sizes[phase]), also)
