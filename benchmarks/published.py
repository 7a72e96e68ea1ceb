"""Published measurements against predictions: `python -m benchmarks.published FILE [--json OUT]`.

Errors are computed on clusters (the same model, scope, precision, workload, plan and source: repeats by card or compiler are
one), whose error is the median of theirs, and by record. Bytes and seconds are compared apart: a record may be left out of
one and not of the other, and none is without a reason.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from autotune.cli.show import page
from autotune.errors import AutotuneError
from benchmarks.cases import Case, Run, card_of, case_of, run_of
from benchmarks.latencies import Timing, latency_bars, latency_figures, rank_correlations
from benchmarks.measured import Measurement, Metric, Skip, SkippedError, Timed, UnreadableError, read
from benchmarks.prediction import Predicted, predict
from benchmarks.published_tables import show_figures, show_memory, show_skipped, show_times
from benchmarks.residuals import Result, Skipped, bars_of, figures_of

__all__ = ["main"]


class _Compared(NamedTuple):
    """Every record's outcome: bytes compared or skipped, seconds compared or skipped."""

    results: list[Result]
    skipped: list[Skipped]
    timings: list[Timing]
    untimed: list[Skipped]
    """Records with published seconds that were not compared."""


class _Mapped(NamedTuple):
    """A record with what is to be predicted for it."""

    record: Measurement
    metric: Metric | Skip
    timings_s: dict[Timed, float] | Skip
    case: Case
    run: Run


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
    compared = _compared(records)
    memory = figures_of(compared.results, compared.skipped)
    figures = memory | latency_figures(compared.timings, compared.untimed)
    console = page()
    show_memory(console, compared.results)
    show_skipped(console, "Bytes not compared", compared.skipped)
    show_times(console, compared.timings)
    show_skipped(console, "Seconds not compared", compared.untimed)
    show_figures(console, figures)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"figures": figures, "seconds": round(time.perf_counter() - start_s, 1), **_listed(compared)}
        asked.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _compared(records: Sequence[Measurement]) -> _Compared:
    compared = _Compared([], [], [], [])
    mapped = [found for record in records for found in [_mapped(record, compared)] if found is not None]
    wanted: dict[Case, dict[Run, None]] = defaultdict(dict)
    for each in mapped:
        wanted[each.case][each.run] = None
    answers: dict[Case, dict[Run, Predicted] | str] = {}
    spawning = get_context("spawn")  # a fork of a process whose torch has threads may hang
    with ProcessPoolExecutor(max_workers=os.cpu_count(), mp_context=spawning, initializer=_quiet) as pool:
        for case, answer in zip(wanted, pool.map(_predicted, wanted.items(), chunksize=1), strict=True):
            answers[case] = answer
    for each in mapped:
        answer = answers[each.case]
        if isinstance(answer, str):
            _skip(each.record, Skip.NO_ARCHITECTURE, answer, compared)
        else:
            _compare(each, answer[each.run], compared)
    return compared


def _mapped(record: Measurement, compared: _Compared) -> _Mapped | None:
    """The record's case and run; None, and noted as skipped, where neither bytes nor seconds can be compared."""
    metric, timings_s = record.metric_kind, record.timings_s
    if isinstance(metric, Skip) and (isinstance(timings_s, Skip) or not timings_s):
        _skip(record, metric, record.metric or "", compared)
        return None
    try:
        device = card_of(record)
        return _Mapped(record, metric, timings_s, case_of(record), run_of(record, device))
    except SkippedError as error:
        _skip(record, error.reason, error.detail, compared)
        return None


def _skip(record: Measurement, reason: Skip, detail: str, compared: _Compared) -> None:
    compared.skipped.append(Skipped(record, reason, detail))
    if record.timings_s:
        compared.untimed.append(Skipped(record, reason, detail))


def _compare(each: _Mapped, answer: Predicted, compared: _Compared) -> None:
    device = each.run.device
    if isinstance(each.metric, Skip):
        compared.skipped.append(Skipped(each.record, each.metric, each.record.metric or ""))
    else:
        compared.results.append(Result(each.record, each.metric, device, answer))
    if isinstance(each.timings_s, Skip):
        compared.untimed.append(Skipped(each.record, each.timings_s, "no latency by its own account"))
    elif answer.untraced and each.timings_s:
        compared.untimed.append(Skipped(each.record, Skip.NO_ARCHITECTURE, f"no trace of {answer.untraced}"))
    else:
        for kind, published_s in each.timings_s.items():
            predicted_s = answer.iteration_s if kind is Timed.LOOP else answer.call_s
            how = (answer.moves, answer.moving_share, answer.bar)
            compared.timings.append(Timing(each.record, kind, device, predicted_s, published_s, *how))


def _predicted(item: tuple[Case, Iterable[Run]]) -> dict[Run, Predicted] | str:
    case, runs = item
    try:
        return predict(case, runs)
    except AutotuneError as error:
        return str(error)


def _quiet() -> None:
    import warnings

    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)


def _listed(compared: _Compared) -> dict[str, Any]:
    """Errors and skipped records, without the published figures."""
    return {
        "rank_correlation": rank_correlations(compared.timings),
        "bars": bars_of(compared.results),
        "latency_bars": latency_bars(compared.timings),
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
            for r in compared.results
        ],
        "latency_errors": [
            {
                "id": t.record.id,
                "confidence": t.record.confidence,
                "kind": t.kind,
                "error_pct": round(t.error_pct, 2),
            }
            for t in compared.timings
        ],
        "skipped": [_reason(skipped) for skipped in compared.skipped],
        "latency_skipped": [_reason(skipped) for skipped in compared.untimed],
    }


def _reason(skipped: Skipped) -> dict[str, str]:
    return {"id": skipped.record.id, "reason": skipped.reason, "detail": skipped.detail}


if __name__ == "__main__":
    main()
