"""Errors of predictions: by record, by cluster, and the figures that sum them up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

from autotune.records.device import Device
from autotune.simulate.margins import SHARES, Mode, group_of
from benchmarks.cases import case_of, plan_of
from benchmarks.measured import Measurement, Metric, Skip
from benchmarks.prediction import Predicted

__all__ = ["COMPARED", "Result", "Skipped", "bars_of", "cluster_errors_pct", "figures_of", "median_of", "quantile_of"]

COMPARED = (Metric.ALLOCATED, Metric.RESERVED)
"""Metrics that have a figure to be compared with."""


class Result(NamedTuple):
    """One record and what was predicted for it."""

    record: Measurement
    metric: Metric
    device: Device
    predicted: Predicted

    @property
    def error_pct(self) -> float:
        """Predicted over published, minus one; 0 where there is no figure."""
        published = self.record.peak_bytes
        if published is None or self.metric not in COMPARED:
            return 0.0
        mine = self.predicted.allocated_bytes if self.metric is Metric.ALLOCATED else self.predicted.reserved_bytes
        return 100.0 * (mine / published - 1)


class Skipped(NamedTuple):
    """One record that was not compared."""

    record: Measurement
    reason: Skip
    detail: str


def figures_of(results: Sequence[Result], skipped: Sequence[Skipped]) -> dict[str, float]:
    """What the comparison comes down to; published figures of confidence A unless a name says otherwise."""
    sure = [result for result in results if result.record.confidence == "A"]
    with_memory = [r for r in sure if r.metric is not Metric.RAN]
    left_out = [s for s in skipped if s.record.confidence == "A" and _is_about_memory(s.record)]
    allocated = cluster_errors_pct(r for r in sure if r.metric is Metric.ALLOCATED)
    modern = cluster_errors_pct(r for r in sure if r.metric is Metric.ALLOCATED and group_of(r.device, "none")[0])
    reserved = cluster_errors_pct(r for r in sure if r.metric is Metric.RESERVED)
    ran = [r for r in results if r.metric is not Metric.OUT_OF_MEMORY]
    margins = [100 * r.predicted.margin_bytes / r.predicted.process_bytes for r in with_memory]
    return {
        "allocated_median_pct_sm70": median_of(map(abs, modern)),
        "allocated_p90_pct_sm70": quantile_of(map(abs, modern), 0.9),
        "allocated_median_pct_all": median_of(map(abs, allocated)),
        "reserved_median_pct": median_of(map(abs, reserved)),
        "reserved_floor_pct": _floor([r for r in sure if r.metric is Metric.RESERVED]),
        "false_fits": sum(r.metric is Metric.OUT_OF_MEMORY and r.predicted.fits for r in results),
        "false_ooms_pct": _false_ooms_pct(r for r in ran if r.record.confidence == "A"),
        "false_ooms_pct_all": _false_ooms_pct(ran),
        "margin_median_pct": median_of(margins),
        "memory_records_used": len(with_memory),
        "memory_records_skipped_pct": round(100 * len(left_out) / max(1, len(left_out) + len(with_memory)), 2),
        "out_of_memory_records": sum(r.metric is Metric.OUT_OF_MEMORY for r in results),
        "allocated_clusters": len(allocated),
        "reserved_clusters": len(reserved),
        "allocated_median_pct_by_record": median_of(abs(r.error_pct) for r in sure if r.metric is Metric.ALLOCATED),
        "reserved_median_pct_by_record": median_of(abs(r.error_pct) for r in sure if r.metric is Metric.RESERVED),
    }


def bars_of(results: Sequence[Result]) -> list[dict[str, Any]]:
    """By architecture and mode, by how much nine of ten clusters stay below the prediction: what a margin must hold."""
    groups: dict[tuple[bool, Mode], list[Result]] = defaultdict(list)
    for result in results:
        if result.metric in COMPARED and result.record.confidence == "A":
            groups[group_of(result.device, plan_of(case_of(result.record)).offload)].append(result)
    return [
        {
            "tensor_cores": tensor_cores,
            "mode": mode,
            "clusters": len(cluster_errors_pct(group)),
            "above_p90_pct": quantile_of((max(0.0, -error) for error in cluster_errors_pct(group)), 0.9),
            "bar_pct": 100 * SHARES[tensor_cores, mode],
        }
        for (tensor_cores, mode), group in sorted(groups.items())
    ]


def cluster_errors_pct(results: Iterable[Result]) -> list[float]:
    """The signed error of each cluster: the median of its records'."""
    errors: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for result in results:
        errors[result.record.cluster].append(result.error_pct)
    return [median(each) for each in errors.values()]


def median_of(values: Iterable[float]) -> float:
    """Two digits of it; 0 of nothing."""
    listed = list(values)
    return round(median(listed), 2) if listed else 0.0


def quantile_of(values: Iterable[float], share: float) -> float:
    """The smallest value that this share of all is not above."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2) if ordered else 0.0


def _floor(results: Sequence[Result]) -> float:
    """How far the cards of one architecture are from one another in the same cluster: what nobody can predict better than."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for result in results:
        groups[*result.record.cluster, result.device.compute_capability].append(result.record.peak_bytes or 0)
    away = [100 * abs(each / median(group) - 1) for group in groups.values() if len(group) > 1 for each in group]
    return median_of(away)


def _false_ooms_pct(ran: Iterable[Result]) -> float:
    refused = [not result.predicted.fits for result in ran]
    return round(100 * sum(refused) / max(1, len(refused)), 2)


def _is_about_memory(record: Measurement) -> bool:
    return record.peak_gib is not None or bool(record.oom)
