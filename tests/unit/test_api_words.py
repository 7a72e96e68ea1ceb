"""Who hears what `optimize` says: standard error, the logger where it has a handler, nobody where that is asked for."""

from __future__ import annotations

import logging

import pytest

import autotune
from autotune.api import _say
from autotune.report.explanation import Explanation
from autotune.report.progress import watched
from benchmarks import tiny
from tests.unit.handmade import CARD, candidate, front


@pytest.fixture
def answer():
    one = candidate()
    return Explanation(
        state="optimised", model="m", workload=front(one).workload, device=CARD, cap_bytes=2 * 10**9, chosen=one
    )


@pytest.fixture
def logger():
    log = logging.getLogger("autotune")
    level, handlers = log.level, list(log.handlers)
    log.setLevel(logging.NOTSET)
    log.handlers[:] = []
    yield log
    log.setLevel(level)
    log.handlers[:] = handlers


class Heard(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def test_without_a_handler_it_is_standard_error(answer, logger, capsys):
    _say(answer)
    told = capsys.readouterr()
    assert told.out == ""
    assert "expect " in told.err
    assert len(told.err.splitlines()) <= 6


def test_a_handler_hears_it_instead(answer, logger, capsys):
    heard = Heard()
    logger.addHandler(heard)
    _say(answer)
    assert any(line.startswith("expect ") for line in heard.lines)
    assert capsys.readouterr().err == ""
    assert logger.level == logging.NOTSET


def test_who_wants_warnings_only_hears_nothing(answer, logger, capsys):
    logger.setLevel(logging.WARNING)
    _say(answer)
    heard = Heard()
    logger.addHandler(heard)
    _say(answer)
    assert (heard.lines, capsys.readouterr().err) == ([], "")


def test_optimize_speaks_unless_told_not_to(logger, capsys):
    call = {"height": 64, "width": 64}
    pipe = autotune.optimize(tiny.sd(), workload=call, profiles=False, verbose=False)
    assert capsys.readouterr().err == ""
    autotune.optimize(pipe, workload=call, profiles=False)
    told = capsys.readouterr()
    assert "expect " in told.err
    assert told.out == ""


def test_a_candidate_is_applied_by_its_plan():
    pipe = tiny.sd()
    autotune.apply(pipe, candidate(autotune.Plan(vae_tiling=32)), workload={"height": 64, "width": 64})
    assert pipe.vae.use_tiling
    autotune.restore(pipe)


def test_progress_in_lines_is_one_for_each_tenth(capsys, monkeypatch):
    monkeypatch.setattr("autotune.report.progress._PATIENCE_S", 0.0)
    with watched("sd15", silent=False) as report:
        for done in range(101):
            report("searching", done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sd15: searching, 0 of 100 (0%)"
    assert lines[-1] == "sd15: searching, 100 of 100 (100%)"
    assert len(lines) == 11


def test_progress_says_nothing_of_what_is_soon_over_or_asked_to_be_silent(capsys):
    for silent in (False, True):
        with watched("sd15", silent=silent) as report:
            report("tracing", 1, 2)
    assert capsys.readouterr().err == ""
