"""Raising at a chosen point: at the n-th change of ours, at the n-th undo, or at the n-th line of code that runs.

The injector counts points while it waits for its own, so a run without one says how many there are.
"""

from __future__ import annotations

import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import wraps
from types import FrameType, TracebackType
from typing import Any
from unittest.mock import patch

import torch

from autotune.levers.journal import Journal

__all__ = ["ERRORS", "AtChange", "AtLine", "AtUndo", "Injector"]

# Whose lines count: what the levers call, and the levers themselves. The journal's own lines and the machinery of `with` are no
# boundary between changes.
_WATCHED = (
    "/autotune/levers/",
    "/autotune/upstream/",
    "/diffusers/",
    "/accelerate/",
    "/peft/",
    "/torch/nn/modules/module.py",
)
_UNWATCHED = ("/levers/journal.py",)


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _raise(error: type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error("injected")

    return fail


ERRORS: dict[str, Callable[[], None]] = {
    "KeyboardInterrupt": _raise(KeyboardInterrupt),
    "MemoryError": _raise(MemoryError),
    "OutOfMemoryError": _raise(torch.OutOfMemoryError),
    "RuntimeError": _raise(RuntimeError),
    "SIGINT": _interrupt,
}
"""What happens at the point, by name."""


class Injector(ABC):
    """Counts points and fails at one of them.

    Args:
        at: the number of the point, from 0; None to count only.
        fail: what happens there.
    """

    def __init__(self, at: int | None = None, fail: Callable[[], None] = ERRORS["KeyboardInterrupt"]) -> None:
        self.at, self.fail, self.points, self.is_over = at, fail, 0, False

    @property
    def was_reached(self) -> bool:
        """Whether its point came."""
        return self.at is not None and self.points > self.at

    def point(self) -> None:
        """One more. What was left in place by an injector that is over, such as an undo in a journal, fails no more."""
        if self.is_over:
            return
        self.points += 1
        if self.points - 1 == self.at:
            self.fail()

    @abstractmethod
    def __enter__(self) -> Injector:
        """From now on points count."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No longer."""


class AtChange(Injector):
    """Two points for each change: before it is written, its undo being pushed, and after."""

    def __enter__(self) -> AtChange:
        push, change = Journal.push, Journal.change

        @wraps(push)
        def pushed(journal: Journal, *args: Any) -> None:
            push(journal, *args)
            self.point()

        @wraps(change)
        def changed(journal: Journal, *args: Any) -> None:
            change(journal, *args)
            self.point()

        self._patches = [patch.object(Journal, "push", pushed), patch.object(Journal, "change", changed)]
        for one in self._patches:
            one.start()
        return self

    def __exit__(self, *_: Any) -> None:
        for one in self._patches:
            one.stop()


class AtUndo(Injector):
    """Two points for each undo: before it, and after it while it still stands in the journal."""

    def __enter__(self) -> AtUndo:
        push = Journal.push

        @wraps(push)
        def pushed(journal: Journal, undo: Callable[[], object], *args: Any) -> None:
            def around() -> None:
                self.point()
                undo()
                self.point()

            push(journal, around, *args)

        self._patch = patch.object(Journal, "push", pushed)
        self._patch.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._patch.stop()
        self.is_over = True


class AtLine(Injector):
    """One point for each line of the watched files."""

    def __enter__(self) -> AtLine:
        self._before = sys.gettrace()
        sys.settrace(self._entered)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(self._before)

    def _entered(self, frame: FrameType, _: str, __: Any) -> Any:
        name = frame.f_code.co_filename
        watched = any(part in name for part in _WATCHED) and not name.endswith(_UNWATCHED)
        return self._line if watched else None

    def _line(self, _: FrameType, event: str, __: Any) -> Any:
        if event == "line":
            self.point()
        return self._line
