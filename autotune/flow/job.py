"""What is to be planned: a pipeline that was read, on a device, for resolved calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autotune.flow.checks import calls_in
from autotune.flow.here import allocator_here, torch_here
from autotune.flow.question import Progress, WorkloadLike
from autotune.probe.pipeline import inspect_pipeline
from autotune.probe.workload import call_arguments, resolve_workload, said_by
from autotune.records.device import Device
from autotune.records.halves import HalfPrecision
from autotune.records.model import Model
from autotune.records.plan import PLAIN, Plan
from autotune.records.workload import Workload, with_defaults
from autotune.simulate.allocator_settings import Settings

__all__ = ["Job", "job_for", "largest_call", "resolved_calls"]


@dataclass(frozen=True)
class Job:
    """What is to be planned: a pipeline on a device for one call, or for the worst of several."""

    pipe: Any
    model: Model
    device: Device
    workloads: tuple[Workload, ...]
    calls: tuple[Mapping[str, Any], ...]
    undo: bool
    progress: Progress | None = None
    stated_allocator: Settings | None = None
    stated_torch: str | None = None
    known: HalfPrecision | None = None
    unloaded: bool = False
    found: Plan = PLAIN
    """The pipeline as it is, as far as values of levers describe it."""

    @property
    def allocator(self) -> Settings | None:
        """How torch's allocator is set: as stated, else by this process's environment; None for a card that is not here."""
        if self.stated_allocator is not None:
            return self.stated_allocator
        return allocator_here(self.device)

    @property
    def torch_version(self) -> str | None:
        """What was stated, else what runs on a card that is here; None for one that is not."""
        if self.stated_torch is not None:
            return self.stated_torch
        return torch_here(self.device)

    @property
    def largest(self) -> Workload:
        """The workload with the most pixels."""
        return max(self.workloads, key=lambda workload: workload.area)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Reports progress to whoever wants to know."""
        if self.progress:
            self.progress(stage, done, total)


def job_for(
    pipe: Any,
    *,
    device: Device,
    workload: WorkloadLike,
    example: Mapping[str, Any] | None,
    calls: int,
    undo: bool,
    name: str | None = None,
    source_key: str | None = None,
    defaults: Workload | None = None,
    additions: Sequence[str] = (),
    allocator: Settings | None = None,
    torch_version: str | None = None,
    known: HalfPrecision | None = None,
    unloaded: bool = False,
    progress: Progress | None = None,
) -> Job:
    """Reads the pipeline and resolves its workloads.

    Args:
        pipe: a `DiffusionPipeline`.
        device: what it is to run on.
        workload: the call or calls to plan for.
        example: real inputs of the call.
        calls: how many calls are to come.
        undo: whether originals are kept.
        name: what people call the model.
        source_key: hash of the configuration it was built from.
        defaults: the call that the model's card recommends, for what was not said.
        additions: what was put into the model, in words.
        allocator: how torch's allocator is set on a machine that is not here.
        torch_version: version of torch there.
        known: what is published about the model in half precision; looked up by its denoisers if None.
        unloaded: whether it is a model that is only named, whose weights are loaded as the plan says.
        progress: who wants to know how far it is.

    Raises:
        PipelineError: not a pipeline that can be planned for.
        WorkloadError: arguments that the pipeline does not take.
    """
    from autotune.levers.engine import current_plan

    model = inspect_pipeline(pipe, name=name, source_key=source_key)
    usual = defaults or Workload()
    pairs = [_resolved(pipe, given, dict(example or {}), calls, usual) for given in calls_in(workload)]
    workloads, arguments = zip(*pairs, strict=True)
    told = tuple(call.model_copy(update={"additions": tuple(additions)}) for call in workloads)
    facts = known or _published(model)
    found = current_plan(pipe)
    if not (device.is_here and device.supports_tf32):  # a setting of this process says nothing of another card
        found = found.model_copy(update={"tf32": False})
    return Job(pipe, model, device, told, arguments, undo, progress, allocator, torch_version, facts, unloaded, found)


def _published(model: Model) -> HalfPrecision | None:
    """What is known of the model that has the same denoisers."""
    from autotune.zoo.recognise import known_as

    recipe = known_as(model.name, {part.name: (part.class_name, part.parameters) for part in model.components})
    return None if recipe is None else recipe.precision


def resolved_calls(pipe: Any, workload: WorkloadLike, example: Mapping[str, Any] | None) -> list[Workload]:
    """Each call as a workload that says all of it but real inputs, of which it has the shapes.

    Raises:
        WorkloadError: arguments that the pipeline does not take.
    """
    return [resolve_workload(pipe, _said(pipe, call, dict(example or {}))[0]) for call in calls_in(workload)]


def largest_call(
    pipe: Any, workload: WorkloadLike, example: Mapping[str, Any] | None
) -> tuple[Workload, dict[str, Any]]:
    """The call with the most pixels, and its arguments as they were given: for who has a plan already.

    Raises:
        WorkloadError: arguments that the pipeline does not take.
    """
    given = [_said(pipe, call, dict(example or {})) for call in calls_in(workload)]
    calls = [(resolve_workload(pipe, said), real) for said, real in given]
    return max(calls, key=lambda call: call[0].area)


def _resolved(
    pipe: Any, given: Workload | Mapping[str, Any] | None, example: dict[str, Any], calls: int, usual: Workload
) -> tuple[Workload, dict[str, Any]]:
    """The workload, and the arguments of a call that has it."""
    said, real = _said(pipe, given, example)
    workload = resolve_workload(pipe, said, calls=calls, defaults=usual)
    return workload, call_arguments(pipe, workload, real)


def _said(
    pipe: Any, given: Workload | Mapping[str, Any] | None, example: dict[str, Any]
) -> tuple[Workload, dict[str, Any]]:
    """What was said of a call, as a workload and as arguments."""
    if isinstance(given, Workload):
        return with_defaults(given, said_by(pipe, example)), example
    real = example | dict(given or {})
    return said_by(pipe, real), real
