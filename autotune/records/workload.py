"""What one call of the pipeline is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, prod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError, model_validator

from autotune.errors import WorkloadError, nearest
from autotune.records.base import Record
from autotune.records.described import MAX_EDGE_PX, MAX_PICTURE_PX, Described

__all__ = ["MAX_COUNT", "MAX_MANY", "SCALES", "Workload", "with_defaults"]

Scalar = str | int | float | bool | None
# Bounds far above any published call: what lies beyond them is a slip of the keyboard.
MAX_COUNT, MAX_MANY = 10_000, 1_000_000
Edge = Annotated[int, Field(strict=True, ge=1, le=MAX_EDGE_PX)]
Count = Annotated[int, Field(strict=True, ge=1, le=MAX_COUNT)]
Many = Annotated[int, Field(strict=True, ge=1, le=MAX_MANY)]

SCALES = ("guidance_scale", "guidance_scale_2", "true_cfg_scale", "prior_guidance_scale", "decoder_guidance_scale",
          "audio_guidance_scale", "min_guidance_scale", "max_guidance_scale")  # fmt: skip
"""Arguments of pipelines' calls that switch classifier-free guidance on and off; how strong it is changes no shape."""


class Workload(Record):
    """One call. `None` means the pipeline's own default until the workload is resolved against a pipeline.

    Raises:
        WorkloadError: a value that no call has.

    >>> from autotune import Workload
    >>> Workload(height=768, width=768, batch=2)
    Workload(768x768, batch 2)
    >>> Workload(inputs={"image": "1024x1024"}, guidance=False)
    Workload(size of its input, no guidance, 1 image of 1024x1024)
    """

    batch: Count = 1
    """Images or videos per call: prompts times images per prompt."""
    height: Edge | None = None
    """Pixels."""
    width: Edge | None = None
    """Pixels."""
    frames: Many | None = None
    """Frames of a video."""
    steps: Count | None = None
    """Denoising steps (`num_inference_steps`)."""
    guidance: bool | None = None
    """Whether the denoiser sees the negative prompt too (classifier-free guidance); None where no call does and nobody said."""
    prompt_tokens: Many | None = None
    """Length of the prompt in tokens, where the text encoder pads to no fixed length."""
    calls: Many = 1
    """How many calls are to come: tracing and compiling pay only over enough of them."""
    arguments: dict[str, Scalar | list[Scalar]] = {}
    """Other arguments of the call, by name."""
    inputs: dict[str, str] = {}
    """Shapes of tensors and pictures in the call, by argument name: {"image": "512x512 RGB"}, or "512x512" for short."""
    computed: tuple[Edge, Edge, Many | None] | None = None
    """Height and width in pixels and frames that the call really makes, where that is known."""
    additions: tuple[str, ...] = ()
    """What is put into the named model for it, in words: "LoRA rank 16"."""

    if not TYPE_CHECKING:  # type checkers see the fields

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise WorkloadError(_sentence(error, fields)) from error

    @model_validator(mode="after")
    def _is_possible(self) -> Workload:
        if self.height and self.width and self.height * self.width > MAX_PICTURE_PX:
            raise ValueError(f"{self.width}x{self.height} is too large: a picture may have {MAX_PICTURE_PX} pixels")
        for name, value in self.arguments.items():
            values = value if isinstance(value, list) else [value]
            if any(isinstance(one, float) and isnan(one) for one in values):
                raise ValueError(f"{name}={value!r} is not a number")
        for name, text in self.inputs.items():
            described = Described.read(text)
            if described is not None and (0 in described.shape or described.is_too_large):
                raise ValueError(f"{name}={text!r} is not a size that is made up; write for example 1024x1024")
        return self

    def __repr__(self) -> str:
        return f"Workload({self.label})"

    __str__ = __repr__

    @property
    def label(self) -> str:
        """For people, on one line: `1024x1024, 30 steps, batch 2`."""
        return ", ".join(self.words)

    @property
    def words(self) -> list[str]:
        """The parts of the label, what tells most of the call first."""
        parts = [self._sized]
        if self.steps:
            parts.append(f"{self.steps} step{'s' * (self.steps > 1)}")
        if self.batch > 1:
            parts.append(f"batch {self.batch}")
        if self.guidance is False:
            parts.append("no guidance")
        if self.prompt_tokens:
            parts.append(f"prompt of {self.prompt_tokens} tokens")
        if self.arguments.get("strength") is not None:
            parts.append(f"strength {self.arguments['strength']}")
        parts += [_in_words(name, text) for name, text in sorted(self.inputs.items())]
        return [*parts, *self.additions]

    @property
    def _sized(self) -> str:
        """What is computed, and what was asked where that is something else."""
        asked, made = (self.height, self.width, self.frames), self.size
        size = _pixels(*made) or ("size of its input" if self.inputs else "default size")
        differs = any(a is not None and a != m for a, m in zip(asked, made, strict=True))
        if differs and (self.height, self.width) == made[:2]:
            return f"{size} (asked for {self.frames} frames)"
        return f"{size} (asked for {_pixels(*asked) or f'{self.width or self.height} pixels'})" if differs else size

    @property
    def size(self) -> tuple[int | None, int | None, int | None]:
        """Height and width in pixels and frames: those that are computed where that is known, else those that were asked."""
        return self.computed or (self.height, self.width, self.frames)

    @property
    def slug(self) -> str:
        """For file names: `1024x1024-b1-30steps`."""
        parts = [f"{self.width}x{self.height}"] if self.width and self.height else ["default"]
        if self.frames:
            parts.append(f"{self.frames}f")
        parts += [f"b{self.batch}"]
        if self.steps:
            parts.append(f"{self.steps}steps")
        if self.guidance is False:
            parts.append("noguidance")
        return "-".join(parts)

    @property
    def area(self) -> int:
        """Pixels over the whole batch, to tell a bigger call from a smaller one."""
        height, width, frames = self.size
        return self.batch * (height or 0) * (width or 0) * (frames or 1)

    def covers(self, other: Workload) -> bool:
        """Whether a plan for this call has room for that one too: it is nowhere smaller, and has the same inputs.

        >>> Workload(height=64, width=64, batch=2).covers(Workload(height=64, width=32))
        True
        """
        sizes = zip((self.batch, *self.size), (other.batch, *other.size), strict=True)
        guided = bool(self.guidance) or not other.guidance
        return (
            guided
            and self.inputs.keys() >= other.inputs.keys()
            and all((mine or 0) >= (its or 0) for mine, its in sizes)
        )

    @property
    def asked(self) -> Workload:
        """The call as it was asked for, whatever size the pipeline makes of it."""
        return self.model_copy(update={"computed": None})

    @property
    def key(self) -> Workload:
        """What the front of a resolved workload depends on: not the number of calls to come, which decides only which of its
        plans is taken, and nothing that follows from model and call."""
        return self.model_copy(
            update={"calls": 1, "computed": None, "additions": (), "guidance": self.guidance or None}
        )


def with_defaults(said: Workload, usual: Workload) -> Workload:
    """What was said of a call, and the usual call of the model where nothing was.

    A scale that was said decides about guidance.

    >>> usual = Workload(height=1024, width=1024, steps=8, guidance=False, arguments={"max_sequence_length": 512})
    >>> with_defaults(Workload(steps=4, batch=2), usual)
    Workload(1024x1024, 4 steps, batch 2, no guidance)
    """
    scaled = any(name in said.arguments for name in SCALES)
    return said.model_copy(
        update={
            "batch": usual.batch if said.batch == 1 else said.batch,
            "height": said.height or usual.height,
            "width": said.width or usual.width,
            "frames": said.frames or usual.frames,
            "steps": said.steps or usual.steps,
            "guidance": said.guidance if scaled or said.guidance is not None else usual.guidance,
            "prompt_tokens": said.prompt_tokens or usual.prompt_tokens,
            "calls": max(said.calls, usual.calls),
            "arguments": usual.arguments | said.arguments,
            "inputs": usual.inputs | said.inputs,
        }
    )


def _pixels(height: int | None, width: int | None, frames: int | None) -> str:
    return f"{width}x{height}" + (f"x{frames} frames" if frames else "") if width and height else ""


def _in_words(name: str, text: str) -> str:
    """`1 image of 512x512`, `2 masks of 512x512`, `video of 832x480x81`, `latents 1x4x64x64`."""
    described = Described.read(text)
    if described is None or not described.is_picture:
        return f"{name} {text if described is None else described.words}"
    shape = "x".join(map(str, described.shape))
    if "video" in name or "frames" in name:
        return f"{name.replace('_', ' ')} of {shape}x{described.count[-1] if described.count else 1}"
    count = prod(described.count)
    kind = "mask" if "mask" in name else "image" if name in {"image", "images"} else name.replace("_", " ")
    return f"{count} {kind}{'s' * (count > 1)} of {shape}"


def _sentence(error: ValidationError, fields: Mapping[str, Any]) -> str:
    """The first thing that is wrong, as one sentence."""
    problem = error.errors(include_url=False)[0]
    if not problem["loc"]:
        return str(problem["ctx"]["error"])
    name = str(problem["loc"][0])
    value = fields.get(name)
    if problem["type"] == "extra_forbidden":
        known = list(Workload.model_fields)
        return f"a Workload has no {name!r}; nearest: {nearest(name, known)}; other arguments go into arguments={{...}}"
    limits = problem.get("ctx", {})
    if "le" in limits:
        return f"{name}={value!r} is too large; nearest: {limits['le']}"
    if "ge" in limits or problem["type"].startswith("int"):
        return f"{name}={value!r} is not a positive whole number; write for example {name}={_EXAMPLES.get(name, 2)}"
    return f"{name}={value!r} is not a value for this: {problem['msg'][0].lower()}{problem['msg'][1:]}"


_EXAMPLES = {"height": 512, "width": 512, "frames": 81, "steps": 28, "prompt_tokens": 256}
