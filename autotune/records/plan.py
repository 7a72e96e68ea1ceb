"""A plan: one value and one reason for each lever."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool

from autotune.records.base import Record

__all__ = ["EXECUTION_LEVERS", "LANES", "LEVERS", "Plan", "Quality"]

Quality = Literal["exact", "near", "int8", "int4"]
LANES: tuple[Quality, ...] = ("exact", "near", "int8", "int4")


class Plan(Record):
    """How to run a pipeline. The defaults: precision and attention as they are, VAE whole, everything on the device.

    >>> from autotune import Plan
    >>> Plan(offload="model").changes
    {'offload': 'model'}
    """

    dtype: Literal["as_is", "float16", "bfloat16"] = "as_is"
    """Precision to which fp32 weights are lowered. Weights that are in half precision already are left alone."""
    tf32: StrictBool = False
    """TF32 for fp32 matrix products (compute capability 8.0 and later)."""
    attention: Literal["as_is", "sdpa"] = "as_is"
    """Attention processors: as they are, or torch's fused `scaled_dot_product_attention`."""
    vae_slicing: StrictBool = False
    """Decode a batch one image at a time."""
    vae_tiling: Literal[False] | Annotated[int, Field(gt=0, strict=True)] = False
    """Decode in overlapping tiles with this edge in pixels; False decodes the image whole."""
    offload: Literal["none", "model", "sequential"] = "none"
    """Where weights wait: on the card, in RAM by component, or in RAM by leaf module."""
    reasons: dict[str, str] = {}
    """Why each lever has its value, by lever."""
    id: str = "p0"
    """Its name within a front."""

    @property
    def values(self) -> dict[str, Any]:
        """The value of each lever."""
        return {name: getattr(self, name) for name in LEVERS}

    @property
    def changes(self) -> dict[str, Any]:
        """The levers that are not at their default."""
        return {name: value for name, value in self.values.items() if value != type(self).model_fields[name].default}

    @property
    def execution(self) -> tuple[Any, ...]:
        """The values that decide which kernels run: plans that agree in them share a trace."""
        return tuple(getattr(self, name) for name in EXECUTION_LEVERS)

    @property
    def lane(self) -> Quality:
        """The best quality lane this plan belongs to: `exact` gives the same image up to float noise."""
        return "near" if self.quality_rank else "exact"

    @property
    def quality_rank(self) -> int:
        """0 exact, 1 near, 2 near with a tiled VAE: tiling is taken only where nothing untiled fits."""
        if self.vae_tiling is not False:
            return 2
        return int(self.dtype != "as_is" or self.tf32)

    def same_as(self, other: Plan) -> bool:
        """Whether both plans pull the same levers, whatever their names and reasons."""
        return self.values == other.values


LEVERS: tuple[str, ...] = tuple(name for name in Plan.model_fields if name not in {"reasons", "id"})
EXECUTION_LEVERS: tuple[str, ...] = ("dtype", "attention", "vae_slicing", "vae_tiling")
"""The levers that change which kernels run; the others change where weights lie and how fast kernels are."""
