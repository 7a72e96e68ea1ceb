"""Every value of every lever has words, and the table of levers has the right ones."""

from __future__ import annotations

import pytest

from autotune.records.plan import PLAIN, Plan
from autotune.records.words import lever_words, plan_words
from autotune.records.workload import Workload
from autotune.report.explanation import Explanation
from autotune.report.tables import lever_rows
from autotune.units import GB
from tests.contract.families import ATTENTION, values_of
from tests.unit.handmade import CARD, candidate


@pytest.mark.parametrize("name", Plan().values)
def test_each_value_has_words_of_its_own(name):
    values = dict.fromkeys(value for family in ATTENTION for value in values_of(family, batch=2)[name])
    words = [lever_words(name, value) for value in values]
    assert len(set(words)) == len(words)
    assert all(0 < len(word) < 50 for word in words)


def test_settings_are_written_out():
    plan = Plan(offload="group:leaf+stream+record_stream+low_cpu_mem", attention="backend:flash", batch_split=2)
    assert plan_words(plan) == (
        "attention by flash, denoiser's batch in 2 parts, group offload by leaf + stream + record stream + low cpu mem"
    )
    assert plan_words(Plan()) == "as it is, everything on the device"


def test_the_table_of_levers_says_what_each_runs_with():
    """What a plan leaves as found is told as it was found, where there was a choice."""
    reasons = {"offload": "against none: 1.00 GB less VRAM", "dtype": "against float16: 2.0 s slower", "tf32": "fixed"}
    plan = Plan(dtype="bfloat16", reasons=reasons)
    explained = Explanation(
        state="planned", model="a model", workload=Workload(), device=CARD, cap_bytes=GB, chosen=candidate(plan),
        found=PLAIN.model_copy(update={"offload": "model"}),
    )  # fmt: skip
    assert lever_rows(explained) == [
        ("dtype", lever_words("dtype", plan.dtype), reasons["dtype"]),
        ("offload", lever_words("offload", "model"), reasons["offload"]),
    ]
