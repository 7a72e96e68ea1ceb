"""The figures that sum up predicted seconds, on made-up records whose figures are computed by hand."""

from __future__ import annotations

import pytest

from autotune.probe import catalog
from autotune.simulate.margins import Bar
from benchmarks.latencies import (
    Timing,
    cluster_of,
    error_clusters_pct,
    latency_bars,
    latency_figures,
    rank_correlations,
    ratio_errors_pct,
    regrets_pct,
)
from benchmarks.measured import Measurement, Skip, Timed
from benchmarks.residuals import Skipped

T4, A100 = catalog.card("Tesla T4"), catalog.card("NVIDIA A100-SXM4-40GB")
PLAIN = {
    "source": "somewhere", "model": "a model", "dtype": "fp32", "batch": 1, "height": 512, "width": 512, "steps": 50,
    "attention": "vanilla", "offload": "none", "compile": "none", "channels_last": False, "quantization": "none",
    "layerwise_casting": "none", "vae_slicing": False, "vae_tiling": False, "confidence": "B", "use_for": ["latency"],
}  # fmt: skip


def timing(predicted_s, published_s, *, device=T4, kind=Timed.CALL, **changes):
    name = f"{predicted_s} {published_s} {device.name} {sorted(changes.items())}"
    record = Measurement.model_validate(PLAIN | {"id": name, "gpu": device.name} | changes)
    return Timing(record, kind, device, predicted_s, published_s)


def test_an_error_is_predicted_over_published():
    assert timing(3.0, 4.0).error_pct == pytest.approx(-25)
    assert timing(5.0, 4.0).error_pct == pytest.approx(25)


def test_repeats_by_card_and_compiler_are_one_cluster_and_several_fine_ones():
    same = [timing(1.1, 1.0), timing(1.4, 1.0, device=A100), timing(0.8, 1.0, compile="default")]
    other = [timing(2.0, 1.0, batch=2), timing(1.5, 1.0, kind=Timed.LOOP)]
    assert sorted(error_clusters_pct([*same, *other])) == pytest.approx([20, 50, 100])  # 20 of 10, 40 and 20
    assert sorted(error_clusters_pct(same, fine=True)) == pytest.approx([10, 20, 40])
    assert cluster_of(same[0]) == cluster_of(same[1])
    assert cluster_of(same[0], fine=True) != cluster_of(timing(1.0, 1.0, channels_last="unet"), fine=True)


def test_a_cluster_takes_no_notice_of_memory():
    timed, both = timing(1.0, 1.0), timing(1.0, 1.0, peak_gib=3.0, use_for=["latency", "peak_memory"])
    assert timed.record.cluster != both.record.cluster
    assert cluster_of(timed) == cluster_of(both)


def test_speed_ups_are_against_the_plainest_setting():
    fast = {"dtype": "fp16", "attention": "sdpa"}
    group = [
        timing(1.0, 2.0, **fast),  # 10 x predicted, 4 x published
        timing(10.0, 8.0),
        timing(5.0, 4.0, dtype="fp16"),  # 2 x and 2 x
    ]
    assert ratio_errors_pct(group) == pytest.approx([150, 0])
    assert ratio_errors_pct(group[:2]) == pytest.approx([150])
    assert ratio_errors_pct([group[0], group[2]]) == pytest.approx([150])  # fp16 is the plainest now: 5 x, 2 x


def test_of_equally_plain_settings_the_slower_is_the_baseline():
    group = [timing(4.0, 2.0, dtype="fp16"), timing(3.0, 3.0, attention="sdpa")]
    assert ratio_errors_pct(group) == pytest.approx([-50])  # 0.75 x predicted, 1.5 x published


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "elsewhere"}, {"pipeline": "Another"}, {"batch": 2}, {"steps": 20}, {"guidance_scale": 1.0},
        {"components": "no safety checker"}, {"device": A100}, {"kind": Timed.LOOP},
    ],
)  # fmt: skip
def test_only_the_same_call_is_compared(changes):
    assert ratio_errors_pct([timing(1.0, 2.0), timing(1.0, 1.0, dtype="fp16", **changes)]) == []
    assert regrets_pct([timing(1.0, 2.0), timing(1.0, 1.0, dtype="fp16", **changes)]) == []


def test_repeats_of_one_setting_are_one_member():
    repeats = [timing(2.0, published_s, torch=f"2.{published_s}") for published_s in (2.0, 3.0, 7.0)]
    assert ratio_errors_pct(repeats) == []
    assert ratio_errors_pct([*repeats, timing(1.0, 1.0, compile="default")]) == pytest.approx([-100 / 3])  # 2 x, 3 x


def test_regret_is_what_a_wrong_choice_costs():
    right = [timing(2.0, 3.0), timing(1.0, 1.0, dtype="fp16")]
    wrong = [timing(1.0, 1.5, batch=2), timing(2.0, 1.0, batch=2, dtype="fp16")]
    undecided = [timing(1.0, 1.0, batch=4), timing(1.0, 1.2, batch=4, dtype="fp16")]
    assert regrets_pct([*right, *wrong, *undecided]) == pytest.approx([0, 50, 20])


def test_ranks_by_card_and_kind():
    rising = [timing(2.0 * 2**power, 3.0 * 2**power, steps=power + 1) for power in range(8)]
    falling = [timing(2.0**-power, 2.0**power, steps=power + 1, device=A100) for power in range(8)]
    few = [timing(1.0, float(steps), steps=steps, kind=Timed.LOOP) for steps in range(1, 8)]
    assert rank_correlations([*rising, *falling, *few]) == {"Tesla T4, call": 1.0, "NVIDIA A100-SXM4-40GB, call": -1.0}
    swapped = [*rising[:6], timing(256.0, 192.0, steps=7), timing(128.0, 384.0, steps=8)]
    assert rank_correlations(swapped) == {"Tesla T4, call": 0.976}  # 1 - 6 * 2 / (8 * 63)


def test_what_hardly_differs_shares_a_rank():
    published = [1.0, 1.04, 1.08, 2.0, 3.0, 4.0, 5.0, 6.0]  # the third is 8 % above the first
    tied = [timing(value, value, steps=place + 1) for place, value in enumerate(published)]
    reversed_tie = [timing(1.04, 1.0, steps=1), timing(1.0, 1.04, steps=2), *tied[2:]]
    assert rank_correlations(reversed_tie) == {"Tesla T4, call": 1.0}
    far = [timing(1.5, 1.0, steps=1), timing(1.0, 1.04, steps=2), *tied[2:]]  # ranks 2 0 1 3.. against 0.5 0.5 2 3..
    assert rank_correlations(far)["Tesla T4, call"] == pytest.approx(0.958, abs=5e-4)


def test_without_an_order_there_is_no_correlation():
    level = [timing(float(steps), 1.0, steps=steps) for steps in range(1, 9)]
    assert rank_correlations(level) == {}
    guessed = [timing(1.0, float(steps), steps=steps) for steps in range(1, 9)]
    assert rank_correlations(guessed) == {"Tesla T4, call": 0.0}


def test_the_figures():
    timings = [
        timing(1.1, 1.0), timing(1.3, 1.0, device=A100), timing(1.0, 0.5, dtype="fp16"),
        timing(1.5, 1.0, offload="model_cpu_offload"), timing(1.0, 1.0, offload="sequential_cpu_offload"),
    ]  # fmt: skip
    skipped = [Skipped(timings[0].record, Skip.UNKNOWN_CARD, "none named")]
    figures = latency_figures(timings, skipped)
    assert figures["latency_median_pct"] == 35  # 20 (of 10 and 30), 100, 50, 0
    assert figures["latency_p90_pct"] == 100
    assert figures["latency_median_pct_fine"] == figures["latency_median_pct_by_record"] == 30  # 10 30 100 50 0
    assert figures["offload_latency_median_pct"] == 25
    # On the T4 1.1 x (2 x published), 0.73 x (1 x) and 1.1 x (1 x): -45, -26.7 and +10 %.
    assert figures["ratio_median_pct"] == 26.67
    assert figures["ratio_p90_pct"] == 45
    assert figures["regret_median_pct"] == figures["regret_max_pct"] == 100  # two are predicted fastest, one is
    assert figures["latency_records_used"] == 5
    assert figures["latency_records_skipped_pct"] == 16.67
    assert figures["latency_clusters"] == 4
    assert figures["rank_correlation_min"] == 0


def test_the_figures_of_nothing():
    assert set(latency_figures([], []).values()) == {0}


def test_bars_are_by_how_weights_move():
    moving = {"moves": "leaf", "moving_share": 0.5, "bar": Bar(0.4, 1.5)}
    timings = [
        timing(10.0, 12.0)._replace(**moving),
        timing(10.0, 16.0, device=A100)._replace(**moving),  # the same cluster: 40 % longer
        timing(10.0, 30.0, batch=2)._replace(**moving),  # 200 % longer, which its bar does not hold
        timing(10.0, 8.0),
    ]
    leaf, none = latency_bars(timings)
    assert (leaf["moves"], leaf["clusters"], leaf["moving_share_median_pct"]) == ("leaf", 2, 50)
    assert (leaf["shorter_p90_pct"], leaf["longer_p90_pct"], leaf["held_pct"]) == (0, 200, 50)
    assert (none["moves"], none["shorter_p90_pct"], none["longer_p90_pct"], none["held_pct"]) == ("none", 20, 0, 100)
