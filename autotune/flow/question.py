"""A question in all its parts: what is asked about, for which machine, under which caps. Checked when it is made.

Nothing that answers it is imported here, so that a refusal takes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from autotune.flow.checks import check_question, names_of
from autotune.records.plan import OnChange, Quality
from autotune.records.precision import AS_IS, Precision
from autotune.records.workload import Workload

if TYPE_CHECKING:
    from autotune.simulate.allocator_settings import Settings

__all__ = ["Profiles", "Progress", "Question", "WorkloadLike"]

Profiles = str | Path | bool | None
Progress = Callable[[str, int, int], None]
WorkloadLike = Workload | Mapping[str, Any] | Sequence[Workload | Mapping[str, Any]] | None


@dataclass(frozen=True)
class Question:
    """What a caller asked. Construction validates what needs no pipeline.

    Raises:
        AutotuneError: one sentence with what was asked, what was found and the nearest thing that works.
    """

    model: Any
    """A pipeline, or the name of a model."""
    gpu: str | Mapping[str, Any] | None = None
    """A card that need not be here: its name, or its description."""
    device: str | None = None
    max_vram: str | int | None = None
    max_ram: str | int | None = None
    ram: str | int | None = None
    """RAM of a machine that is not here."""
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
    on_change: OnChange = "replan"
    progress: Progress | None = None
    loaded_as: str | Mapping[str, str] | None = None
    """Precision in which a named model is loaded, or precisions by component with a "default"."""
    controlnets: str | Sequence[str] = ()
    lora_rank: int | None = None
    ip_adapter: str | None = None
    torch_version: str | None = None
    """Of a machine that is not here."""
    allocator: str | None = None
    """PYTORCH_CUDA_ALLOC_CONF of a machine that is not here."""

    def __post_init__(self) -> None:
        check_question(self)

    @property
    def is_named(self) -> bool:
        """Whether the model is a name: it is still to be loaded, in the precision of the plan, and there is nothing to undo."""
        return isinstance(self.model, str | Path)

    @property
    def keeps_originals(self) -> bool:
        """Whether originals of what is cast stay in RAM."""
        return self.undo and not self.is_named

    @property
    def restricted(self) -> bool:
        """Whether levers are fixed or approximations allowed, so that the answer is no profile for others."""
        return bool(self.keep or self.forbid or self.allow)

    @property
    def added(self) -> bool:
        """Whether anything is added to the model."""
        return bool(self.controlnets or self.lora_rank is not None or self.ip_adapter is not None)

    @property
    def additions(self) -> dict[str, Any]:
        """What is added to the model, as arguments of `with_additions`."""
        names = names_of(self.controlnets)
        return {"controlnets": names, "lora_rank": self.lora_rank, "ip_adapter": self.ip_adapter}

    @property
    def precision(self) -> Precision | None:
        """In which precision the model was said to be loaded."""
        return None if self.loaded_as is None else Precision(self.loaded_as)

    @property
    def loads(self) -> dict[str, str] | None:
        """The same for who loads it: by component, without those that nothing was said of."""
        return None if self.precision is None else {name: to for name, to in self.precision.items() if to != AS_IS}

    @property
    def settings(self) -> Settings | None:
        """The allocator's settings as they were stated.

        Raises:
            PlanError: settings that torch would refuse as well.
        """
        if self.allocator is None:
            return None
        from autotune.simulate.allocator_settings import Settings

        return Settings.stated(self.allocator)
