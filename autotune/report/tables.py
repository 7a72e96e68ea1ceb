"""Records as rows of cells, for tables of any kind."""

from __future__ import annotations

from autotune.records.estimate import Estimate
from autotune.records.words import lever_words
from autotune.report.explanation import Explanation
from autotune.units import both_sizes, duration, size

__all__ = ["LEVER_TITLES", "PHASE_TITLES", "lever_rows", "phase_rows"]

PHASE_TITLES = ("phase", "peak", "weights", "activations", "workspace", "overhead", "time", "at")
LEVER_TITLES = ("lever", "value", "reason")


def phase_rows(estimate: Estimate) -> list[tuple[str, ...]]:
    """One row a phase, in the order of `PHASE_TITLES`."""
    return [
        (
            phase.name,
            both_sizes(phase.peak_bytes),
            size(phase.weights_bytes),
            size(phase.activations_bytes),
            size(phase.workspace_bytes),
            size(phase.overhead_bytes),
            duration(phase.latency_s),
            phase.moment,
        )
        for phase in estimate.phases
    ]


def lever_rows(explained: Explanation) -> list[tuple[str, str, str]]:
    """One row for each lever that is pulled or had another value to take: its name, the value that it runs with in words, the
    reason."""
    plan = explained.chosen.plan
    return [
        (name, lever_words(name, value), plan.reasons.get(name, ""))
        for name, value in explained.runs.values.items()
        if name in plan.changes or plan.reasons.get(name, "").startswith("against ")
    ]
