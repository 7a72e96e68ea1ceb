"""What a lever is.

Its five facets stand in five places: the field in `records/plan.py`, its domain and its do/undo in a file of this room, how
a replay accounts for it in `simulate/replay.py`, and its row in docs/levers.md, which is made from `summary`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch

from autotune.records.device import Device
from autotune.records.halves import HalfPrecision
from autotune.records.model import DenoiserFacts
from autotune.records.plan import Plan
from autotune.records.workload import Workload

if TYPE_CHECKING:
    from autotune.levers.files import Files
    from autotune.levers.journal import Journal
    from autotune.levers.takeover import Taken

__all__ = ["Domain", "Lever", "Subject", "is_same_device", "release_cache"]


class Subject(NamedTuple):
    """What a plan is for."""

    pipe: Any
    device: Device
    workload: Workload
    plan: Plan = Plan()
    """The whole plan that is being applied: placement asks what else is moved."""
    denoisers: Mapping[str, DenoiserFacts] = {}
    """What a weightless call showed of each denoiser, by component; empty where nobody has traced."""
    allowed: frozenset[str] = frozenset()
    """Approximations that the caller allows by name."""
    known: HalfPrecision | None = None
    """What is published about the model in half precision; None where nothing is."""
    files: Files | None = None
    """Where originals can be read again, so that they need not wait in RAM; None to keep them there."""
    keeps_originals: bool = True
    """Whether weights that are cast wait in RAM to be put back; without them the lowered ones are for good."""
    unloaded: bool = False
    """Whether the pipeline is a model that is only named: its weights are loaded as the plan says."""
    taken: tuple[Taken, ...] = ()
    """The placement of the owner's that was taken off for the time of the change."""

    @property
    def steps_are_small(self) -> bool:
        """Whether every denoiser was seen to allocate little beside its weights."""
        return bool(self.denoisers) and all(facts.small for facts in self.denoisers.values())


class Domain(NamedTuple):
    """The values worth looking at, and why there are no others: as found (None) first, then those that would change something.
    As found is missing where the card computes that wrongly, or where the owner's offload is for another device."""

    values: tuple[Any, ...]
    reason: str


class Lever(ABC):
    """One thing that can be changed on a pipeline and taken back."""

    name: ClassVar[str]
    """Its field in `Plan`."""
    summary: ClassVar[tuple[str, str, str]]
    """Its row in docs/levers.md: what it does, what it gains, what it costs."""

    def touches(self, name: str, part: torch.nn.Module) -> bool:
        """Whether the lever changes what this component executes; asked of execution levers only."""
        return True

    @abstractmethod
    def domain(self, subject: Subject) -> Domain:
        """The values that a search should look at: those that can help here."""

    @abstractmethod
    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        """Makes the pipeline so; the journal gets the undo of each change before it is made. Never called with None, but for
        offload."""

    @abstractmethod
    def read(self, pipe: Any) -> Any:
        """The value the pipeline has now; None where the lever has no word for it."""

    @abstractmethod
    def check(self, subject: Subject, value: Any) -> None:
        """Refuses a value the pipeline cannot take. Never called with None.

        Raises:
            PlanError: says what was asked, why it cannot be, and what can.
        """


def is_same_device(one: torch.device, other: torch.device) -> bool:
    """Whether both name one device: "cuda" is the first card."""
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def release_cache(device: torch.device) -> None:
    """Gives the card's unused cached memory back: weights have moved, and the cap counts what is reserved."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
