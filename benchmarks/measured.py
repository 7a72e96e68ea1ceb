"""Published measurements as records: one JSON list, each entry one run of somebody's with its settings. Hostile until read."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from autotune.units import GIB

__all__ = ["Measurement", "Metric", "Skip", "SkippedError", "Timed", "UnreadableError", "read"]


class UnreadableError(Exception):
    """A file that holds no measurements; one sentence."""


class Skip(StrEnum):
    """Why a record is not compared."""

    NO_ARCHITECTURE = "no zoo architecture"
    NOT_STATED = "setting not stated"
    RESIDENT_ONLY = "resident only"
    UNKNOWN_CARD = "unknown card"


class SkippedError(Exception):
    """A record that is not compared, with the reason."""

    def __init__(self, reason: Skip, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Metric(StrEnum):
    """What a memory figure is."""

    ALLOCATED = "allocated"
    RESERVED = "reserved"
    OUT_OF_MEMORY = "out of memory"
    RAN = "ran"
    """No figure, but it went through on that card."""


class Timed(StrEnum):
    """What published seconds are of."""

    CALL = "call"
    """The whole call, text encoders and VAE included, once everything is loaded, warm and compiled."""
    LOOP = "loop"
    """One iteration of the progress bar: a denoising step of the whole batch, neither text encoders nor VAE."""
    FORWARD = "forward"
    """One forward of the denoiser."""


class Measurement(BaseModel):
    """One record, as far as memory and time are concerned; other fields are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=False)

    id: str
    source: str
    scope: str = "pipeline"
    pipeline: str | None = None
    model: str
    components: str | None = None
    dtype: str | None = None
    batch: int | None = None
    height: int | None = None
    width: int | None = None
    frames: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    cfg: bool | None = None
    attention: str | None = None
    offload: str | None = None
    vae_slicing: bool | None = None
    vae_tiling: bool | None = None
    compile: str | None = None
    channels_last: str | bool | None = None
    quantization: str | None = None
    layerwise_casting: str | None = None
    other: str | None = None
    gpu: str | None = None
    torch: str | None = None
    diffusers: str | None = None
    date: str | None = None
    metric: str | None = None
    peak_gib: float | None = None
    resident_value: float | None = None
    """Weights after loading, in the unit of the peak."""
    latency_s: float | None = None
    its_per_s: float | None = None
    """Iterations of the progress bar; where seconds per iteration were printed, their inverse."""
    oom: bool | None = False
    caveats: str | None = None
    confidence: Literal["A", "B"]
    use_for: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int | None:
        """The published figure, where its unit is known."""
        return None if self.peak_gib is None else round(self.peak_gib * GIB)

    @property
    def metric_kind(self) -> Metric | Skip:
        """What the figure is good for. `use_for` says it where the wording of `metric` does not."""
        if self.oom:
            return Metric.OUT_OF_MEMORY
        uses = set(self.use_for)
        if self.peak_gib is not None and uses & {"peak_memory", "peak_memory_denoiser"}:
            return Metric.ALLOCATED
        if self.peak_gib is not None and uses & {"peak_reserved", "reserved_memory"}:
            return Metric.RESERVED
        if self.peak_gib is not None and "resident_memory" in uses:
            return Skip.RESIDENT_ONLY
        if self.peak_gib is not None:
            return Skip.NOT_STATED
        return Metric.RAN

    @property
    def timings_s(self) -> dict[Timed, float] | Skip:
        """Published seconds, by what they are of; empty where nothing was timed. `use_for` says which figures are latencies."""
        if self.oom or (self.latency_s is None and self.its_per_s is None):
            return {}
        is_forward = self.scope.startswith("denoiser")
        found = {}
        if self.latency_s and set(self.use_for) & ({"latency_per_step"} if is_forward else {"latency"}):
            found[Timed.FORWARD if is_forward else Timed.CALL] = self.latency_s
        if self.its_per_s and not is_forward and "latency_per_step" in self.use_for:
            found[Timed.LOOP] = 1 / self.its_per_s
        return found or Skip.NOT_STATED

    @property
    def settings(self) -> tuple[object, ...]:
        """Source, model, scope, precision, workload and plan, without card and compiler."""
        workload = (self.batch, self.height, self.width, self.frames, self.steps, self.guidance_scale, self.cfg)
        plan = (self.attention, self.offload, self.vae_slicing, self.vae_tiling, self.quantization, self.other)
        return (self.source, self.model, self.pipeline, self.scope, self.dtype, workload, plan)

    @property
    def cluster(self) -> tuple[object, ...]:
        """Records with the same settings and kind of figure: repeats by card or compiler are one cluster."""
        return (*self.settings, self.metric_kind)


def read(path: Path) -> list[Measurement]:
    """The records of a file.

    Raises:
        UnreadableError: no such file, no JSON, or a record without what every record has.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"{path} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise UnreadableError(f"{path} is no complete JSON file: {error}") from error
    try:
        return TypeAdapter(list[Measurement]).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = " ".join(str(step) for step in first["loc"])
        raise UnreadableError(f"{path} is no list of measurements: {where or 'its top'}: {first['msg']}") from error
