"""A published record as it is written, small enough to be traced in a second."""

from __future__ import annotations

from typing import Any

from benchmarks.measured import Measurement

RECORD: dict[str, Any] = {
    "id": "one", "source": "somewhere", "scope": "pipeline", "pipeline": "StableDiffusionPipeline",
    "model": "runwayml/stable-diffusion-v1-5", "dtype": "fp16", "batch": 1, "height": 128, "width": 128, "frames": None,
    "steps": 2, "guidance_scale": 7.5, "cfg": True, "attention": "sdpa", "offload": "none", "vae_slicing": False,
    "vae_tiling": False, "compile": "none", "channels_last": False, "quantization": "none", "layerwise_casting": "none",
    "gpu": "NVIDIA A100-SXM4-40GB", "metric": "max_memory_allocated", "peak_gib": 2.6, "oom": False, "confidence": "A",
    "use_for": ["peak_memory"],
}  # fmt: skip


def record(**changes: Any) -> Measurement:
    """The record with some fields changed."""
    return Measurement.model_validate(RECORD | changes)
