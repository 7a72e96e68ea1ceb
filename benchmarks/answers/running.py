"""Asks all questions and judges what comes, in one process or several.

A process is renewed after some questions: traces are large.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from typing import NamedTuple

from benchmarks.answers.questions import Question

__all__ = ["Judgement", "all_judged", "judge"]

_QUESTIONS_OF_A_PROCESS = 12


class Judgement(NamedTuple):
    """A question's answer, judged."""

    id: str
    wrong: tuple[str, ...]
    contradictions: tuple[str, ...]
    lines: int
    seconds: float
    text: str


def judge(question: Question) -> Judgement:
    """Asks one question and judges what comes."""
    from benchmarks.answers.asking import WIDTHS, ask
    from benchmarks.answers.contradictions import contradictions
    from benchmarks.answers.judging import judged, lines_at_100

    try:
        answer = ask(question)
        wrong = tuple(judged(question, answer))
        lines = lines_at_100(answer) if answer.error or answer.explained is not None else 0
        return Judgement(
            question.id, wrong, tuple(contradictions(answer)), lines, answer.seconds, answer.text.get(WIDTHS[0], "")
        )
    except Exception as error:  # one question that cannot be judged takes no other with it
        return Judgement(question.id, (f"it could not be judged: {type(error).__name__}: {error}",), (), 0, 0.0, "")


def all_judged(questions: Sequence[Question], jobs: int) -> list[Judgement]:
    """A judgement for each question, in their order; one line each on standard error as they come."""
    found: dict[str, Judgement] = {}
    for place, one in enumerate(_judging(questions, jobs), start=1):
        found[one.id] = one
        mark = "; ".join((*one.wrong, *(f"denies itself: {said}" for said in one.contradictions))) or "right"
        print(f"{place}/{len(questions)} {one.id}: {mark} ({one.seconds:.1f} s)", file=sys.stderr, flush=True)
    return [found[question.id] for question in questions]


def _judging(questions: Sequence[Question], jobs: int) -> Iterator[Judgement]:
    if jobs < 2:
        yield from map(judge, questions)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores among themselves
    with get_context("spawn").Pool(jobs, maxtasksperchild=_QUESTIONS_OF_A_PROCESS) as pool:
        yield from pool.imap_unordered(judge, questions)
