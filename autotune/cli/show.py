"""Records as tables and lines for a person. Simulated figures carry the word. What is asked for comes last."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from autotune.records.words import plan_words
from autotune.report.lines import columns_of
from autotune.report.tables import LEVER_TITLES, PHASE_TITLES, lever_rows, phase_rows
from autotune.report.text import six_lines
from autotune.units import both_sizes, duration, size

if TYPE_CHECKING:
    from rich.console import Console

    from autotune.records.estimate import Estimate
    from autotune.records.front import Candidate, Front
    from autotune.records.plan import Quality
    from autotune.report.explanation import Explanation

__all__ = ["page", "say", "show_details", "show_estimated", "show_front", "show_ladder", "show_lines", "show_table"]

_WIDTH_IN_A_FILE = 160  # the widest table here; rich would cut it to 80 where no terminal tells a width
_LEAST = 28  # columns for words that may be wrapped
_CANDIDATE_COLUMNS = (
    "",
    "plan",
    "what it does",
    "quality",
    ">peak",
    ">needs",
    ">RAM",
    ">one call",
    ">one step",
    "peak in",
)
_LESS_OF_A_CANDIDATE = ("peak in", ">one step", ">peak", "quality", ">RAM")
_LESS_OF_A_PHASE = (">workspace", ">overhead", ">activations", "at", ">weights")


def page() -> Console:
    """Standard output, as wide as its terminal or COLUMNS says; wide enough for every table where neither does."""
    from rich.console import Console

    terminal = Console()
    return Console(width=_columns(terminal) or _WIDTH_IN_A_FILE)


def _columns(console: Console) -> int | None:
    return columns_of(os.environ, console.width if console.is_terminal else None)


def say(console: Console, line: str = "") -> None:
    """One line as it is, never wrapped."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_lines(console: Console, explained: Explanation, *, hint: str = "") -> None:
    """The six lines."""
    for line in six_lines(explained, _columns(console), hint=hint):
        say(console, line)


def show_details(console: Console, explained: Explanation) -> None:
    """Bytes and seconds by phase, the levers that have a choice with their reasons, and notes."""
    estimate = explained.chosen.estimate
    titles = ("phase", *(f">{title}" for title in PHASE_TITLES[1:-1]), "at")
    show_table(console, "Phases, simulated", titles, phase_rows(estimate), droppable=_LESS_OF_A_PHASE)
    levers = lever_rows(explained)
    if levers:
        show_table(console, "Levers that have a choice", LEVER_TITLES, levers)
    for note in (*estimate.notes, *explained.device.notes):
        say(console, f"note: {note}")
    say(console, f"answered from: {explained.answered_from}")
    say(console)


def show_estimated(console: Console, explained: Explanation, smallest_cap_bytes: int) -> None:
    """A plan that was written out: the components and the rest by phase, then the whole call."""
    estimate, device = explained.chosen.estimate, explained.device
    components = dict.fromkeys(name for phase in estimate.phases for name in phase.components)
    figures = (*components, "activations", "workspace", "overhead", "process peak")
    show_table(
        console,
        "Bytes by phase, simulated; overhead is the device's context and what the allocator holds",
        ("phase", *(f">{title}" for title in figures), "at"),
        [
            (
                phase.name,
                *(size(phase.components[name]) if name in phase.components else "" for name in components),
                size(phase.activations_bytes),
                size(phase.workspace_bytes),
                size(phase.overhead_bytes),
                size(phase.peak_bytes),
                phase.moment,
            )
            for phase in estimate.phases
        ],
        droppable=("at", ">workspace", ">overhead", ">activations", *(f">{name}" for name in components)),
    )
    show_table(
        console,
        "The whole call, simulated",
        ("", ">bytes", ""),
        [(name, both_sizes(total), meaning) for name, total, meaning in _totals(estimate, smallest_cap_bytes)],
    )
    for note in (*estimate.notes, *device.notes):
        say(console, f"note: {note}")
    say(console)


def _totals(estimate: Estimate, smallest_cap_bytes: int) -> list[tuple[str, int, str]]:
    context_bytes = estimate.process_bytes - estimate.reserved_bytes
    originals = f", {size(estimate.undo_bytes)} of it originals for an exact restore" if estimate.undo_bytes else ""
    if estimate.installing_bytes:
        originals += f"; {size(estimate.steady_ram_bytes)} once the hooks are installed"
    return [
        ("allocated peak", estimate.allocated_bytes, "live tensors"),
        ("reserved peak", estimate.reserved_bytes, "with what the allocator holds beyond them"),
        ("process peak", estimate.process_bytes, f"with the device's context of {size(context_bytes)}"),
        ("margin", estimate.margin_bytes, "error bar of the process peak"),
        ("needed", estimate.needed_bytes, "process peak and margin"),
        ("smallest cap", smallest_cap_bytes, "with less it runs out of memory, however often the cache is emptied"),
        ("host RAM", estimate.host_ram_bytes, f"weights that wait{originals}"),
    ]


def show_ladder(console: Console, front: Front, chosen: Candidate, quality: Quality) -> None:
    """What each cap would buy in that lane, the chosen plan among it: the plans that the device can hold."""
    steps = [step for step in front.ladder(quality=quality) if step.estimate.needed_bytes <= front.device.total_bytes]
    rows = steps if chosen.plan.id in {step.plan.id for step in steps} else (*steps, chosen)
    ordered = sorted(rows, key=lambda row: row.estimate.needed_bytes, reverse=True)
    title = f"What a cap buys, simulated (all {len(front)}: autotune explore)"
    _show_candidates(console, title, ordered, chosen.plan.id)


def show_front(
    console: Console, front: Front, candidates: Sequence[Candidate], chosen: Candidate | None = None
) -> None:
    """One row for each of these plans of the front, from the fastest to the smallest."""
    under = "" if len(candidates) == len(front) else f", {len(candidates)} of them under the caps"
    title = f"Pareto front, simulated: {len(front)} of {front.searched} plans that no other beats{under}"
    _show_candidates(console, title, candidates, None if chosen is None else chosen.plan.id)


def _show_candidates(console: Console, title: str, rows: Iterable[Candidate], chosen: str | None = None) -> None:
    show_table(
        console,
        title,
        _CANDIDATE_COLUMNS,
        [
            (
                ">" if candidate.plan.id == chosen else "",
                candidate.plan.id,
                plan_words(candidate.plan),
                candidate.plan.lane,
                size(candidate.estimate.process_bytes),
                size(candidate.estimate.needed_bytes),
                size(candidate.estimate.host_ram_bytes),
                duration(candidate.estimate.latency_s),
                duration(candidate.estimate.step_s),
                candidate.estimate.peak_phase.name,
            )
            for candidate in rows
        ],
        bold=chosen,
        droppable=_LESS_OF_A_CANDIDATE,
    )


def show_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    bold: str | None = None,
    droppable: Sequence[str] = (),
) -> None:
    """A table. Columns that begin with ">" hold figures; the row that holds the cell `bold` stands out.

    Where there is no room for all of it the `droppable` columns go, the first one first; no cell with a figure is ever cut.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    rows = [tuple(row) for row in rows]
    kept = _kept(columns, rows, console.width, droppable)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place in kept:
        figures = columns[place].startswith(">")
        short = _natural(columns, rows, place) <= _LEAST
        table.add_column(
            columns[place].removeprefix(">"),
            justify="right" if figures else "left",
            no_wrap=figures or short,
            overflow="fold",
        )
    for row in rows:
        cells = (Text(row[place]) for place in kept)
        table.add_row(*cells, style="bold" if bold is not None and bold in row else None)
    say(console)
    console.print(table)


def _kept(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, droppable: Sequence[str]) -> list[int]:
    """The columns for which there is room."""
    gone: list[str] = []
    for name in (*droppable, ""):
        kept = [place for place, column in enumerate(columns) if column not in gone]
        natural = {place: _natural(columns, rows, place) for place in kept}
        least = (cells if columns[place].startswith(">") else min(cells, _LEAST) for place, cells in natural.items())
        if sum(least) + 2 * (len(kept) - 1) <= width:
            break
        gone.append(name)
    return kept


def _natural(columns: Sequence[str], rows: Sequence[Sequence[str]], place: int) -> int:
    """Characters of the widest cell of a column."""
    return max(len(columns[place].removeprefix(">")), *(len(row[place]) for row in rows), 0)
