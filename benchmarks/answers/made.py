"""Pipelines and folders that no name stands for: what a user has made himself. Tiny, but for folders without weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["FOLDERS", "PIPELINES", "made_folder", "made_pipeline"]


def made_pipeline(name: str) -> Any:
    """The pipeline of that name.

    Raises:
        KeyError: there is none.
    """
    return PIPELINES[name]()


def made_folder(name: str, folder: Path) -> None:
    """Writes the folder of that name.

    Raises:
        KeyError: there is none.
    """
    FOLDERS[name](folder)


def _tiny(name: str) -> Any:
    from benchmarks import tiny

    return tiny.PIPELINES[name]()


def _saved(name: str, folder: Path) -> None:
    _tiny(name).save_pretrained(folder)


def _with_controlnets(*, count: int, half: bool) -> Any:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    pipe = _tiny("sd")
    blocks = {"block_out_channels": pipe.unet.config.block_out_channels, "cross_attention_dim": 32,
              "down_block_types": pipe.unet.config.down_block_types, "norm_num_groups": 2, "attention_head_dim": 4,
              "conditioning_embedding_out_channels": (4, 8)}  # fmt: skip
    nets = [ControlNetModel(**blocks).eval() for _ in range(count)]
    nets = [net.half() for net in nets] if half else nets
    parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
    made = StableDiffusionControlNetPipeline(
        **parts, controlnet=nets[0] if count == 1 else nets, requires_safety_checker=False
    )
    made.set_progress_bar_config(disable=True)
    return made


def _with_scheduler(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        import diffusers

        pipe = _tiny("sdxl")
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
        pipe.save_pretrained(folder)

    return write


def _published(name: str, dtypes: dict[str, str]) -> Callable[[Path], None]:
    """A published model's configuration, with weight files of which only the beginning is there: it says their precision."""

    def write(folder: Path) -> None:
        import torch

        from autotune.zoo.locate import locate

        pipe = locate(name).pipe
        pipe.save_config(folder)
        part: Any
        for part_name, part in pipe.components.items():
            if hasattr(part, "save_config"):
                part.save_config(folder / part_name)
            elif isinstance(part, torch.nn.Module):
                part.config.save_pretrained(folder / part_name)
            elif part_name.startswith("tokenizer"):
                (folder / part_name).mkdir()
                content = {"model_max_length": part.model_max_length, "pad_token": {"content": part.pad_token}}
                (folder / part_name / "tokenizer_config.json").write_text(json.dumps(content))
            elif part is not None:
                part.save_pretrained(folder / part_name)
        for part_name, dtype in dtypes.items():
            header = json.dumps({"weight": {"dtype": dtype, "shape": [1], "data_offsets": [0, 4]}}).encode()
            ours = hasattr(pipe.components[part_name], "save_config")
            file = "diffusion_pytorch_model.safetensors" if ours else "model.safetensors"
            (folder / part_name / file).write_bytes(len(header).to_bytes(8, "little") + header)

    return write


PIPELINES: dict[str, Callable[[], Any]] = {
    **{f"tiny-{name}": partial(_tiny, name) for name in ("sd", "sdxl", "flux", "sd3", "wan", "ltx")},
    "tiny-sd-fp16-controlnet": lambda: _with_controlnets(count=1, half=True),
    "tiny-sd-fp16-controlnets": lambda: _with_controlnets(count=2, half=True),
    "tiny-sd-controlnets": lambda: _with_controlnets(count=2, half=False),
}
"""Loaded pipelines by name, for MODEL in a call."""

FOLDERS: dict[str, Callable[[Path], None]] = {
    **{f"tiny-{name}": partial(_saved, name) for name in ("sd", "sdxl", "flux")},
    **{
        f"tiny-sdxl-{name}": _with_scheduler(name)
        for name in ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
                     "DPMSolverMultistepInverseScheduler", "SASolverScheduler")
    },
    "wan2.2-ti2v-5b-bf16-vae-fp32": _published(
        "wan2.2-ti2v-5b", {"transformer": "BF16", "text_encoder": "BF16", "vae": "F32"}
    ),
    "sdxl-fp16-vae-fp32": _published(
        "sdxl-base-1.0", {"unet": "F16", "text_encoder": "F16", "text_encoder_2": "F16", "vae": "F32"}
    ),
}  # fmt: skip
"""Folders by name, for MODEL in a command."""
