"""Undos, each pushed before the change that it takes back, so that whatever is raised in between leaves nothing half done.

An undo may be run before its change was made, in the middle of it, and twice: it brings back what was, and nothing else. So an
exception at any point rolls back to the bit, and `restore` can be called again after it was interrupted. Ctrl-C waits for
the end of a change or of an undo, each of which is short; a rollback it does not interrupt at all.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from autotune.errors import AutotuneError
from autotune.upstream import internals

__all__ = ["ABSENT", "Journal", "Slot", "Table", "Undo", "fill", "interrupts_wait"]

Undo = Callable[[], object]
Table = MutableMapping[str, Any]

ABSENT: Any = object()
"""What stands in a table where there is nothing."""


class Slot(NamedTuple):
    """What stood in a table before a change: read by who asks what a pipeline was like, without taking anything back."""

    table: Table
    key: str
    before: Any


Was = Callable[[], Iterable[Slot]]


class _Entry(NamedTuple):
    """An undo, whose change it takes back, and what was there before."""

    whose: str
    undo: Undo
    was: Was


class Journal:
    """What was changed, the latest last, and how each change is taken back."""

    def __init__(self) -> None:
        self.whose = ""
        """Who makes the changes that follow, for messages."""
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, undo: Undo, was: Was = tuple) -> None:
        """Remembers how to take back what is done next. The undo must be right before, after and in the middle of that."""
        self._entries.append(_Entry(self.whose, undo, was))

    def change(self, write: Callable[[], object], undo: Undo, was: Was = tuple) -> None:
        """Makes one change that no Ctrl-C cuts in two."""
        with interrupts_wait():
            self.push(undo, was)
            write()

    def put(self, table: Table, key: str, value: Any) -> None:
        """Sets an item."""
        slot = Slot(table, key, table.get(key, ABSENT))
        self.change(lambda: table.__setitem__(key, value), lambda: fill(slot), lambda: (slot,))

    def set(self, holder: Any, name: str, value: Any) -> None:
        """Sets an attribute of the instance, which a module keeps apart from its parameters and children."""
        self.put(vars(holder), name, value)

    def hook(self, module: torch.nn.Module, function: Callable[..., Any], *, before: bool) -> None:
        """Has torch call the function, with keyword arguments, before or after the module's forward."""
        register = module.register_forward_pre_hook if before else module.register_forward_hook
        self.change(
            lambda: register(function, with_kwargs=True),
            lambda: internals.unhook(module, function),
        )

    def was(self) -> Iterator[Slot]:
        """What stood where before the changes, the latest first."""
        for entry in reversed(self._entries):
            yield from entry.was()

    def undo(self) -> None:
        """Takes back every change, the latest first. What fails, or is interrupted, stays with all before it for another try.

        Raises:
            AutotuneError: an undo failed; says what is left.
        """
        while self._entries:
            entry = self._entries[-1]
            with interrupts_wait():
                try:
                    entry.undo()
                except Exception as error:
                    left = ", ".join(dict.fromkeys(entry.whose for entry in reversed(self._entries)))
                    raise AutotuneError(
                        f"undoing {entry.whose} failed: {error or type(error).__name__}; still to be undone: {left}; "
                        "call autotune.restore(pipe) again, or load the pipeline again"
                    ) from error
                self._entries.pop()

    def roll_back(self) -> None:
        """The same after a change that failed: Ctrl-C waits for its end, and an undo that fails is tried once more."""
        with interrupts_wait():
            try:
                self.undo()
            except BaseException:  # such as no memory, which there may be now
                self.undo()


def fill(slot: Slot) -> None:
    """What stood in the slot stands there again."""
    if slot.before is ABSENT:
        slot.table.pop(slot.key, None)
    else:
        slot.table[slot.key] = slot.before


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """A Ctrl-C inside takes effect at the end. Only the main thread is ever interrupted by one."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    received: list[tuple[int, Any]] = []
    try:
        signal.signal(signal.SIGINT, lambda number, frame: received.append((number, frame)))
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if received:
            before(*received[0])
