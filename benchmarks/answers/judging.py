"""Compares an answer with what was wanted; each difference is a sentence with both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

from autotune.records.plan import OFF
from autotune.records.precision import Precision
from autotune.units import GB
from benchmarks.answers.asking import WIDTHS, Answer
from benchmarks.answers.questions import Against, Bounds, Question, Wanted

__all__ = ["judged", "lines_at_100"]

_OUTCOMES = {0: "plan", 3: "does not fit"}
_CODES = {"UsageError": 2, "DoesNotFitError": 3}
_FIGURES = {
    "needs_gb": ("needed_bytes", GB),
    "peak_gb": ("process_bytes", GB),
    "live_gb": ("allocated_bytes", GB),
    "ram_gb": ("host_ram_bytes", GB),
    "seconds": ("latency_s", 1),
    "step_s": ("step_s", 1),
    "bar": ("latency_margin", 1),
}
_NARROW_LINES = 12  # six lines that may each wrap once


def judged(question: Question, answer: Answer) -> list[str]:
    """What is wrong with the answer; empty where it is right."""
    return list(_wrong(question, answer))


def lines_at_100(answer: Answer) -> int:
    """Rows of the answer at 100 columns."""
    return len(answer.text.get(WIDTHS[0], "").splitlines())


def _wrong(question: Question, answer: Answer) -> Iterator[str]:
    wanted = question.wanted
    outcome = _outcome(wanted, answer)
    if outcome != wanted.outcome:
        yield f"wanted: {wanted.outcome}; got: {outcome}: {answer.message or _shortened(answer)}"
        return
    if answer.document is None and wanted.outcome != "listed":
        yield "wanted: one JSON document with --json; got: none"
        return
    if wanted.error is not None and answer.error != wanted.error:
        yield f"wanted: {wanted.error}; got: {answer.error}: {answer.message}"
    if question.ask is not None and answer.error and answer.code != _CODES.get(answer.error, 1):
        yield f"wanted: exit code {_CODES.get(answer.error, 1)} for {answer.error}; got: {answer.code}"
    if wanted.outcome == "plan":
        yield from _plan(wanted, answer)
    if wanted.smallest_gb is not None:
        yield from _within("smallest_gb", wanted.smallest_gb, answer.document["error"]["smallest_bytes"] / GB)
    yield from _words("the answer", wanted.says, wanted.says_not, _said(wanted, answer))
    yield from _words("-v", wanted.details_say, wanted.details_say_not, answer.details)
    if answer.error or answer.explained is not None:
        yield from _lines(wanted, answer)


def _outcome(wanted: Wanted, answer: Answer) -> str:
    if answer.error == "internal":
        return "a crash"
    if answer.code == 0 and wanted.outcome == "listed":
        return "listed"
    return _OUTCOMES.get(answer.code, "refused")


def _plan(wanted: Wanted, answer: Answer) -> Iterator[str]:
    document = answer.document if isinstance(answer.document, dict) else {}
    document = document.get("best", document) or {}
    if "estimate" not in document:
        figured = wanted.model_dump(exclude_defaults=True, include={*_FIGURES, "lane", "levers", "call", "against"})
        if figured:
            yield f"wanted: a plan with {', '.join(figured)}; got: {_shortened(answer)}"
        return
    yield from _figures(wanted, document["estimate"], "")
    if wanted.fits is not None and document["fits"] != wanted.fits:
        yield f"wanted: fits={wanted.fits}; got: {document['fits']}"
    if wanted.lane is not None and document["plan"]["lane"] != wanted.lane:
        yield f"wanted: lane {wanted.lane}; got: {document['plan']['lane']}"
    yield from _levers(wanted.levers, document["plan"], "")
    for name, patterns in wanted.not_levers.items():
        value = _written(document["plan"], name)
        if _matches(value, patterns):
            yield f"wanted: {name} not {patterns}; got: {value}"
    for name, value in wanted.call.items():
        if document["workload"].get(name) != value:
            yield f"wanted: a call with {name}={value}; got: {document['workload'].get(name)}"
    if wanted.cap_gb is not None:
        yield from _within("cap_gb", wanted.cap_gb, document["cap_bytes"] / GB)
    if wanted.against is not None:
        yield from _against(wanted.against, document, answer)
    if wanted.front_has:
        rows = answer.front.candidates if answer.front is not None else ()
        plans = [row.plan.model_dump(mode="json") for row in rows]
        if not any(all(_matches(_written(plan, name), p) for name, p in wanted.front_has.items()) for plan in plans):
            yield f"wanted: a front with a plan of {wanted.front_has}; got: none among {len(plans)}"


def _against(wanted: Against, document: Mapping[str, Any], answer: Answer) -> Iterator[str]:
    compared = document.get("compared")
    if compared is None:
        yield "wanted: a line 'against'; got: no plan to compare with"
        return
    yield from _levers(wanted.levers, compared["plan"], "against: ")
    yield from _figures(wanted, compared["estimate"], "against: ")
    if wanted.fits is not None and answer.explained is not None:
        caps = (answer.explained.cap_bytes, answer.explained.ram_cap_bytes)
        fits = answer.explained.compared.fits(*caps)
        if fits != wanted.fits:
            yield f"wanted: against: fits={wanted.fits}; got: {fits}"


def _figures(wanted: Bounds, estimate: Mapping[str, Any], who: str) -> Iterator[str]:
    for name, (key, unit) in _FIGURES.items():
        bounds = getattr(wanted, name)
        if bounds is not None:
            yield from _within(who + name, bounds, estimate[key] / unit)
    if wanted.measured_s is not None:
        seconds, bar = estimate["latency_s"], estimate["latency_margin"]
        most = float("inf") if bar >= 1 else seconds * (1 + bar)  # from there on it is printed as a lower bound
        if not seconds * (1 - bar) <= wanted.measured_s <= most:
            yield f"wanted: {who}a bar that reaches {wanted.measured_s:g} s; got: {seconds:.4g} s +-{bar:.0%}"


def _within(name: str, bounds: tuple[float, float], value: float) -> Iterator[str]:
    if not bounds[0] <= value <= bounds[1]:
        yield f"wanted: {name} in [{bounds[0]:g}, {bounds[1]:g}]; got: {value:.4g}"


def _levers(wanted: Mapping[str, Any], plan: Mapping[str, Any], who: str) -> Iterator[str]:
    for name, patterns in wanted.items():
        value = _written(plan, name)
        if not _matches(value, patterns):
            yield f"wanted: {who}{name}={patterns}; got: {value}"


def _written(plan: Mapping[str, Any], name: str) -> Any:
    """A lever's value; what stays as found is off in a model that is only named."""
    value = plan.get(name)
    if value is None:
        return OFF.get(name, "as_is")
    return Precision(value).written if name == "dtype" else value


def _matches(value: Any, patterns: Any) -> bool:
    alternatives = patterns if isinstance(patterns, list) else [patterns]
    texts = (str(value).casefold(), [str(one).casefold() for one in alternatives])
    return any(fnmatchcase(texts[0], one) for one in texts[1])


def _said(wanted: Wanted, answer: Answer) -> str:
    if wanted.outcome in ("refused", "does not fit"):
        return f"{answer.message}\n{answer.text.get(WIDTHS[0], '')}"
    return answer.text.get(WIDTHS[0], "")


def _words(where: str, says: Sequence[str | list[str]], says_not: Sequence[str], said: str) -> Iterator[str]:
    text = _plain(said)
    for words in says:
        alternatives = words if isinstance(words, list) else [words]
        if not any(_plain(one) in text for one in alternatives):
            yield f"wanted: {where} says {' or '.join(map(repr, alternatives))}; got: {_cut(said)}"
    for one in says_not:
        if _plain(one) in text:
            yield f"wanted: {where} does not say {one!r}; got: {_cut(said)}"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).casefold()


def _lines(wanted: Wanted, answer: Answer) -> Iterator[str]:
    for width, text in answer.text.items():
        rows = text.splitlines()
        most = wanted.lines if width == WIDTHS[0] else max(wanted.lines, _NARROW_LINES)
        if len(rows) > most:
            told = next((f": {one!r} {two!r}" for one, two in pairwise(rows) if two.startswith(" ")), "")
            yield f"wanted: at most {most} rows at {width} columns; got: {len(rows)}{told}"
        widest = max(rows, key=len, default="")
        if len(widest) > width and wanted.outcome == "plan":
            yield f"wanted: no row wider than {width} columns; got: {len(widest)}: {widest}"


def _shortened(answer: Answer) -> str:
    return _cut(answer.text.get(WIDTHS[0], "") or str(answer.document))


def _cut(text: str) -> str:
    plain = text.strip()
    return plain if len(plain) <= 700 else f"{plain[:700]}..."
