"""An explanation for a notebook: the six lines, then where the bytes and seconds go, and why each lever."""

from __future__ import annotations

from autotune.records.html import lines_html, table
from autotune.report.explanation import Explanation
from autotune.report.tables import LEVER_TITLES, PHASE_TITLES, lever_rows, phase_rows
from autotune.report.text import six_lines

__all__ = ["explanation_html"]


def explanation_html(explained: Explanation) -> str:
    """The six lines, the phases and the reasons."""
    phases = table("Phases, simulated", PHASE_TITLES, phase_rows(explained.chosen.estimate))
    levers = table("Levers that have a choice", LEVER_TITLES, lever_rows(explained))
    return lines_html(six_lines(explained)) + phases + levers
