"""On a real card: what was predicted, what was measured, and everything put back. Run with `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch

import autotune
from benchmarks import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
@pytest.mark.parametrize("family", sorted(tiny.PIPELINES))
def test_runs_under_each_placement_and_restores(family: str, offload: str) -> None:
    pipe, call = tiny.PIPELINES[family](), tiny.CALLS[family]
    before = {name: p for part in pipe.components.values() if isinstance(part, torch.nn.Module)
              for name, p in part.named_parameters()}  # fmt: skip
    autotune.optimize(pipe, workload=call, keep={"offload": offload, "dtype": "as_is"}, profiles=False)
    torch.cuda.reset_peak_memory_stats()
    output = pipe("a cat", output_type="pt", **call)
    measured_bytes = torch.cuda.max_memory_allocated()
    predicted_bytes = autotune.explain(pipe).chosen.estimate.allocated_bytes
    print(f"{family} {offload}: predicted {predicted_bytes} B, measured {measured_bytes} B allocated")

    assert torch.isfinite(next(iter(output.values()))).all()
    assert measured_bytes <= autotune.explain(pipe).chosen.estimate.needed_bytes
    autotune.restore(pipe)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            assert all(parameter.device.type == "cpu" for parameter in part.parameters())
    assert before


def test_the_cap_bounds_the_process() -> None:
    pipe = autotune.optimize(tiny.sd(), max_vram="2GB", workload=tiny.CALLS["sd"], profiles=False)
    pipe("a cat", **tiny.CALLS["sd"])
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    assert torch.cuda.memory_reserved() <= 2 * 10**9
    assert free_bytes <= total_bytes
    autotune.restore(pipe)
