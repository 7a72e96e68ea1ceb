"""What `benchmarks.published` prints: errors of bytes and seconds by source, card and mode, and what was not compared."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from autotune.cli.show import show_table
from benchmarks.latencies import (
    Timing,
    error_clusters_pct,
    latency_bars,
    rank_correlations,
    ratio_errors_pct,
    regrets_pct,
)
from benchmarks.measured import Metric
from benchmarks.residuals import COMPARED, Result, Skipped, bars_of, cluster_errors_pct, median_of, quantile_of

__all__ = ["show_figures", "show_memory", "show_skipped", "show_times"]

_WORST = 20


def show_memory(console: Console, results: Sequence[Result]) -> None:
    """Errors of bytes, error bars, and calls that were wrongly said to fit or not to."""
    keys: dict[str, Callable[[Result], str]] = {
        "source": lambda r: r.record.source[:60],
        "card": lambda r: r.device.name,
        "mode": lambda r: r.record.offload or "none",
        "confidence": lambda r: r.record.confidence,
    }
    for title, key in keys.items():
        groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
        for result in (r for r in results if r.metric in COMPARED):
            groups[key(result), result.metric].append(result)
        rows = (
            (name, metric, str(len(cluster_errors_pct(g))), str(len(g)), f"{median_of(cluster_errors_pct(g)):+.1f}",
             f"{median_of(map(abs, cluster_errors_pct(g))):.1f}", f"{quantile_of(map(abs, cluster_errors_pct(g)), 0.9):.1f}")
            for (name, metric), g in sorted(groups.items())
        )  # fmt: skip
        columns = (title, "metric", ">clusters", ">records", ">median %", ">median |%|", ">p90 |%|")
        show_table(console, f"Errors of bytes by {title}", columns, rows)
    show_table(
        console,
        "Error bars",
        ("tensor cores", "mode", ">clusters", ">nine of ten above by at most %", ">bar %"),
        (tuple(str(value) for value in row.values()) for row in bars_of(results)),
    )
    wrong = [r for r in results if (r.metric is Metric.OUT_OF_MEMORY) == r.predicted.fits]
    show_table(
        console,
        "Predicted to fit and did not, or the other way round",
        ("record", "card", "happened", "predicted"),
        ((r.record.id, r.device.name, r.metric, "fits" if r.predicted.fits else "does not fit") for r in wrong),
    )


def show_times(console: Console, timings: Sequence[Timing]) -> None:
    """Errors of seconds and of speed-ups, the order of what ran on each card, and the worst records."""
    keys: dict[str, Callable[[Timing], str]] = {
        "source": lambda t: t.record.source[:60],
        "card": lambda t: t.device.name,
        "mode": lambda t: t.record.offload or "none",
        "code": lambda t: t.record.compile or "none",
        "precision": lambda t: _precision(t),
    }
    for title, key in keys.items():
        groups: dict[tuple[str, str], list[Timing]] = defaultdict(list)
        for timing in timings:
            groups[key(timing), timing.kind].append(timing)
        rows = ((name, kind, *_errors(group)) for (name, kind), group in sorted(groups.items()))
        columns = (title, "seconds of", ">clusters", ">records", ">median %", ">median |%|", ">p90 |%|")
        show_table(console, f"Errors of seconds by {title}", columns, rows)
    show_table(
        console,
        "Error bars of seconds",
        (
            "moves",
            ">clusters",
            ">moving %",
            ">shorter by at most %",
            ">longer by at most %",
            ">within their bars %",
            "bar of moving %",
        ),
        (tuple(str(value) for value in row.values()) for row in latency_bars(timings)),
    )
    by_source: dict[str, list[Timing]] = defaultdict(list)
    for timing in timings:
        by_source[timing.record.source[:60]].append(timing)
    show_table(
        console,
        "Speed-ups of a setting over its source's plainest one, and what the setting predicted fastest costs",
        ("source", ">speed-ups", ">median %", ">median |%|", ">p90 |%|", ">groups", ">median regret %", ">most %"),
        (row for source, group in sorted(by_source.items()) for row in _ratios(source, group)),
    )
    show_table(
        console,
        "Rank correlation of everything that ran on a card",
        ("card and kind", ">Spearman"),
        ((name, f"{value:.3f}") for name, value in rank_correlations(timings).items()),
    )
    worst = sorted(timings, key=lambda timing: -abs(timing.error_pct))[:_WORST]
    show_table(
        console,
        f"The {len(worst)} worst seconds",
        ("record", "card", "seconds of", ">error %"),
        ((t.record.id, t.device.name, t.kind, f"{t.error_pct:+.1f}") for t in worst),
    )


def show_skipped(console: Console, title: str, skipped: Iterable[Skipped]) -> None:
    """How many records were left out for which reason."""
    reasons = Counter((s.reason, s.detail[:60]) for s in skipped)
    rows = ((reason, detail, str(count)) for (reason, detail), count in sorted(reasons.items()))
    show_table(console, title, ("reason", "detail", ">records"), rows)


def show_figures(console: Console, figures: dict[str, float]) -> None:
    """Every figure by its name."""
    show_table(console, "Figures", ("figure", ">value"), ((name, f"{value:g}") for name, value in figures.items()))


def _precision(timing: Timing) -> str:
    scheme = (timing.record.quantization or "none").split(" ")[:2]
    return str(timing.record.dtype) if scheme == ["none"] else " ".join(scheme)


def _errors(group: Sequence[Timing]) -> tuple[str, ...]:
    errors = error_clusters_pct(group)
    signed = median_of(timing.error_pct for timing in group)
    counts = (str(len(errors)), str(len(group)))
    return (*counts, f"{signed:+.1f}", f"{median_of(errors):.1f}", f"{quantile_of(errors, 0.9):.1f}")


def _ratios(source: str, group: Sequence[Timing]) -> Iterable[tuple[str, ...]]:
    errors, regrets = ratio_errors_pct(group), regrets_pct(group)
    sizes = [abs(error) for error in errors]
    if errors:
        values = (median_of(sizes), quantile_of(sizes, 0.9))
        yield (
            source, str(len(errors)), f"{median_of(errors):+.1f}", *(f"{value:.1f}" for value in values),
            str(len(regrets)), f"{median_of(regrets):.1f}", f"{max(regrets):.1f}",
        )  # fmt: skip
