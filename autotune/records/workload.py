"""What one call of the pipeline is asked to do."""

from __future__ import annotations

from pydantic import PositiveInt

from autotune.records.base import Record

__all__ = ["Workload"]

Scalar = str | int | float | bool | None


class Workload(Record):
    """One call. `None` means the pipeline's own default until the workload is resolved against a pipeline.

    >>> from autotune import Workload
    >>> Workload(height=768, width=768, batch=2)
    Workload(768x768, batch 2)
    """

    batch: PositiveInt = 1
    """Images or videos per call: prompts times images per prompt."""
    height: PositiveInt | None = None
    """Pixels."""
    width: PositiveInt | None = None
    """Pixels."""
    frames: PositiveInt | None = None
    """Frames of a video."""
    steps: PositiveInt | None = None
    """Denoising steps (`num_inference_steps`)."""
    guidance: bool | None = None
    """Whether `guidance_scale` is above 1."""
    calls: PositiveInt = 1
    """How many calls are to come: tracing and compiling pay only over enough of them."""
    arguments: dict[str, Scalar | list[Scalar]] = {}
    """Other arguments of the call, by name."""
    inputs: dict[str, str] = {}
    """Shapes of tensors and images in the call, by argument name, for example {"image": "512x512 RGB"}."""

    def __repr__(self) -> str:
        return f"Workload({self.label})"

    __str__ = __repr__

    @property
    def label(self) -> str:
        """For people: `1024x1024 x1, 30 steps`."""
        pixels = f"{self.width}x{self.height}" if self.width and self.height else "default size"
        parts = [pixels + (f"x{self.frames} frames" if self.frames else "")]
        parts.append(f"batch {self.batch}")
        if self.steps:
            parts.append(f"{self.steps} steps")
        if self.guidance is False:
            parts.append("no guidance")
        parts += [f"{name} {shape}" for name, shape in sorted(self.inputs.items())]
        return ", ".join(parts)

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
        return self.batch * (self.height or 0) * (self.width or 0) * (self.frames or 1)
