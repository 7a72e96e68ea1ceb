"""A plan: one value and one reason for each lever."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, StrictBool, ValidationError, field_validator, model_validator

from autotune.errors import PlanError, nearest
from autotune.records.base import Record
from autotune.records.precision import Precision
from autotune.records.values import invalid, spelled

__all__ = [
    "DECODE_LEVERS",
    "EXECUTION_LEVERS",
    "KNOWN_VALUES",
    "LANES",
    "LEVERS",
    "OFF",
    "PLAIN",
    "GroupOffload",
    "OnChange",
    "Plan",
    "Quality",
    "group_offload",
    "is_approximate",
]

Quality = Literal["exact", "near", "int8", "int4"]
OnChange = Literal["replan", "tell", "refuse", "ignore"]
"""What happens at a call where a pipeline is no longer as its plan left it."""
LANES: tuple[Quality, ...] = ("exact", "near", "int8", "int4")
_HALVES = ("float16", "bfloat16")

KNOWN_VALUES: dict[str, tuple[str, ...]] = {
    "attention": ("sdpa", "xformers", "sliced:auto", "sliced:max", "sliced:4", "vanilla", "backend:flash"),
    "offload": (
        *("none", "model", "sequential", "group:block", "group:leaf", "group:block+stream", "group:leaf+stream"),
        *("group:leaf+stream+record_stream", "group:leaf+stream+low_cpu_mem"),
    ),
}
"""Values of the levers that are written out, for messages: numbers and names of backends may be others."""

_ATTENTION = r"^(sdpa|vanilla|xformers|sliced:(auto|max|[1-9][0-9]{0,3})|backend:[a-z0-9_]{1,40})$"
_OFFLOAD = r"^(none|model|sequential|group:(block|leaf)(\+stream(\+record_stream)?(\+low_cpu_mem)?)?)$"


class Plan(Record):
    """How to run a pipeline. None, which each lever is by default, leaves what the lever would change as it was found: as its
    owner set it up, or as the model was loaded. What is on may also be switched off, with False or "none".

    >>> from autotune import Plan
    >>> Plan(offload="model").changes
    {'offload': 'model'}
    """

    dtype: Precision | None = None
    """Precision of the weights: "fp32", "fp16" or "bf16", for all networks or by component ("fp16, vae=fp32", "vae=fp32")."""
    tf32: StrictBool | None = None
    """TF32 for fp32 matrix products (compute capability 8.0 and later)."""
    channels_last: StrictBool | None = None
    """Weights of 2-D convolutions in NHWC order, which tensor cores want; False puts them in torch's usual order."""
    attention: Annotated[str, Field(pattern=_ATTENTION)] | None = None
    """Attention: "sdpa" (torch's fused one), "xformers", "sliced:auto", "sliced:max" or "sliced:4" (step by step), "vanilla"
    (the whole score matrix), or "backend:flash" and the other backends of diffusers' dispatcher."""
    feed_forward_chunks: Literal[False] | Annotated[int, Field(ge=2, le=64, strict=True)] | None = None
    """Feed-forward layers of the denoiser in this many chunks along the tokens."""
    batch_split: Literal[False] | Annotated[int, Field(ge=2, le=256, strict=True)] | None = None
    """The denoiser's batch, guidance halves included, in this many parts one after the other."""
    vae_slicing: StrictBool | None = None
    """Decode a batch one image at a time."""
    vae_tiling: Literal[False] | Annotated[int, Field(gt=0, strict=True)] | None = None
    """Decode in overlapping tiles with this edge in pixels; False decodes the image whole."""
    vae_framewise: StrictBool | None = None
    """Decode a video in overlapping runs of frames; False decodes all frames together."""
    compile: Literal["none", "trace", "blocks"] | None = None
    """The denoiser's code: a UNet traced by `torch.jit`, its repeated blocks by `torch.compile`, or "none" of it compiled."""
    offload: Annotated[str, Field(pattern=_OFFLOAD)] | None = None
    """Where weights wait: "none" on the card, "model" in RAM by component, "sequential" by leaf module, "group:block" or
    "group:leaf" by diffusers' groups, with "+stream" to prefetch, "+record_stream" and "+low_cpu_mem"."""
    text_encoders: Literal["resident", "leave", "cpu"] | None = None
    """Text encoders: placed like the rest, moved to RAM once they have encoded, or kept and run on the CPU."""
    reasons: dict[str, str] = {}
    """Why each lever has its value, by lever."""
    id: str = "p0"
    """Its name within a front."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            name = str(error.errors(include_url=False)[0]["loc"][0])
            if name not in LEVERS:
                raise PlanError(f"Plan has no lever {name!r}; nearest: {nearest(name, list(LEVERS), 1)}") from error
            raise invalid(name, values.get(name)) from error

    @model_validator(mode="before")
    @classmethod
    def _spelled(cls, values: Any) -> Any:
        """Words such as "on" and "none" stand for what they mean."""
        if not isinstance(values, dict):
            return values
        return {name: spelled(name, value) if name in LEVERS else value for name, value in values.items()}

    @field_validator("dtype")
    @classmethod
    def _changing(cls, dtype: Precision | None) -> Precision | None:
        """A precision that leaves every network as it is counts as None."""
        return None if dtype == Precision() else dtype

    @property
    def values(self) -> dict[str, Any]:
        """The value of each lever."""
        return {name: getattr(self, name) for name in LEVERS}

    @property
    def changes(self) -> dict[str, Any]:
        """The levers that it sets: those that do not stay as found."""
        return {name: value for name, value in self.values.items() if value is not None}

    @property
    def precision(self) -> Precision:
        """What each network's weights are to be, "as_is" where they stay as found."""
        return self.dtype or Precision()

    def over(self, found: Plan) -> Plan:
        """What a pipeline that was found in that state runs under once this plan is applied.

        >>> Plan(vae_tiling=512).over(Plan(vae_slicing=True, vae_tiling=False)).changes
        {'vae_slicing': True, 'vae_tiling': 512}
        """
        left = {name: value for name, value in found.values.items() if getattr(self, name) is None}
        precision = self.precision.over(found.precision)
        return self.model_copy(update=left | {"dtype": None if precision == Precision() else precision})

    @property
    def execution(self) -> tuple[Any, ...]:
        """The values that decide which kernels run: plans that agree in them share a trace."""
        return tuple(getattr(self, name) for name in EXECUTION_LEVERS)

    @property
    def lane(self) -> Quality:
        """The best quality lane this plan belongs to: `exact` gives the same image up to float noise, as the model computes it
        or as its owner has set it up."""
        return "near" if self.quality_rank else "exact"

    @property
    def quality_rank(self) -> int:
        """0 exact, 1 near, 2 near with a VAE in tiles or runs of frames: those are taken only where nothing else fits."""
        if self.vae_tiling or self.vae_framewise:
            return 2
        lowered = not self.precision.dtypes.isdisjoint(_HALVES)
        return int(bool(lowered or self.tf32 or self.channels_last or is_approximate(self.attention)))

    def same_as(self, other: Plan) -> bool:
        """Whether both plans pull the same levers, whatever their names and reasons."""
        return self.values == other.values

    def code(self, *, device: str = "cuda") -> str:
        """The plan as a script of plain diffusers, accelerate and torch for a pipeline named `pipe`, as it was loaded.

        Raises:
            PlanError: the plan has two values that do not go together.

        >>> print(Plan(attention="sliced:max", offload="model").code())
        # Attention in slices
        pipe.enable_attention_slicing("max")
        <BLANKLINE>
        # Each network comes to the device when it is called, and leaves for the next
        pipe.enable_model_cpu_offload(device="cuda")
        """
        from autotune.records.code import code_of

        return code_of(self, device=device)

    def _repr_html_(self) -> str:
        from autotune.records.html import plan_html

        return plan_html(self)


LEVERS: tuple[str, ...] = tuple(name for name in Plan.model_fields if name not in {"reasons", "id"})
OFF: dict[str, Any] = {
    **dict.fromkeys(("tf32", "channels_last", "feed_forward_chunks", "batch_split"), False),
    **dict.fromkeys(("vae_slicing", "vae_tiling", "vae_framewise"), False),
    "compile": "none",
    "offload": "none",
    "text_encoders": "resident",
}
"""The levers that can be off, and the value that says so."""
PLAIN = Plan(**OFF)
"""A pipeline as it is loaded: every lever off that can be off."""
DECODE_LEVERS: tuple[str, ...] = ("vae_slicing", "vae_tiling", "vae_framewise")
"""The execution levers that change only how a VAE decodes."""
EXECUTION_LEVERS: tuple[str, ...] = (
    "dtype",
    "channels_last",
    "attention",
    "feed_forward_chunks",
    "batch_split",
    *DECODE_LEVERS,
)
"""The levers that change which kernels run; the others change where weights lie and how fast kernels are."""


class GroupOffload(NamedTuple):
    """What an `offload` value such as "group:leaf+stream" asks for, in diffusers' words."""

    offload_type: Literal["block_level", "leaf_level"]
    use_stream: bool
    record_stream: bool
    low_cpu_mem_usage: bool


def group_offload(offload: str | None) -> GroupOffload | None:
    """The parts of a group offload; None for the other modes.

    >>> group_offload("group:leaf+stream").use_stream
    True
    """
    if offload is None or not offload.startswith("group:"):
        return None
    level, *options = offload.removeprefix("group:").split("+")
    return GroupOffload(
        "block_level" if level == "block" else "leaf_level",
        "stream" in options,
        "record_stream" in options,
        "low_cpu_mem" in options,
    )


def is_approximate(attention: str | None) -> bool:
    """Whether the attention computes in 8 bit (SageAttention): offered only to who allows it by name."""
    return attention is not None and attention.startswith(("backend:sage", "backend:_sage"))
