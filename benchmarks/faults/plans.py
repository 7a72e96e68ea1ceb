"""The plans and the owner's states in which faults are tried, by family: together they pull every lever that runs on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import accelerate
import torch
from diffusers.models.attention_processor import AttnProcessor

from autotune.flow.job import Job, job_for
from autotune.flow.planning import facts_for
from autotune.probe.gpu import cpu_device
from autotune.records.plan import Plan
from autotune.upstream.port import networks
from benchmarks.faults.scenes import Scene
from benchmarks.tiny import CALLS, PIPELINES, generate

__all__ = ["FAMILIES", "scenes_of"]

FAMILIES = tuple(PIPELINES)
_CPU = torch.device("cpu")
_SMALL: dict[str, dict[str, int]] = {
    "sd": {"height": 32, "width": 32},
    "sdxl": {"height": 32, "width": 32},
    "wan": {"height": 64, "width": 32, "num_frames": 5},
    "ltx": {"num_frames": 17},
}
_TILE_PX = {"sd": 16, "sdxl": 16, "flux": 4, "sd3": 16, "wan": 32, "ltx": 16}


def _plans(family: str) -> dict[str, Plan]:
    """One of everything, one for each offload, and for a UNet one whose code is traced."""
    unet = family in {"sd", "sdxl"}
    exact: dict[str, Any] = {"vae_slicing": True, "channels_last": family != "ltx"}
    lowered: dict[str, Any] = {"dtype": "bf16", "vae_tiling": _TILE_PX[family], **exact}
    if family == "ltx":
        lowered["vae_framewise"] = True
    attention = "sliced:max" if unet else "backend:_native_math" if family in {"flux", "wan", "ltx"} else "vanilla"
    plans = {
        "everything": Plan(**lowered, attention=attention, feed_forward_chunks=2, text_encoders="leave"),
        "model": Plan(**exact, offload="model", batch_split=2, tf32=True),
        "sequential": Plan(dtype="fp16", offload="sequential", feed_forward_chunks=2),
        "groups": Plan(offload="group:block", text_encoders="cpu", vae_slicing=True),
        "leaves": Plan(**lowered, offload="group:leaf"),
    }
    return plans | ({"traced": Plan(compile="trace", attention="sdpa")} if unet else {})


def _plain(pipe: Any) -> None:
    """As it was loaded."""


def _offloaded(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")


def _emptied(pipe: Any) -> None:
    for part in networks(pipe).values():
        accelerate.cpu_offload(part, _CPU, offload_buffers=len(part._parameters) > 0)


def _grouped(pipe: Any) -> None:
    pipe.enable_group_offload(_CPU, offload_type="leaf_level")


def _processed(pipe: Any) -> None:
    """Attention as step by step code, by hand."""
    for part in networks(pipe).values():
        if hasattr(part, "set_attn_processor") and type(part).__name__.startswith(("UNet", "AutoencoderKL")):
            part.set_attn_processor(AttnProcessor())


_STATES: dict[str, Callable[[Any], None]] = {
    "everything": _processed,
    "model": _emptied,
    "sequential": _grouped,
    "groups": _offloaded,
    "leaves": _plain,
    "traced": _plain,
}
"""The state of the owner's in which each plan finds the pipeline."""


def scenes_of(family: str) -> Iterator[tuple[str, Scene]]:
    """The family's scenes by name, each built when it is asked for."""
    torch.set_num_threads(1)
    images = {"num_videos_per_prompt" if family in {"wan", "ltx"} else "num_images_per_prompt": 2}
    call = {**CALLS[family], **_SMALL.get(family, {}), **images, "num_inference_steps": 1}
    asked = _job(family, call)
    card = asked.device.model_copy(update={"compute_capability": (8, 6), "tf32_flops_per_s": 1e12, "kind": "cuda"})
    for name, plan in _plans(family).items():
        yield (
            name,
            Scene(
                f"{family} {name}",
                partial(_built, family, _STATES[name]),
                lambda pipe: generate(family, pipe, **call),
                plan,
                device=card if plan.tf32 else asked.device,
                workload=asked.largest,
                denoisers=facts_for(asked) if plan.batch_split else {},
            ),
        )


def _built(family: str, enter: Callable[[Any], None]) -> Any:
    pipe = PIPELINES[family]()
    enter(pipe)
    return pipe


def _job(family: str, call: dict[str, Any]) -> Job:
    given = {"prompt": "a cat", **call}
    return job_for(PIPELINES[family](), device=cpu_device(), workload=given, example=None, calls=1, undo=True)
