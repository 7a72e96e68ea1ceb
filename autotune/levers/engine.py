"""Applying a plan and taking it back: right order, all or nothing, the same twice as once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from autotune.errors import AutotuneError, PlanError
from autotune.levers.attention import Attention, traced_as
from autotune.levers.base import Lever, Subject, Undo
from autotune.levers.batch import BatchSplit
from autotune.levers.compiling import Compile
from autotune.levers.dtype import Dtype
from autotune.levers.feed_forward import FeedForwardChunks
from autotune.levers.files import files_of
from autotune.levers.layout import ChannelsLast
from autotune.levers.offload import Offload
from autotune.levers.takeover import take_over
from autotune.levers.text_encoders import TextEncoders
from autotune.levers.tf32 import Tf32
from autotune.levers.vae import VaeSlicing, VaeTiling
from autotune.levers.vae_frames import VaeFramewise
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.rules import conflict
from autotune.records.workload import Workload
from autotune.upstream import port, weight_hooks

__all__ = [
    "EXECUTED",
    "ORDER",
    "Handle",
    "apply",
    "check",
    "current_plan",
    "executed",
    "handle_of",
    "reapply",
    "restore",
]

log = logging.getLogger("autotune")

# Precision before layout before processors, what is executed before where it lies: a cast or a processor change after
# sequential offload would meet empty parameters, silently. What goes around a forward comes before the hooks of offload, which
# remember the forward they find and put it back after each call; text encoders that are placed by themselves come last.
ORDER: tuple[Lever, ...] = (
    Dtype(),
    Tf32(),
    ChannelsLast(),
    Attention(),
    FeedForwardChunks(),
    Compile(),
    BatchSplit(),
    VaeSlicing(),
    VaeTiling(),
    VaeFramewise(),
    Offload(),
    TextEncoders(),
)
EXECUTED: dict[str, Lever] = {lever.name: lever for lever in ORDER if lever.name in EXECUTION_LEVERS}
"""The levers that change which kernels run, by name."""

_ATTRIBUTE = "_autotune"


class Handle:
    """What was done to a pipeline and how to undo it. Lives on the pipeline as long as the plan does."""

    def __init__(self, subject: Subject, *, keeps_originals: bool) -> None:
        self.plan = subject.plan
        self.device = subject.device
        self.workload = subject.workload
        self.denoisers = subject.denoisers
        self.keeps_originals = keeps_originals
        self.reloads = subject.files is not None
        self.story: Any = None
        self.watch: Any = None
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


_OWNERS: WeakKeyDictionary[torch.nn.Module, Handle] = WeakKeyDictionary()
"""Which plan a network is under now: pipelines made with `from_pipe` share theirs."""


def handle_of(pipe: Any) -> Handle | None:
    """The handle of an optimised pipeline; None for any other."""
    handle = getattr(pipe, "__dict__", {}).get(_ATTRIBUTE)
    return handle if isinstance(handle, Handle) else None


def apply(
    pipe: Any,
    plan: Plan,
    *,
    device: Device,
    workload: Workload,
    undo: bool = True,
    reload: bool = False,
    denoisers: Mapping[str, DenoiserFacts] | None = None,
) -> Handle:
    """Makes the pipeline run as planned. Applied twice it is applied once; another plan replaces it.

    With `reload` originals that the pipeline's files hold do not wait in RAM: `restore` reads them again.

    Raises:
        PlanError: a value cannot be applied; nothing has been changed then, and an earlier plan is still there.
    """
    handle = handle_of(pipe)
    if handle is not None and handle.plan.same_as(plan) and handle.device.torch_device == device.torch_device:
        return handle
    restore(pipe)
    try:
        with torch.inference_mode(False):  # parameters made in inference mode could never be put back
            files = files_of(pipe) if reload else None
            subject = Subject(pipe, device, workload, plan, denoisers or {}, files=files)
            return _apply(subject, Handle(subject, keeps_originals=undo))
    except BaseException:
        if handle is not None:
            reapply(pipe, handle)
        raise


def check(subject: Subject, plan: Plan) -> None:
    """Refuses a plan that this pipeline or device cannot take.

    Raises:
        PlanError: the first value, or pair of values, that cannot be, and what can.
    """
    rule = conflict(plan)
    if rule is not None:
        raise PlanError(rule.words(plan))
    for lever in ORDER:
        lever.check(subject, getattr(plan, lever.name))


def _apply(subject: Subject, handle: Handle) -> Handle:
    pipe, plan, undo = subject.pipe, subject.plan, handle.keeps_originals
    _refuse_elsewhere_owned(pipe)
    _refuse_weightless(pipe)
    check(subject, plan)
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
    for part in port.networks(pipe).values():
        _OWNERS[part] = handle
    return handle


def _refuse_elsewhere_owned(pipe: Any) -> None:
    shared = [name for name, part in port.networks(pipe).items() if part in _OWNERS]
    if shared:
        raise PlanError(
            f"{', '.join(shared)} of this {type(pipe).__name__} also belongs to a pipeline that is optimised; "
            "call autotune.restore on that one first"
        )


def _refuse_weightless(pipe: Any) -> None:
    """Weights on meta that no hook has elsewhere are no weights."""
    for name, part in port.networks(pipe).items():
        if not weight_hooks.is_sequential(part) and any(parameter.is_meta for parameter in part.parameters()):
            raise PlanError(
                f"{name} is on the meta device and has no weights; autotune.plan works without them, "
                "to apply a plan load the pipeline first"
            )


def restore(pipe: Any) -> bool:
    """Takes the plan back; False if there is none."""
    handle = handle_of(pipe)
    if handle is None:
        return False
    del pipe.__dict__[_ATTRIBUTE]
    for part in [part for part, owner in _OWNERS.items() if owner is handle]:
        del _OWNERS[part]
    with torch.inference_mode(False):
        handle.undo()
    return True


def reapply(pipe: Any, handle: Handle) -> Handle:
    """Puts back the plan of a handle that was just undone. Without originals the weights stayed lowered."""
    plan = handle.plan if handle.keeps_originals else handle.plan.model_copy(update={"dtype": "as_is"})
    again = apply(
        pipe,
        plan,
        device=handle.device,
        workload=handle.workload,
        undo=handle.keeps_originals,
        reload=handle.reloads,
        denoisers=handle.denoisers,
    )
    again.plan, again.story, again.watch = handle.plan, handle.story, handle.watch
    return again


def current_plan(pipe: Any) -> Plan:
    """The pipeline as it is now, as a plan."""
    return Plan(**{lever.name: lever.read(pipe) for lever in ORDER})


@contextmanager
def executed(subject: Subject, values: dict[str, Any]) -> Iterator[None]:
    """Levers that change what is executed, pulled on a twin for the time of a recording."""
    undos: list[Undo] = []
    traced = values | {"attention": traced_as(values["attention"])} if "attention" in values else values
    try:
        for name, lever in EXECUTED.items():
            if name in traced:
                undos.append(lever.apply(subject, traced[name], undo=True))
        yield
    finally:
        for undo in reversed(undos):
            undo()
