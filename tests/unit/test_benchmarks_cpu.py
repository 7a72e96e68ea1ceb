"""The benchmark of this CPU: what it compares, and how it counts errors. No time is asserted."""

from __future__ import annotations

import pytest

from autotune.probe.gpu import cpu_device
from benchmarks.cpu import Compared, compared, errors_of


def test_an_error_is_that_of_the_prediction():
    assert Compared("a_s", 1.5, (1.0, 1.0, 5.0)).error_pct == pytest.approx(50)
    assert Compared("a_s", 0.5, (1.0,)).error_pct == pytest.approx(-50)


def test_the_worst_and_the_median_are_headlines():
    found = [Compared("a_s", 1.1, (1.0,)), Compared("b_s", 0.4, (1.0,)), Compared("c_s", 1.2, (1.0,))]
    rows = {row.figure: row for row in errors_of(found)}
    assert [name for name, row in rows.items() if row.headline] == ["cpu_latency_worst_pct", "cpu_latency_median_pct"]
    assert rows["cpu_latency_worst_pct"].value == pytest.approx(60)
    assert rows["cpu_latency_worst_pct"].what.endswith(": b_s")
    assert rows["cpu_latency_median_pct"].value == pytest.approx(20)
    assert rows["b_s"].what == "predicted 0.4 s, -60 %"


def test_a_tiny_pipeline_is_predicted_and_run():
    call, step = compared("flux", cpu_device(), calls=2)
    assert (call.figure, step.figure) == ("flux_call_s", "flux_step_s")
    for one in (call, step):
        assert one.predicted_s > 0
        assert len(one.measured_s) == 2
        assert min(one.measured_s) > 0
    assert step.predicted_s < call.predicted_s
