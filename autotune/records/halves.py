"""What is known about a model in half precision: which half, what stays in float32 beside it, and whether float16 is safe."""

from __future__ import annotations

from typing import Literal

from autotune.records.base import Record
from autotune.records.precision import DtypeName

__all__ = ["DtypeName", "HalfName", "HalfPrecision"]

HalfName = Literal["float16", "bfloat16"]


class HalfPrecision(Record):
    """Facts with their source; components are named by their argument of the pipeline's constructor.

    >>> facts = HalfPrecision(half="bfloat16", kept_fp32=("vae",), fp16="unknown", why="nothing published", source="wan.md")
    >>> facts.documented
    {'default': 'bfloat16', 'vae': 'float32'}
    """

    half: HalfName
    """The half precision in which the model card or the documentation of diffusers loads the model."""
    beside: dict[str, HalfName] = {}
    """Components that are loaded in the other half precision beside it."""
    kept_fp32: tuple[str, ...] = ()
    """Components that are loaded in float32 beside it; empty where the pipeline itself upcasts, as for the VAE of SDXL."""
    fp16: Literal["safe", "fails", "unknown"]
    """Whether the networks give right results in float16, which is what a card without bfloat16 would compute in."""
    fp16_kept_fp32: tuple[str, ...] = ()
    """Components that have to stay in float32 for float16 to be safe."""
    variant: tuple[str, ...] = ()
    """Components of which half-precision files are published beside the full ones."""
    why: str
    """What is known about float16, in a sentence."""
    source: str
    """Where that is written: an address, or a file of a public repository."""

    @property
    def documented(self) -> dict[str, DtypeName]:
        """The precision of each component in documented use, in the form of diffusers' own `torch_dtype` argument."""
        kept: dict[str, DtypeName] = dict.fromkeys(self.kept_fp32, "float32")
        return {"default": self.half, **self.beside, **kept}
