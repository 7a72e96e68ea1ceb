"""Applying a plan and taking it back: right order, all or nothing, the same twice as once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autotune.errors import AutotuneError, PlanError
from autotune.levers.attention import Attention
from autotune.levers.base import Lever, Subject, Undo
from autotune.levers.dtype import Dtype
from autotune.levers.offload import Offload, take_over
from autotune.levers.tf32 import Tf32
from autotune.levers.vae import VaeSlicing, VaeTiling
from autotune.records.device import Device
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.workload import Workload

__all__ = ["ORDER", "Handle", "apply", "current_plan", "executed", "handle_of", "reapply", "restore"]

log = logging.getLogger("autotune")

# Precision before processors, what is executed before where it lies: a cast or a processor change after sequential offload
# would meet empty parameters, silently.
ORDER: tuple[Lever, ...] = (Dtype(), Tf32(), Attention(), VaeSlicing(), VaeTiling(), Offload())

_ATTRIBUTE = "_autotune"


class Handle:
    """What was done to a pipeline and how to undo it. Lives on the pipeline as long as the plan does."""

    def __init__(self, plan: Plan, device: Device, workload: Workload, *, keeps_originals: bool) -> None:
        self.plan = plan
        self.device = device
        self.workload = workload
        self.keeps_originals = keeps_originals
        self.story: Any = None
        self._undos: list[tuple[str, Undo]] = []

    def did(self, name: str, undo: Undo) -> None:
        """Remembers how to take the step back."""
        self._undos.append((name, undo))

    def undo(self) -> None:
        """Takes back every step, the last first. A step that fails does not keep the others from being undone."""
        failures: list[tuple[str, Exception]] = []
        while self._undos:
            name, undo = self._undos.pop()
            try:
                undo()
            except Exception as error:
                failures.append((name, error))
        if failures:
            name, first = failures[0]
            raise AutotuneError(f"undoing {name} failed: {first}; load the pipeline again") from first


def handle_of(pipe: Any) -> Handle | None:
    """The handle of an optimised pipeline; None for any other."""
    handle = getattr(pipe, "__dict__", {}).get(_ATTRIBUTE)
    return handle if isinstance(handle, Handle) else None


def apply(pipe: Any, plan: Plan, *, device: Device, workload: Workload, undo: bool = True) -> Handle:
    """Makes the pipeline run as planned. Applied twice it is applied once; another plan replaces it.

    Raises:
        PlanError: a value cannot be applied; nothing has been changed then, and an earlier plan is still there.
    """
    handle = handle_of(pipe)
    if handle is not None and handle.plan.same_as(plan) and handle.device.torch_device == device.torch_device:
        return handle
    restore(pipe)
    try:
        return _apply(pipe, plan, Handle(plan, device, workload, keeps_originals=undo))
    except BaseException:
        if handle is not None:
            reapply(pipe, handle)
        raise


def _apply(pipe: Any, plan: Plan, handle: Handle) -> Handle:
    subject, undo = Subject(pipe, handle.device, handle.workload), handle.keeps_originals
    for lever in ORDER:
        lever.check(subject, getattr(plan, lever.name))
    try:
        handle.did("the offload that was there", take_over(pipe))
        for lever in ORDER:
            handle.did(lever.name, lever.apply(subject, getattr(plan, lever.name), undo=undo))
    except BaseException as error:
        handle.undo()
        if isinstance(error, AutotuneError) or not isinstance(error, Exception):
            raise
        lowered = plan.dtype != "as_is" and not undo
        rest = ", but for the lowered precision: undo=False" if lowered else ""
        raise PlanError(f"applying {plan.changes} failed and was rolled back{rest}: {error}") from error
    pipe.__dict__[_ATTRIBUTE] = handle
    return handle


def restore(pipe: Any) -> bool:
    """Takes the plan back; False if there is none."""
    handle = handle_of(pipe)
    if handle is None:
        return False
    del pipe.__dict__[_ATTRIBUTE]
    handle.undo()
    return True


def reapply(pipe: Any, handle: Handle) -> None:
    """Puts back the plan of a handle that was just undone. Without originals the weights stayed lowered."""
    plan = handle.plan if handle.keeps_originals else handle.plan.model_copy(update={"dtype": "as_is"})
    again = apply(pipe, plan, device=handle.device, workload=handle.workload, undo=handle.keeps_originals)
    again.plan, again.story = handle.plan, handle.story


def current_plan(pipe: Any) -> Plan:
    """The pipeline as it is now, as a plan."""
    values = {lever.name: lever.read(pipe) for lever in ORDER}
    if values["offload"] == "group":
        raise PlanError(
            "the pipeline is group-offloaded, which cannot be estimated yet; nearest is offload='sequential'"
        )
    return Plan(**values)


@contextmanager
def executed(subject: Subject, values: dict[str, Any]) -> Iterator[None]:
    """Levers that change what is executed, pulled on a twin for the time of a recording."""
    undos: list[Undo] = []
    try:
        for lever in ORDER:
            if lever.name in values and lever.name in EXECUTION_LEVERS:
                undos.append(lever.apply(subject, values[lever.name], undo=True))
        yield
    finally:
        for undo in reversed(undos):
            undo()
