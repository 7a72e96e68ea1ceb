"""On a real card: the call runs under every placement, what was predicted covers what was measured, all is put back.

Run with `pytest -m gpu`. Predicted and measured bytes are attached to the report as properties (`--junitxml`).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import autotune
from benchmarks import tiny

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card"),
]


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": tensor for name, part in parts.items() for key, tensor in part.state_dict().items()}


@pytest.mark.parametrize("offload", ["none", "model", "sequential"])
@pytest.mark.parametrize("dtype", ["as_is", "float16"])
@pytest.mark.parametrize("family", sorted(tiny.PIPELINES))
def test_prediction_covers_the_run_and_restore_is_exact(
    family: str, dtype: str, offload: str, record_property: Any
) -> None:
    pipe = tiny.PIPELINES[family]()
    before = {name: tensor.clone() for name, tensor in weights(pipe).items()}
    keep = {"offload": offload, "dtype": dtype}
    autotune.optimize(pipe, workload=tiny.CALLS[family], keep=keep, profiles=False)
    torch.cuda.reset_peak_memory_stats()
    output = tiny.generate(family, pipe)
    estimate = autotune.explain(pipe).chosen.estimate
    record_property("predicted_allocated_bytes", estimate.allocated_bytes)
    record_property("measured_allocated_bytes", torch.cuda.max_memory_allocated())

    assert torch.isfinite(output).all()
    assert torch.cuda.max_memory_allocated() <= estimate.needed_bytes

    autotune.restore(pipe)
    after = weights(pipe)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {tensor.device.type for tensor in after.values()} == {"cpu"}


def test_reserved_stays_under_the_cap() -> None:
    pipe = autotune.optimize(tiny.sd(), max_vram="2GB", workload=tiny.CALLS["sd"], profiles=False)
    tiny.generate("sd", pipe)
    assert torch.cuda.max_memory_reserved() <= 2 * 10**9
    autotune.restore(pipe)
