"""Stable Diffusion 1.5 in its own size: optimised, run and restored on the CPU, weights and all."""

from __future__ import annotations

import pytest
import torch

import autotune
from benchmarks.planner import full_size_sd

pytestmark = pytest.mark.slow

CALL = {"height": 64, "width": 64, "num_inference_steps": 1}  # a CPU without bf16 instructions is slow at it


def test_full_size_sd15_is_optimised_run_and_restored() -> None:
    pipe = full_size_sd()
    before = {name: part.state_dict() for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    checksums = {name: sum(t.double().sum().item() for t in state.values()) for name, state in before.items()}

    autotune.optimize(pipe, workload=CALL, profiles=False)
    explained = autotune.explain(pipe)
    image = pipe("a photo of an astronaut", output_type="pt", **CALL).images

    assert explained.fits
    assert pipe.unet.dtype == torch.bfloat16
    assert image.shape == (1, 3, 64, 64)
    assert torch.isfinite(image).all()

    autotune.restore(pipe)
    assert pipe.unet.dtype == torch.float32
    for name, state in before.items():
        after = pipe.components[name].state_dict()
        assert all(after[key] is tensor or torch.equal(after[key], tensor) for key, tensor in state.items())
        assert sum(t.double().sum().item() for t in after.values()) == checksums[name]
