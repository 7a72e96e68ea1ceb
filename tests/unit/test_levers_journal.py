"""The journal: undos that are right before, in the middle of and after their change, run twice, and interrupted."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
import torch

from autotune.errors import AutotuneError
from autotune.levers.journal import ABSENT, Journal, fill, interrupts_wait


class Plain:
    """Something with attributes."""

    kind = "of the class"


def control_c() -> None:
    """What a terminal sends."""
    os.kill(os.getpid(), signal.SIGINT)


def test_what_was_there_comes_back_and_what_was_not_goes() -> None:
    holder, table, journal = Plain(), {"a": 1}, Journal()
    journal.set(holder, "kind", "ours")
    journal.put(table, "a", 2)
    journal.put(table, "b", 3)
    assert (holder.kind, table, len(journal)) == ("ours", {"a": 2, "b": 3}, 3)
    journal.undo()
    assert (vars(holder), table, len(journal)) == ({}, {"a": 1}, 0)


def test_what_was_there_can_be_read_while_the_change_is_on() -> None:
    holder, journal = Plain(), Journal()
    journal.set(holder, "kind", "ours")
    journal.set(holder, "kind", "ours again")
    assert [(slot.key, slot.before) for slot in journal.was()] == [("kind", "ours"), ("kind", ABSENT)]
    for slot in journal.was():
        fill(slot)
    assert holder.kind == "of the class"


@pytest.mark.parametrize("before", [True, False])
def test_a_hook_goes_and_others_stay(before: bool) -> None:
    module, journal, called = torch.nn.Linear(1, 1), Journal(), []
    register: Any = module.register_forward_pre_hook if before else module.register_forward_hook
    register(lambda *_: called.append("owner"))
    journal.hook(module, lambda *_: called.append("ours"), before=before)
    module(torch.ones(1))
    assert called == ["owner", "ours"]
    journal.undo()
    called.clear()
    module(torch.ones(1))
    assert called == ["owner"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, torch.OutOfMemoryError])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_change_that_raises_is_taken_back(error: type[BaseException], when: str) -> None:
    table, journal = {"a": 1}, Journal()

    def write() -> None:
        if when == "after":
            table["a"] = 2
        raise error

    with pytest.raises(error):
        journal.change(write, lambda: table.update(a=1))
    journal.roll_back()
    assert (table, len(journal)) == ({"a": 1}, 0)


class TestInterrupted:
    """An undo that is broken off stays, with all before it."""

    def journal_of(self, *undos: Any) -> Journal:
        journal = Journal()
        for number, undo in enumerate(undos):
            journal.whose = f"lever {number}"
            journal.push(undo)
        return journal

    def failing(self, times: int, error: BaseException, done: list[str]) -> Any:
        left = [error] * times

        def undo() -> None:
            if left:
                raise left.pop()
            done.append("it")

        return undo

    def test_undo_goes_on_where_it_stopped(self) -> None:
        done: list[str] = []
        journal = self.journal_of(lambda: done.append("first"), self.failing(1, KeyboardInterrupt(), done))
        with pytest.raises(KeyboardInterrupt):
            journal.undo()
        assert (done, len(journal)) == ([], 2)
        journal.undo()
        assert (done, len(journal)) == (["it", "first"], 0)

    def test_what_fails_says_what_is_left(self) -> None:
        journal = self.journal_of(list, self.failing(1, RuntimeError("no room"), []), list)
        with pytest.raises(AutotuneError) as caught:
            journal.undo()
        assert str(caught.value) == (
            "undoing lever 1 failed: no room; still to be undone: lever 1, lever 0; "
            "call autotune.restore(pipe) again, or load the pipeline again"
        )
        assert len(journal) == 2

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), torch.OutOfMemoryError()])
    def test_a_rollback_tries_again(self, error: BaseException) -> None:
        done: list[str] = []
        journal = self.journal_of(lambda: done.append("first"), self.failing(1, error, done))
        journal.roll_back()
        assert (done, len(journal)) == (["it", "first"], 0)

    def test_a_rollback_that_fails_twice_says_so_and_keeps_the_rest(self) -> None:
        journal = self.journal_of(list, self.failing(2, RuntimeError("no room"), []))
        with pytest.raises(
            AutotuneError, match=r"^undoing lever 1 failed: no room; still to be undone: lever 1, lever 0;"
        ):
            journal.roll_back()
        assert len(journal) == 2


class TestControlC:
    """A SIGINT waits for the next boundary."""

    def test_it_does_not_cut_a_change_in_two(self) -> None:
        table: dict[str, int] = {}
        journal = Journal()

        def write() -> None:
            control_c()
            table["written"] = 1

        with pytest.raises(KeyboardInterrupt):
            journal.change(write, table.clear)
        assert table == {"written": 1}
        journal.roll_back()
        assert table == {}

    def test_it_waits_for_the_end_of_an_undo(self) -> None:
        done: list[str] = []
        journal = Journal()
        journal.push(lambda: done.append("first"))
        journal.push(lambda: (control_c(), done.append("second")))
        with pytest.raises(KeyboardInterrupt):
            journal.undo()
        assert (done, len(journal)) == (["second"], 1)
        journal.undo()
        assert done == ["second", "first"]

    def test_it_waits_for_the_end_of_a_rollback(self) -> None:
        done: list[str] = []
        journal = Journal()
        journal.push(lambda: done.append("first"))
        journal.push(lambda: (control_c(), control_c(), done.append("second")))
        with pytest.raises(KeyboardInterrupt):
            journal.roll_back()
        assert (done, len(journal)) == (["second", "first"], 0)

    def test_the_handler_of_the_program_is_called_and_stays(self) -> None:
        received: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
        try:
            mine = signal.getsignal(signal.SIGINT)
            with interrupts_wait():
                control_c()
                assert received == []
            assert received == [signal.SIGINT]
            assert signal.getsignal(signal.SIGINT) is mine
        finally:
            signal.signal(signal.SIGINT, before)

    @pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
    def test_a_program_that_ignores_it_or_dies_of_it_still_does(self, handler: signal.Handlers) -> None:
        before = signal.signal(signal.SIGINT, handler)
        try:
            with interrupts_wait():
                assert signal.getsignal(signal.SIGINT) is handler
        finally:
            signal.signal(signal.SIGINT, before)

    def test_other_threads_change_things_too(self) -> None:
        table: dict[str, int] = {}
        journal = Journal()
        thread = threading.Thread(target=lambda: journal.put(table, "a", 1))
        thread.start()
        thread.join()
        assert table == {"a": 1}
