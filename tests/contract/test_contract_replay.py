"""A replay for the CPU and a real run on the CPU agree on the bytes of activations, plan by plan."""

from __future__ import annotations

import pytest
import torch

from autotune.flow.planning import facts_for
from autotune.flow.recordings import Recordings
from autotune.guard import applying
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.rules import conflict
from autotune.records.trace import Trace
from autotune.search.space import Space
from autotune.simulate.memory import segment_memory
from tests.contract.families import CPU, FAMILIES, build, job, run, values_of
from tests.contract.livebytes import activations_bytes
from tests.contract.pairs import allowed_pairs, covering, pairs_of

PLANS = 4  # at each of two batch sizes
SHARE, BYTES = 0.005, 2048


def runnable(plan: Plan) -> bool:
    """Compiled code allocates as it likes, and the math kernel is what the CPU would not take by itself."""
    return conflict(plan) is None and plan.compile in {None, "none"} and plan.attention != "backend:_native_math"


def trace_of(recordings: Recordings, plan: Plan) -> Trace:
    """The trace that planning makes for this plan."""
    values = {name: (value,) for name, value in plan.values.items()}
    return recordings.traces(Space(values=values))[plan.execution]


def replayed_bytes(trace: Trace) -> int:
    before, peak = 0, 0
    for segment in trace.segments:
        memory = segment_memory(segment, CPU)
        peak = max(peak, before + memory.peak.activations_bytes)
        before += memory.net_bytes
    return peak


def stay_on(pipe, device):
    """accelerate copies tensors from "cpu" to diffusers' "cpu:0"; on one and the same device nothing is copied."""
    for part in pipe.components.values():
        if hasattr(part, "_hf_hook"):
            part._hf_hook.execution_device = device


def plans_for(family: str, batch: int) -> list[Plan]:
    """Some of a covering array; the others are run by the slow tests."""
    values = values_of(family, batch=batch)
    values |= {
        "compile": (None, "none"),
        "attention": tuple(v for v in values["attention"] if v != "backend:_native_math"),
    }
    return covering(values, runnable, seed=batch)[:PLANS]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_activation_bytes_agree(family, batch):
    pipe = build(family, processors=True)
    planned = job(family, pipe, batch=batch)
    facts, recordings = facts_for(planned), Recordings(planned, planned.workloads[0], planned.calls[0])
    for plan in sorted(plans_for(family, batch), key=lambda plan: str(plan.dtype)):
        trace = trace_of(recordings, plan)
        assert trace.untraced == {}
        applying.apply(pipe, plan, device=CPU, workload=planned.largest, denoisers=facts)
        if plan.offload == "model":
            stay_on(pipe, torch.device("cpu"))
        real = activations_bytes(pipe, lambda pipe: run(family, pipe, batch=batch))
        applying.restore(pipe)
        assert replayed_bytes(trace) == pytest.approx(real, rel=SHARE, abs=BYTES), plan.changes


def test_a_covering_array_covers():
    values = values_of("sd", batch=2)
    plans = covering(values)
    assert set().union(*(pairs_of(plan, list(values)) for plan in plans)) >= allowed_pairs(values)
    assert all(conflict(plan) is None for plan in plans)
    assert len({name for plan in plans for name in plan.changes} & set(EXECUTION_LEVERS)) == len(EXECUTION_LEVERS)
