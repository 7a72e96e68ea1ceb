"""Records as tables for a person. Simulated figures carry the word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from autotune.report.text import PHASE_TITLES, five_lines, lever_rows, phase_rows, plan_words
from autotune.units import both_sizes, duration, size

if TYPE_CHECKING:
    from rich.console import Console

    from autotune.records.estimate import Estimate
    from autotune.records.front import Candidate, Front
    from autotune.records.plan import Quality
    from autotune.report.explanation import Explanation

__all__ = ["page", "say", "show_estimated", "show_explanation", "show_front", "show_ladder", "show_table"]

_WIDTH_IN_A_FILE = 160  # the widest table here; rich would cut it to 80 where no terminal tells a width


def page() -> Console:
    """Standard output."""
    from rich.console import Console

    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=_WIDTH_IN_A_FILE)


def say(console: Console, line: str = "") -> None:
    """One line as it is, never wrapped."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_explanation(console: Console, explained: Explanation) -> None:
    """The five lines, then bytes and seconds by phase, then the levers with their reasons, then notes."""
    estimate, plan = explained.chosen.estimate, explained.chosen.plan
    for line in five_lines(explained):
        say(console, line)
    if explained.state == "as it is":
        verdict = "fits" if explained.fits else "will not fit"
        say(console, f"as it is now: {size(estimate.process_bytes)}, {verdict} (cap {size(explained.cap_bytes)})")
    if explained.cap_note:
        say(console, f"cap     {explained.cap_note}")
    show_table(
        console,
        "Phases, simulated",
        ("phase", *(f">{title}" for title in PHASE_TITLES[1:-1]), "at"),
        phase_rows(estimate),
    )
    show_table(
        console,
        "Levers",
        ("lever", "value", "reason"),
        lever_rows(plan),
    )
    for note in (*estimate.notes, *explained.device.notes):
        say(console, f"note: {note}")
    for advice in explained.advice[1:]:
        say(console, f"more: {advice}")


def show_estimated(console: Console, explained: Explanation, smallest_cap_bytes: int) -> None:
    """A plan that was written out: the components and the rest by phase, then the whole call."""
    estimate, device = explained.chosen.estimate, explained.device
    say(console, f"{explained.model} {explained.workload.label} | {device.name}")
    say(console, f"plan    {plan_words(explained.chosen.plan)}")
    components = dict.fromkeys(name for phase in estimate.phases for name in phase.components)
    figures = (*components, "activations", "workspace", "overhead", "process peak")
    show_table(
        console,
        "Bytes by phase, simulated; overhead is the device's context and what the allocator holds",
        ("phase", *(f">{title}" for title in figures), "at"),
        (
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
        ),
    )
    show_table(
        console,
        "The whole call, simulated",
        ("", ">bytes", ""),
        ((name, both_sizes(total), meaning) for name, total, meaning in _totals(estimate, smallest_cap_bytes)),
    )
    say(console)
    verdict = "fits" if explained.fits else "does not fit"
    there = size(explained.cap_bytes) + (" free" if device.free_bytes is not None else "")
    say(console, f"{verdict}: {size(estimate.needed_bytes)} needed, {device.name} has {there}")
    for note in (*estimate.notes, *device.notes):
        say(console, f"note: {note}")


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
    """What each cap would buy in that lane, the chosen plan among it."""
    steps = front.ladder(quality=quality)
    rows = steps if chosen.plan.id in {step.plan.id for step in steps} else (*steps, chosen)
    ordered = sorted(rows, key=lambda row: row.estimate.needed_bytes, reverse=True)
    _show_candidates(
        console, f"What a cap buys, simulated (all {len(front)}: autotune explore)", ordered, chosen.plan.id
    )


def show_front(console: Console, front: Front) -> None:
    """One row a plan, from the fastest to the smallest."""
    title = f"Pareto front, simulated: {len(front)} of {front.searched} plans that no other beats"
    _show_candidates(console, title, front.candidates)


def _show_candidates(console: Console, title: str, rows: Iterable[Candidate], chosen: str | None = None) -> None:
    show_table(
        console,
        title,
        ("", "plan", "what it does", "quality", ">peak", ">needs", ">RAM", ">one call", ">one step", "peak in"),
        (
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
        ),
        bold=chosen,
    )


def show_table(
    console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, bold: str | None = None
) -> None:
    """A table. Columns that begin with ">" hold figures; the row that holds the cell `bold` stands out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        figures = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if figures else "left", no_wrap=figures)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row), style="bold" if bold is not None and bold in row else None)
    say(console)
    console.print(table)
