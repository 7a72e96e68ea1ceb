"""A progress bar on standard error, for a person who watches; silent for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["watched"]


@contextmanager
def watched(what: str, *, silent: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A callback for `Question.progress`. Nothing is drawn where standard error is no terminal.

    Args:
        what: what is being worked on, until the first report names a stage.
        silent: draw nothing in any case.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=silent or not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def report(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{what}: {stage}", completed=done, total=total)

        yield report
