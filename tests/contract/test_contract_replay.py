"""A replay for the CPU and a real run on the CPU agree on the bytes of activations, plan by plan."""

from __future__ import annotations

import pytest
import torch

from autotune.flow import planning
from autotune.levers import engine
from autotune.records.plan import Plan
from autotune.records.trace import Trace
from autotune.search.space import Space
from autotune.simulate.memory import segment_memory
from autotune.simulate.replay import Replayer
from tests.contract.families import CPU, FAMILIES, build, job, run, sampled, values_of
from tests.contract.livebytes import activations_bytes

PLANS = 6  # at each of two batch sizes
SHARE, BYTES = 0.005, 2048


def traced(family, pipe, batch, plans):
    """The traces that planning makes for these plans, by execution."""
    seen = []

    class Watched(Replayer):
        def __init__(self, traces, **rest):
            super().__init__(traces, **rest)
            seen.append(traces)

    names = list(Plan().values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "Replayer", Watched)
        space = Space(values={name: tuple(dict.fromkeys(plan.values[name] for plan in plans)) for name in names})
        planning.estimator(job(family, pipe, batch=batch), space)
    return seen[0]


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


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
class TestEachPlan:
    def test_activation_bytes_agree(self, family, batch):
        pipe = build(family, processors=True)
        plans = sampled(values_of(family), 2 * PLANS)[batch - 1 :: 2]
        traces = traced(family, pipe, batch, plans)
        for plan in plans:
            engine.apply(pipe, plan, device=CPU, workload=job(family, pipe, batch=batch).largest)
            if plan.offload == "model":
                stay_on(pipe, torch.device("cpu"))
            real = activations_bytes(pipe, lambda pipe: run(family, pipe, batch=batch))
            engine.restore(pipe)
            trace = traces[plan.execution]
            assert trace.untraced == {}
            assert replayed_bytes(trace) == pytest.approx(real, rel=SHARE, abs=BYTES), plan.changes


def test_every_pair_of_values_is_sampled():
    values = values_of("sd")
    plans = sampled(values, 2 * PLANS)
    pairs = {(a, x, b, y) for a in values for b in values if a < b for x in values[a] for y in values[b]}
    met = {(a, p.values[a], b, p.values[b]) for p in plans for a in values for b in values if a < b}
    assert met == pairs
    assert {plan.offload for plan in plans[::2]} == {plan.offload for plan in plans[1::2]} == set(values["offload"])
