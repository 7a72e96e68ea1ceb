"""The question in all its parts, checked once. Nothing that answers it is imported here, so that a refusal takes no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autotune.flow.checks import check_question
from autotune.records.plan import Quality
from autotune.records.workload import Workload

__all__ = ["Profiles", "Progress", "Question", "WorkloadLike"]

Profiles = str | Path | bool | None
Progress = Callable[[str, int, int], None]
WorkloadLike = Workload | Mapping[str, Any] | Sequence[Workload | Mapping[str, Any]] | None


@dataclass(frozen=True)
class Question:
    """What a caller asked. Construction validates what needs no pipeline."""

    model: Any
    """A pipeline, or the name of a model."""
    gpu: str | None = None
    device: str | None = None
    max_vram: str | int | None = None
    max_ram: str | int | None = None
    workload: WorkloadLike = None
    example: Mapping[str, Any] | None = None
    calls: int = 1
    quality: Quality = "near"
    allow: str | Sequence[str] = ()
    keep: Mapping[str, Any] | None = None
    forbid: str | Sequence[str] = ()
    objective: Literal["latency", "memory"] = "latency"
    profiles: Profiles = None
    undo: bool = True
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_question(self)

    @property
    def restricted(self) -> bool:
        """Whether levers are fixed or approximations allowed, so that the answer is no profile for others."""
        return bool(self.keep or self.forbid or self.allow)
