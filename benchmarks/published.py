"""Published measurements against predictions: `python -m benchmarks.published FILE [--json OUT]`.

Errors are computed on clusters (the same model, scope, precision, workload, plan and source: repeats by card or compiler are
one), whose error is the median of theirs, and by record. No record is left out without a reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from autotune.cli.show import page, show_table
from autotune.errors import AutotuneError
from autotune.records.device import Device
from benchmarks.cases import Case, SkippedError, card_of, case_of
from benchmarks.measured import Measurement, Metric, Skip, UnreadableError, read
from benchmarks.prediction import Predicted, predict
from benchmarks.residuals import (
    COMPARED,
    Result,
    Skipped,
    bars_of,
    cluster_errors_pct,
    figures_of,
    median_of,
    quantile_of,
)

__all__ = ["main"]


def main() -> None:
    """Reads, predicts, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="a JSON list of measurements")
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write figures, errors and skipped records to this file"
    )
    asked = parser.parse_args()
    start_s = time.perf_counter()
    try:
        records = read(asked.file)
    except UnreadableError as error:
        sys.exit(f"error: {error}")
    results, skipped = _compared(records)
    figures = figures_of(results, skipped)
    _show(results, skipped, figures)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"figures": figures, "seconds": round(time.perf_counter() - start_s, 1), **_listed(results, skipped)}
        asked.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _compared(records: Sequence[Measurement]) -> tuple[list[Result], list[Skipped]]:
    wanted: dict[Case, dict[str, Device]] = defaultdict(dict)
    mapped: list[tuple[Measurement, Metric, Case, Device]] = []
    skipped: list[Skipped] = []
    for record in records:
        try:
            kind = record.metric_kind
            if isinstance(kind, Skip):
                raise SkippedError(kind, record.metric or "")
            device = card_of(record)
            case = case_of(record)
        except SkippedError as error:
            skipped.append(Skipped(record, error.reason, error.detail))
            continue
        wanted[case][device.name] = device
        mapped.append((record, kind, case, device))
    answers: dict[Case, dict[str, Predicted] | str] = {}
    spawning = get_context("spawn")  # a fork of a process whose torch has threads may hang
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=spawning, initializer=_quiet) as pool:
        for case, answer in zip(wanted, pool.map(_predicted, wanted.items(), chunksize=1), strict=True):
            answers[case] = answer
    results = []
    for record, kind, case, device in mapped:
        answer = answers[case]
        if isinstance(answer, str):
            skipped.append(Skipped(record, Skip.NO_ARCHITECTURE, answer))
        else:
            results.append(Result(record, kind, device, answer[device.name]))
    return results, skipped


def _predicted(item: tuple[Case, dict[str, Device]]) -> dict[str, Predicted] | str:
    case, devices = item
    try:
        return predict(case, devices.values())
    except AutotuneError as error:
        return str(error)


def _quiet() -> None:
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)


def _show(results: Sequence[Result], skipped: Sequence[Skipped], figures: dict[str, float]) -> None:
    console = page()
    compared = [r for r in results if r.metric in COMPARED]
    keys = {
        "source": lambda r: r.record.source[:60],
        "card": lambda r: r.device.name,
        "mode": lambda r: r.record.offload or "none",
        "confidence": lambda r: r.record.confidence,
    }
    for title, key in keys.items():
        groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
        for result in compared:
            groups[key(result), result.metric].append(result)
        rows = (
            (name, metric, str(len(cluster_errors_pct(g))), str(len(g)), f"{median_of(cluster_errors_pct(g)):+.1f}",
             f"{median_of(map(abs, cluster_errors_pct(g))):.1f}", f"{quantile_of(map(abs, cluster_errors_pct(g)), 0.9):.1f}")
            for (name, metric), g in sorted(groups.items())
        )  # fmt: skip
        columns = (title, "metric", ">clusters", ">records", ">median %", ">median |%|", ">p90 |%|")
        show_table(console, f"Errors by {title}", columns, rows)
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
    reasons = Counter((s.reason, s.detail[:60]) for s in skipped)
    show_table(
        console,
        "Not compared",
        ("reason", "detail", ">records"),
        ((reason, detail, str(count)) for (reason, detail), count in sorted(reasons.items())),
    )
    show_table(console, "Figures", ("figure", ">value"), ((name, f"{value:g}") for name, value in figures.items()))


def _listed(results: Sequence[Result], skipped: Sequence[Skipped]) -> dict[str, Any]:
    """Errors and skipped records, without the published figures."""
    return {
        "bars": bars_of(results),
        "errors": [
            {
                "id": r.record.id,
                "confidence": r.record.confidence,
                "metric": r.metric,
                "error_pct": round(r.error_pct, 2),
                "fits": r.predicted.fits,
                "phase": r.predicted.phase,
                "untraced": r.predicted.untraced,
            }
            for r in results
        ],
        "skipped": [{"id": s.record.id, "reason": s.reason, "detail": s.detail} for s in skipped],
    }


if __name__ == "__main__":
    main()
