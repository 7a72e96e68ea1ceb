"""What is being done and how much is left, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Told", "watched"]

Told = Callable[[str, int, int], None]
"""Takes a stage, what is done of it, and how much there is."""

_LINES = 10  # for a stage, beside the one that it begins with
_PATIENCE_S = 2.0  # nobody needs a line about what is over by then


@contextmanager
def watched(what: str, *, silent: bool) -> Iterator[Told]:
    """A callback for `Question.progress`.

    Args:
        what: what is being worked on, until the first report names a stage.
        silent: say nothing in any case.
    """
    if silent or sys.stderr is None:
        yield _nothing
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _in_lines(what)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    left = (TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(compact=True))
    with Progress(TextColumn("{task.description}"), BarColumn(), *left, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        stages: dict[str, None] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in stages:  # whose speed says nothing about this one's
                stages[stage] = None
                bar.reset(task, total=total)
            bar.update(task, description=f"{what}: {stage}", completed=done, total=total)

        yield report


def _nothing(_stage: str, _done: int, _total: int) -> None:
    """Said to nobody."""


def _in_lines(what: str) -> Told:
    """A line when a stage begins and at every tenth of it, once the work has taken a while."""
    begun_s = time.monotonic()
    said: dict[str, int] = {}

    def report(stage: str, done: int, total: int) -> None:
        part = _LINES * done // total if total else 0
        if time.monotonic() - begun_s < _PATIENCE_S or part <= said.get(stage, -1):
            return
        said[stage] = part
        share = done / total if total else 0.0
        print(f"{what}: {stage}, {done} of {total} ({share:.0%})", file=sys.stderr, flush=True)  # noqa: T201 - its job

    return report
