"""`python -m benchmarks.answers [--questions FILE] [--names FILE] [--only PATTERN ...] [--jobs N] [--json OUT]`.

Prints one table of figures, then each wrong answer with what was wanted and what came. Ends with 0 only if all is right.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.answers.names import NAMES, read_names, resolved
from benchmarks.answers.questions import QUESTIONS, BadQuestionsError, Question, read_questions
from benchmarks.answers.running import Judgement, all_judged

__all__ = ["figures_of", "main"]

MOST_LINES, MOST_REFUSAL_S = 6, 0.5


def figures_of(
    judgements: Sequence[Judgement], wrong_names: int, names: int, refusals: dict[str, Any]
) -> dict[str, float]:
    """The figures, by name."""
    return {
        "questions": len(judgements),
        "answers_right": sum(not one.wrong for one in judgements),
        "names_resolved": names - wrong_names,
        "names_total": names,
        "contradictions": sum(len(one.contradictions) for one in judgements),
        "lines_max": max((one.lines for one in judgements), default=0),
        "refusal_s_max": round(max((one.seconds for one in refusals.values()), default=0.0), 3),
    }


def _timed(questions: Sequence[Question]) -> dict[str, Any]:
    from benchmarks.answers.refusals import timed

    asked = [q for q in questions if q.ask and not q.made and q.wanted.outcome == "refused" and q.wanted.timed]
    return {question.id: timed(question.words) for question in asked}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("--questions", type=Path, default=QUESTIONS, metavar="FILE", help="questions (docs/answers.md)")
    parser.add_argument("--names", type=Path, default=NAMES, metavar="FILE", help="names of cards and models")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="PATTERN", help="questions whose id matches: 'row-05*'"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that answer side by side")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write figures and every answer to this file")
    return parser.parse_args()


def main() -> int:
    """Runs it all.

    Returns:
        The exit code: 0 all right, 1 something is not, 2 a file does not keep to its format.
    """
    given = _arguments()
    try:
        questions = [one for one in read_questions(given.questions) if any(fnmatchcase(one.id, p) for p in given.only)]
        names = read_names(given.names)
    except BadQuestionsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    begun = time.perf_counter()
    judgements = all_judged(questions, given.jobs)
    wrong_names = [wrong for name in names.cards if (wrong := resolved(name, kind="card"))]
    wrong_names += [wrong for name in names.models if (wrong := resolved(name, kind="model"))]
    refusals = _timed(questions)  # when no worker of ours takes time from them
    figures = figures_of(judgements, len(wrong_names), len(names.cards) + len(names.models), refusals)
    _show(figures, judgements, wrong_names, refusals)
    if given.json is not None:
        document = {
            "figures": figures,
            "seconds": round(time.perf_counter() - begun, 1),
            "answers": [one._asdict() for one in judgements],
            "wrong_names": wrong_names,
            "refusals": {name: one._asdict() for name, one in refusals.items()},
        }
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(not _all_right(figures, refusals))


def _all_right(figures: dict[str, float], refusals: dict[str, Any]) -> bool:
    whole = figures["answers_right"] == figures["questions"] and figures["names_resolved"] == figures["names_total"]
    quick = figures["refusal_s_max"] <= MOST_REFUSAL_S and not any(one.torch for one in refusals.values())
    return whole and quick and not figures["contradictions"] and figures["lines_max"] <= MOST_LINES


def _show(
    figures: dict[str, float], judgements: Sequence[Judgement], wrong_names: list[str], refusals: dict[str, Any]
) -> None:
    from autotune.cli.show import page, show_table

    rows = ((name, f"{value:g}") for name, value in figures.items())
    show_table(page(), "Answers", ("figure", ">value"), rows)
    for one in judgements:
        for said in one.wrong:
            print(f"\n{one.id}\n  {said}")
        for said in one.contradictions:
            print(f"\n{one.id}\n  denies itself: {said}")
    for said in wrong_names:
        print(f"\nname {said}")
    for name, one in refusals.items():
        if one.torch or one.seconds > MOST_REFUSAL_S:
            print(f"\nrefusal {name}: {one.seconds:.2f} s ({one.cpu_s:.2f} s of CPU){', torch imported' * one.torch}")


if __name__ == "__main__":
    sys.exit(main())
