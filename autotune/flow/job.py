"""What is to be planned: a pipeline that was read, on a device, for resolved calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from autotune.errors import WorkloadError
from autotune.flow.question import Progress, WorkloadLike
from autotune.probe.pipeline import inspect_pipeline
from autotune.probe.workload import call_arguments, resolve_workload
from autotune.records.device import Device
from autotune.records.model import Model
from autotune.records.workload import Workload
from autotune.simulate.allocator_settings import Settings

__all__ = ["Job", "job_for"]


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

    @property
    def allocator(self) -> Settings | None:
        """How this process's environment sets torch's allocator; None for a card that is not here."""
        return Settings.from_environment(os.environ) if self.device.source == "probed" else None

    @property
    def torch_version(self) -> str | None:
        """What runs on a card that is here; None for one that is not."""
        return version("torch") if self.device.source == "probed" else None

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
    progress: Progress | None = None,
) -> Job:
    """Reads the pipeline and resolves its workloads.

    Raises:
        PipelineError: not a pipeline that can be planned for.
        WorkloadError: arguments that the pipeline does not take.
    """
    model = inspect_pipeline(pipe, name=name, source_key=source_key)
    pairs = [_resolved(pipe, given, dict(example or {}), calls) for given in _several(workload)]
    workloads, arguments = zip(*pairs, strict=True)
    return Job(pipe, model, device, workloads, arguments, undo, progress)


def _several(workload: WorkloadLike) -> list[Workload | Mapping[str, Any] | None]:
    if workload is None or isinstance(workload, Workload | Mapping):
        return [workload]
    if not isinstance(workload, list | tuple) or not workload:
        raise WorkloadError(
            f"workload={workload!r} names no call; give a Workload, a dict of call arguments, or a list of those"
        )
    for given in workload:
        if not isinstance(given, Workload | Mapping):
            raise WorkloadError(f"workload=[{given!r}] names no call; give a Workload or a dict of call arguments")
    return list(workload)


def _resolved(
    pipe: Any, given: Workload | Mapping[str, Any] | None, example: dict[str, Any], calls: int
) -> tuple[Workload, dict[str, Any]]:
    """The workload, and the arguments of a call that has it."""
    if isinstance(given, Workload):
        seen, workload = resolve_workload(pipe, example), resolve_workload(pipe, given, calls=calls)
        edges = {"height": workload.height or seen.height, "width": workload.width or seen.width}
        workload = workload.model_copy(update={"inputs": given.inputs | seen.inputs, **edges})
        return workload, call_arguments(pipe, workload, example)
    real = example | dict(given or {})
    workload = resolve_workload(pipe, real, calls=calls)
    return workload, call_arguments(pipe, workload, real)
