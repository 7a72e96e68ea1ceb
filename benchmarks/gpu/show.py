"""What was found, as tables for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from autotune.cli.show import page, say, show_table
from autotune.units import duration, size
from benchmarks.gpu.calls import CALLS
from benchmarks.gpu.results import Found, error_pct
from benchmarks.gpu.seconds import CONSTANTS, FIGURES
from benchmarks.residuals import quantile_of

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["show"]

_METRICS = {"allocated": "allocated_bytes", "reserved": "reserved_bytes", "process": "process_bytes"}


def show(content: Found) -> None:
    """Everything in a results file but single kernels, which are summed up."""
    console, parts = page(), content["parts"]
    columns = ("model", "setting", "call", *(f">{word}" for name in _METRICS for word in (name, "measured", "error")))
    rows = [row for part in parts if "setting" in part for row in _call_rows(part)]
    show_table(console, "Predicted beside measured", columns, rows)
    timed = [part for part in parts if "call_s" in part.get("seconds", {})]
    if timed:
        _show_seconds(console, timed)
    columns = ("kernels", ">counted", ">too low", ">median error", ">lowest", ">highest")
    show_table(console, "What kernels hold", columns, [_kernel_row(part) for part in parts if "rows" in part])
    show_table(console, "Beside pipelines", ("what", ">predicted", ">measured", ">error"), _beside_rows(parts))
    speeds = [_speed_row(row) for part in parts for row in part.get("speeds", ())]
    if speeds:
        show_table(console, "What the card sustains", ("figure", ">believed", ">measured", ">error", "unit"), speeds)
    failed = [(part["name"], part["error"]["kind"], part["error"]["message"]) for part in parts if "error" in part]
    if failed:
        show_table(console, "Not found out", ("part", "error", "message"), failed)
    say(console)
    say(
        console,
        f"cut by the time limit: {', '.join(content['cut'])}" if content["cut"] else "complete: nothing was cut",
    )


def _call_rows(part: Found) -> Iterator[Sequence[str]]:
    measured = part.get("measured", {})
    for call in (call for call in CALLS if call in measured):
        cells = [part["model"], part["setting"], call]
        for metric in _METRICS.values():
            cells += _beside(part["predicted"][call][metric], measured[call][metric])
        yield cells


def _show_seconds(console: Console, parts: Sequence[Found]) -> None:
    figures = (f">{word}" for figure in FIGURES for word in (figure, "predicted", "error", "calibrated", "error"))
    rows = [(part["model"], part["setting"], *_seconds_cells(part["seconds"])) for part in parts]
    show_table(console, "Seconds of warm calls", ("model", "setting", *figures), rows)
    summed = _summed_rows([part["seconds"] for part in parts])
    columns = ("seconds of", "constants", ">settings", ">median |error|", ">p90 |error|")
    show_table(console, "How far predicted seconds are off", columns, summed)


def _seconds_cells(seconds: Found) -> Iterator[str]:
    for figure in FIGURES:
        yield _duration(seconds[f"{figure}_s"])
        for ending in CONSTANTS:
            yield _duration(seconds[f"predicted_{figure}{ending}_s"])
            yield _per_cent(seconds[f"{figure}{ending}_error_pct"])


def _summed_rows(rows: Sequence[Found]) -> Iterator[Sequence[str]]:
    for figure in FIGURES:
        for ending, constants in CONSTANTS.items():
            errors = [row[f"{figure}{ending}_error_pct"] for row in rows]
            away = [abs(error) for error in errors if error is not None]
            if away:
                summed = (f"{value:.1f} %" for value in (median(away), quantile_of(away, 0.9)))
                yield (f"a {figure}", constants, str(len(away)), *summed)


def _kernel_row(part: Found) -> Sequence[str]:
    """Errors in % of what the kernel held; where it held nothing, or nothing was foreseen, there is none."""
    counted = [row for row in part["rows"] if row.get("measured_bytes") is not None]
    errors = [error_pct(row["predicted_bytes"], row["measured_bytes"]) for row in counted]
    known = [error for error in errors if error is not None]
    low = sum(row["predicted_bytes"] < row["measured_bytes"] for row in counted)
    figures = [f"{figure(known):+.1f} %" if known else "-" for figure in (median, min, max)]
    return (part["name"], f"{len(counted)} of {len(part['rows'])}", str(low), *figures)


def _speed_row(row: Found) -> Sequence[str]:
    believed, measured = row["predicted"], row["measured"]
    cells = ["-" if value is None else f"{value:.3g}" for value in (believed, measured)]
    return (row["what"], *cells, _per_cent(error_pct(believed, measured)), row["unit"])


def _beside_rows(parts: Iterable[Found]) -> Iterator[Sequence[str]]:
    for part in parts:
        if part["name"] == "context":
            yield ("context, kernels loaded", *_beside(part.get("predicted_bytes"), part.get("warm_bytes")))
        for row in part.get("products", ()):
            what = f"workspace after {row['product']}, {row['dtype']}"
            yield (what, *_beside(part["predicted_stays_bytes"], row.get("stays_bytes")))
        if "reserved_is_exact" in part:
            replayed, recorded = part["replayed_reserved_peak_bytes"], part["recorded_reserved_peak_bytes"]
            yield (f"history of {part['model']} replayed, reserved", *_beside(replayed, recorded))


def _beside(predicted: int | None, measured: int | None) -> list[str]:
    return [_size(predicted), _size(measured), _per_cent(error_pct(predicted, measured))]


def _size(value_bytes: int | None) -> str:
    return "-" if value_bytes is None else size(value_bytes)


def _duration(value_s: float | None) -> str:
    return "-" if value_s is None else duration(value_s)


def _per_cent(error: float | None) -> str:
    return "-" if error is None else f"{error:+.1f} %"
