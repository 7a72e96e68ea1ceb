"""Errors of predicted seconds: absolute ones, those of speed-ups, the order of settings, and what a wrong choice would cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.simulate.margins import COMPUTING, MOVES, Bar, Moves
from benchmarks.measured import Measurement, Timed
from benchmarks.residuals import Skipped, median_of, quantile_of

__all__ = [
    "Timing",
    "cluster_of",
    "error_clusters_pct",
    "latency_bars",
    "latency_figures",
    "rank_correlations",
    "ratio_errors_pct",
    "regrets_pct",
]

_TIE_SHARE = (
    0.05  # repeated runs of one setting on one machine differ by some percent: smaller differences are no order
)
_RANKED_AT_LEAST = 8  # values: with fewer, a rank correlation says little

Key = tuple[object, ...]


class Timing(NamedTuple):
    """One published time and what was predicted for it."""

    record: Measurement
    kind: Timed
    device: Device
    predicted_s: float
    published_s: float
    moves: Moves = "none"
    moving_share: float = 0.0
    bar: Bar = COMPUTING[False]

    @property
    def error_pct(self) -> float:
        """Predicted over published, minus one."""
        return 100.0 * (self.predicted_s / self.published_s - 1)

    @property
    def longer_pct(self) -> float:
        """How much longer it took than was predicted; negative where it took less."""
        return 100.0 * (self.published_s / self.predicted_s - 1)


class _Setting(NamedTuple):
    """One setting in a group of settings for the same call on the same card; its repeats are one, by their medians."""

    turned_on: int
    """How many things are not as plain fp32 has them."""
    predicted_s: float
    published_s: float


def latency_figures(timings: Sequence[Timing], skipped: Sequence[Skipped]) -> dict[str, float]:
    """What the comparison comes down to; records of either confidence.

    Args:
        timings: what was compared.
        skipped: records with published seconds that were not.
    """
    errors, fine = error_clusters_pct(timings), error_clusters_pct(timings, fine=True)
    by_record = [abs(timing.error_pct) for timing in timings]
    ratios, regrets = [abs(error) for error in ratio_errors_pct(timings)], regrets_pct(timings)
    offloaded = [timing for timing in timings if timing.record.offload not in {None, "none"}]
    records = len({timing.record.id for timing in timings})
    return {
        "latency_median_pct": median_of(errors),
        "latency_p90_pct": quantile_of(errors, 0.9),
        "latency_median_pct_fine": median_of(fine),
        "latency_p90_pct_fine": quantile_of(fine, 0.9),
        "latency_median_pct_by_record": median_of(by_record),
        "latency_p90_pct_by_record": quantile_of(by_record, 0.9),
        "offload_latency_median_pct": median_of(error_clusters_pct(offloaded)),
        "ratio_median_pct": median_of(ratios),
        "ratio_p90_pct": quantile_of(ratios, 0.9),
        "rank_correlation_min": min(rank_correlations(timings).values(), default=0.0),
        "regret_median_pct": median_of(regrets),
        "regret_max_pct": round(max(regrets, default=0.0), 2),
        "latency_records_used": records,
        "latency_records_skipped_pct": round(100 * len(skipped) / max(1, len(skipped) + records), 2),
        "latency_clusters": len(errors),
    }


def latency_bars(timings: Iterable[Timing]) -> list[dict[str, Any]]:
    """By how weights move: how far off nine of ten clusters are at most, and how many are within their own error bars.

    A cluster is the median of its members. Its bar is of computing and of moving, each by its share, so a cluster that hardly
    moves says little of the bar of moving.
    """
    rows = []
    timings = list(timings)
    for moves in sorted({timing.moves for timing in timings}):
        group = [timing for timing in timings if timing.moves == moves]
        clusters = list(_grouped(group, cluster_of).values())
        longer = [median(timing.longer_pct for timing in members) for members in clusters]
        bars = [Bar(*(median(timing.bar[end] for timing in members) for end in range(2))) for members in clusters]
        held = [-100 * bar.less <= each <= 100 * bar.more for each, bar in zip(longer, bars, strict=True)]
        rows.append(
            {
                "moves": moves,
                "clusters": len(clusters),
                "moving_share_median_pct": median_of(100 * timing.moving_share for timing in group),
                "shorter_p90_pct": quantile_of((max(0.0, -each) for each in longer), 0.9),
                "longer_p90_pct": quantile_of((max(0.0, each) for each in longer), 0.9),
                "held_pct": round(100 * sum(held) / len(held), 1),
                "bar_of_moving_pct": [100 * share for share in MOVES[moves]],
            }
        )
    return rows


def cluster_of(timing: Timing, *, fine: bool = False) -> Key:
    """Same settings and kind of seconds; `fine` tells cards, compilers and layouts apart."""
    record = timing.record
    finer = (timing.device.name, record.compile, record.channels_last) if fine else ()
    return (*record.settings, timing.kind, *finer)


def error_clusters_pct(timings: Iterable[Timing], *, fine: bool = False) -> list[float]:
    """The error of each cluster without its sign: the median of its members'."""
    clusters = _grouped(timings, lambda timing: cluster_of(timing, fine=fine))
    return [median(abs(member.error_pct) for member in members) for members in clusters.values()]


def ratio_errors_pct(timings: Iterable[Timing]) -> list[float]:
    """Of each setting, predicted over published speed-up against its group's plainest setting, minus one."""
    errors = []
    for group in _compared_settings(timings):
        base = min(group, key=lambda setting: (setting.turned_on, -setting.published_s))
        for setting in group:
            if setting is not base:
                predicted, published = base.predicted_s / setting.predicted_s, base.published_s / setting.published_s
                errors.append(100 * (predicted / published - 1))
    return errors


def regrets_pct(timings: Iterable[Timing]) -> list[float]:
    """Of each group, how much slower the setting is that is predicted fastest; of several, the slowest."""
    regrets = []
    for group in _compared_settings(timings):
        chosen = min(group, key=lambda setting: (setting.predicted_s, -setting.published_s))
        regrets.append(100 * (chosen.published_s / min(setting.published_s for setting in group) - 1))
    return regrets


def rank_correlations(timings: Iterable[Timing]) -> dict[str, float]:
    """Spearman's rank correlation of predicted and published seconds, by card and kind, for example "Tesla T4, call".

    Values that hardly differ share a rank. A card whose published seconds all share one has no order to be compared with.
    """
    found = {}
    for (card, kind), group in sorted(_grouped(timings, lambda t: (t.device.name, t.kind.value)).items()):
        published = _ranks([timing.published_s for timing in group])
        if len(group) < _RANKED_AT_LEAST or not published.std():
            continue
        predicted = _ranks([timing.predicted_s for timing in group])
        value = float(np.corrcoef(predicted, published)[0, 1]) if predicted.std() else 0.0
        found[f"{card}, {kind}"] = round(value, 3)
    return found


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 0; those within a small share of a tie's smallest value get its average rank."""
    ranks = np.zeros(len(values))
    order = sorted(range(len(values)), key=lambda index: values[index])
    start = 0
    for place in range(1, len(order) + 1):
        if place == len(order) or values[order[place]] > values[order[start]] * (1 + _TIE_SHARE):
            ranks[order[start:place]] = (start + place - 1) / 2
            start = place
    return ranks


def _compared_settings(timings: Iterable[Timing]) -> list[list[_Setting]]:
    """The settings that were tried for the same call on the same card by the same source, where there are several."""
    groups = []
    for members in _grouped(timings, _call_of).values():
        settings = _grouped(members, lambda timing: _settings_of(timing.record))
        if len(settings) > 1:
            groups.append([_setting(repeats) for repeats in settings.values()])
    return groups


def _call_of(timing: Timing) -> Key:
    record = timing.record
    size = (record.batch, record.height, record.width, record.frames, record.steps, record.guidance_scale, record.cfg)
    what = (record.source, record.model, record.pipeline, record.scope, record.components)
    return (*what, *size, timing.device.name, timing.kind)


def _settings_of(record: Measurement) -> Key:
    vae = (record.vae_slicing, record.vae_tiling)
    code = (record.compile, record.channels_last, record.quantization, record.layerwise_casting)
    return (record.dtype, record.attention, record.offload, *vae, *code, record.other)


def _setting(repeats: Sequence[Timing]) -> _Setting:
    """One of a group. What every member has in common counts for all alike."""
    record = repeats[0].record
    lowered = (record.dtype not in {None, "fp32"}) + (record.attention in {"sdpa", "xformers"})
    switches = (record.offload, record.vae_slicing, record.vae_tiling, record.compile, record.channels_last)
    others = (record.quantization, record.layerwise_casting, record.other)
    return _Setting(
        turned_on=lowered + sum(value not in {None, False, "none", "False"} for value in (*switches, *others)),
        predicted_s=median(timing.predicted_s for timing in repeats),
        published_s=median(timing.published_s for timing in repeats),
    )


def _grouped(timings: Iterable[Timing], key: Callable[[Timing], Key]) -> dict[Key, list[Timing]]:
    groups: dict[Key, list[Timing]] = defaultdict(list)
    for timing in timings:
        groups[key(timing)].append(timing)
    return groups
