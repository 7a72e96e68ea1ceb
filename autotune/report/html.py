"""Explanations and fronts as small HTML tables for notebooks. Everything that comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from autotune.report.explanation import Explanation
from autotune.report.text import PHASE_TITLES, five_lines, lever_rows, phase_rows
from autotune.units import size

__all__ = ["explanation_html"]


def explanation_html(explained: Explanation) -> str:
    """The five lines, the phases and the reasons."""
    estimate, plan = explained.chosen.estimate, explained.chosen.plan
    verdict = "fits" if explained.fits else "will not fit"
    head = f"<p><b>{escape(explained.state)}</b>: {size(estimate.process_bytes)}, {verdict} (simulated)</p>"
    words = f"<pre>{escape(chr(10).join(five_lines(explained)))}</pre>"
    phases = _table(PHASE_TITLES, phase_rows(estimate))
    levers = _table(("lever", "value", "reason"), lever_rows(plan))
    return head + words + phases + levers


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
