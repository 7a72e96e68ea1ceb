"""The six tiny pipelines as the contract suites take them: a call, a batch, a tile, processors worth replacing."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from diffusers.models.attention_processor import AttnProcessor

from autotune.flow.job import Job, job_for
from autotune.levers.base import Lever, Subject
from autotune.levers.journal import Journal
from autotune.probe.gpu import cpu_device
from autotune.records.device import Device
from benchmarks.tiny import CALLS, PIPELINES, generate

CPU = cpu_device()
CARD = Device(
    name="a card",
    kind="cuda",
    torch_device="cuda:0",
    compute_capability=(8, 6),
    total_bytes=12 * 10**9,
    bandwidth_bytes_per_s=360e9,
    fp32_flops_per_s=12.7e12,
    tf32_flops_per_s=12.7e12,
    fp16_flops_per_s=25.5e12,
    bf16_flops_per_s=25.5e12,
    pcie_generation=4,
    pcie_width=16,
)
FAMILIES = tuple(PIPELINES)

_SIZES = {
    "sd": {"height": 32, "width": 32},
    "sdxl": {"height": 32, "width": 32},
    "wan": {"height": 64, "width": 32, "num_frames": 5},
    "ltx": {"num_frames": 17},
}
TILES = {"sd": 16, "sdxl": 16, "flux": 4, "sd3": 16, "wan": 32, "ltx": 16}
"""An edge in pixels that cuts the image of the call."""
HALF_LEVERS = ("float16", "bfloat16")


def call_of(family: str, *, batch: int = 1) -> dict[str, Any]:
    """The call's arguments without prompt and generator; as small as every lever allows."""
    per_prompt = "num_videos_per_prompt" if family in {"wan", "ltx"} else "num_images_per_prompt"
    return {**CALLS[family], **_SIZES.get(family, {}), per_prompt: batch}


def build(family: str, *, processors: bool = False) -> Any:
    """A fresh pipeline; with `processors` its attention is vanilla, SDXL's UNet sliced."""
    torch.set_num_threads(1)  # the tensors are tiny: more threads only wait for each other
    diffusers.utils.logging.set_verbosity_error()
    pipe = PIPELINES[family]()
    if processors:
        for part in (getattr(pipe, "unet", None), pipe.vae):
            if hasattr(part, "set_attn_processor"):
                part.set_attn_processor(AttnProcessor())
        if family == "sdxl":
            pipe.enable_attention_slicing(1)
    return pipe


def run(family: str, pipe: Any, *, batch: int = 1) -> torch.Tensor:
    """One seeded call."""
    return generate(family, pipe, **call_of(family, batch=batch))


def job(family: str, pipe: Any, *, device: Device = CPU, batch: int = 1) -> Job:
    """The same call as something to plan for."""
    call = {"prompt": "a cat", **call_of(family, batch=batch)}
    return job_for(pipe, device=device, workload=call, example=None, calls=1, undo=True)


def subject_of(lever: Lever, family: str, pipe: Any, *, facts: bool = True) -> Subject:
    """What the lever is pulled on: the family's call, on a card where only a card will do."""
    from autotune.flow.planning import facts_for

    planned = job(family, pipe if pipe is not None else build(family), batch=2)
    seen = facts_for(planned) if facts and lever.name == "batch_split" else {}
    return Subject(pipe, CARD if lever.name == "tf32" else CPU, planned.largest, denoisers=seen)


def pulled(lever: Lever, subject: Subject, value: Any) -> Journal:
    """What takes back a lever that is pulled by itself."""
    journal = Journal()
    lever.apply(subject, value, journal)
    return journal


def values_of(family: str, *, batch: int = 1) -> dict[str, tuple[Any, ...]]:
    """All values of every lever that run on a CPU: no TF32, no streams, no library that needs a card. As found comes first."""
    samples = batch * (1 if family in {"flux", "wan"} else 2)  # their guidance is embedded, or a call of its own
    unet = family in {"sd", "sdxl"}
    return {
        "dtype": (None, *HALF_LEVERS),
        "tf32": (None, False),
        "channels_last": (None, False) if family == "ltx" else (None, False, True),
        "attention": (None, *ATTENTION[family]),
        "feed_forward_chunks": (None, False, 3),
        "batch_split": (None, False, 2) if samples > 1 else (None,),
        "vae_slicing": (None, False, True),
        "vae_tiling": (None, False, TILES[family]),
        "vae_framewise": (None, False, True) if family == "ltx" else (None, False),
        "compile": (None, "none", "trace", "blocks") if unet else (None, "none", "blocks"),
        "offload": (None, "none", "model", "sequential", "group:block", "group:leaf"),
        "text_encoders": (None, "resident", "leave", "cpu"),
    }


ATTENTION = {
    "sd": ("sdpa", "vanilla", "sliced:auto", "sliced:max", "sliced:1"),
    "sdxl": ("sdpa", "vanilla", "sliced:auto", "sliced:max", "sliced:1"),
    "flux": ("sdpa", "vanilla", "backend:native", "backend:_native_math"),
    "sd3": ("sdpa", "vanilla"),
    "wan": ("sdpa", "backend:native", "backend:_native_math"),
    "ltx": ("sdpa", "backend:native", "backend:_native_math"),
}
"""Attention's values that run on a CPU, by family."""
