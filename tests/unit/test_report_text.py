"""Every value of every lever has words."""

from __future__ import annotations

import pytest

from autotune.records.plan import Plan
from autotune.records.words import lever_words, plan_words
from tests.contract.families import ATTENTION, values_of


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
