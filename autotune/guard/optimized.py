"""What is known of an optimised pipeline, kept on the pipeline itself, so that both go together.

The networks have a weak mark that says whose plan they are under: a network may outlive its pipeline, and is then anybody's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch

from autotune.errors import PlanError
from autotune.guard.calls import Calls
from autotune.guard.standing import Change, Standing
from autotune.levers.journal import Journal
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import OnChange, Plan
from autotune.records.workload import Workload

__all__ = ["Optimized", "Replan", "disown", "mark", "optimized_of", "own", "owner_of", "unmark"]

_ATTRIBUTE = "_autotune"

Replan = Callable[[Any, Mapping[str, Any] | None], "Optimized"]


class Optimized:
    """A plan as it is applied to one pipeline, and how it is taken back.

    Args:
        plan: what is applied.
        device: where it runs.
        workload: the resolved call that it is for.
        denoisers: what a trace showed of the denoisers.
        keeps_originals: whether weights that are cast wait in RAM to be put back.
        reloads: whether those that files hold are read again instead.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        device: Device,
        workload: Workload,
        denoisers: Mapping[str, DenoiserFacts],
        keeps_originals: bool,
        reloads: bool,
    ) -> None:
        self.plan, self.device, self.workload, self.denoisers = plan, device, workload, denoisers
        self.runs = plan
        """The plan over what was found: how the pipeline runs."""
        self.keeps_originals, self.reloads = keeps_originals, reloads
        self.journal = Journal()
        self.is_whole = False
        """Whether all of the plan is applied: not so while it is being applied or taken back, or where that was interrupted."""
        self.on_change: OnChange = "tell"
        self.story: Any = None
        """What was answered when the plan was chosen; None for a plan that the caller wrote."""
        self.front: Any = None
        """The plans that it was chosen from."""
        self.watch: Any = None
        """Times the calls that were planned for."""
        self.replan: Replan | None = None
        """Plans anew under the same caps, given the pipeline and the arguments of a call that is bigger than the planned one.
        None where nothing was asked, or planning takes too long for a call to wait."""
        self.running = 0
        """How many calls of the pipeline run now: one from a callback, or from another thread, meets one that has begun."""
        self.standing: Standing | None = None
        """The pipeline as the plan left it."""
        self.calls: Calls | None = None
        """What the planned call was."""
        self.said: set[str] = set()
        self.is_altered = False
        """Whether a change was told since the plan was applied: it no longer covers all that is there."""
        self.folders: tuple[Path, ...] = ()
        """Where `restore` reads originals from."""
        self.was_broken_off = False
        """Whether the last call raised, and may have left hooks or precisions half changed."""

    def changes(self, pipe: Any) -> tuple[str, ...]:
        """What is no longer as the plan left it, a clause each."""
        return tuple(change.words for change in self.standing.changes(pipe)) if self.standing is not None else ()

    def unproved(self, changes: list[Change]) -> Change | None:
        """The exchange that the plan cannot follow: a batch is split only in a denoiser that was seen not to mix it."""
        splits = (one for one in changes if one.is_exchanged and one.component in self.denoisers)
        return next(splits, None) if self.plan.batch_split else None

    def serve(self, pipe: Any, workload: Workload) -> None:
        """The same plan is for this call from now on. What was answered for another says nothing of it."""
        self.workload = workload
        if self.story is not None and self.story.workload.key != workload.key:
            self.story = None
        self.calls = Calls(pipe, workload, self.story)
        self.said.clear()

    def refuse_half(self, pipe: Any) -> None:
        """Refuses to go on with a pipeline that is neither as it was nor under its plan.

        Raises:
            PlanError: says how to go on.
        """
        if not self.is_whole:
            raise PlanError(
                f"this {type(pipe).__name__} was left half way, when a plan was applied or taken back; "
                "call autotune.restore(pipe), which goes on from there"
            )

    def tell(self, pipe: Any, story: Any, front: Any) -> None:
        """Keeps what was answered, which says how large a call may be, and what it was chosen from."""
        self.story, self.front = story, front
        self.calls = Calls(pipe, self.workload, story)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a pipeline is under no plan."""


_OWNERS: WeakKeyDictionary[torch.nn.Module, ref[Optimized]] = WeakKeyDictionary()


def optimized_of(pipe: Any) -> Optimized | None:
    """What an optimised pipeline is under; None for any other."""
    found = getattr(pipe, "__dict__", {}).get(_ATTRIBUTE)
    return found if isinstance(found, Optimized) else None


def mark(pipe: Any, optimized: Optimized) -> None:
    """From now on the pipeline is known to be changed."""
    pipe.__dict__[_ATTRIBUTE] = optimized


def unmark(pipe: Any) -> None:
    """The pipeline is as it was."""
    pipe.__dict__.pop(_ATTRIBUTE, None)


def own(part: torch.nn.Module, optimized: Optimized) -> None:
    """The network is under this plan."""
    _OWNERS[part] = ref(optimized)


def disown(part: torch.nn.Module) -> None:
    """The network is under no plan."""
    _OWNERS.pop(part, None)


def owner_of(part: torch.nn.Module) -> Optimized | None:
    """Whose plan a network is under; None if nobody's, or if that pipeline is gone."""
    found = _OWNERS.get(part)
    return None if found is None else found()
