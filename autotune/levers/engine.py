"""Pulling the levers of a plan, in the right order; the journal has what takes each of them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autotune.errors import PlanError
from autotune.levers.attention import Attention, traced_as
from autotune.levers.base import Lever, Subject
from autotune.levers.batch import BatchSplit
from autotune.levers.compiling import Compile
from autotune.levers.dtype import Dtype
from autotune.levers.feed_forward import FeedForwardChunks
from autotune.levers.journal import Journal
from autotune.levers.layout import ChannelsLast
from autotune.levers.offload import Offload
from autotune.levers.takeover import elsewhere, take_over
from autotune.levers.text_encoders import TextEncoders
from autotune.levers.tf32 import Tf32
from autotune.levers.vae import VaeSlicing, VaeTiling
from autotune.levers.vae_frames import VaeFramewise
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.rules import conflict
from autotune.upstream import port, weight_hooks

__all__ = ["EXECUTED", "ORDER", "check", "covering", "current_plan", "executed", "pull"]

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


def check(subject: Subject, plan: Plan, found: Plan | None = None) -> None:
    """Refuses a plan that this pipeline or device cannot take; `found` is the pipeline as it is, read anew if None.

    Raises:
        PlanError: the first value, or pair of values, that cannot be, and what can.
    """
    found = found or current_plan(subject.pipe)
    rule = conflict(plan, found)
    if rule is not None:
        raise PlanError(rule.words(plan.over(found)))
    for lever in ORDER:
        if getattr(plan, lever.name) is not None:
            lever.check(subject, getattr(plan, lever.name))


def covering(subject: Subject, plan: Plan) -> Plan:
    """The plan without the levers for which there is nothing any more: the tiling of a VAE that was taken away."""
    gone = set()
    for lever in (lever for lever in ORDER if lever.name in plan.changes):
        try:
            lever.check(subject, getattr(plan, lever.name))
        except PlanError:
            if not any(lever.touches(name, part) for name, part in port.networks(subject.pipe).items()):
                gone.add(lever.name)
    if not port.text_encoders(subject.pipe):
        gone.add("text_encoders")
    return plan.model_copy(update=dict.fromkeys(gone))


def pull(subject: Subject, journal: Journal) -> None:
    """Makes the pipeline run as planned. Whatever it raises, and wherever: the journal takes back what was done.

    Raises:
        PlanError: a value cannot be applied.
    """
    _refuse_weightless(subject.pipe)
    _refuse_inference(subject)
    _refuse_elsewhere(subject)
    check(subject, subject.plan)
    journal.whose = "the offload that was there"
    subject = subject._replace(taken=take_over(subject.pipe, journal))
    for lever in ORDER:
        value = getattr(subject.plan, lever.name)
        if value is not None or lever.name == "offload":  # weights lie somewhere whatever the plan says
            journal.whose = lever.name
            lever.apply(subject, value, journal)


def _refuse_weightless(pipe: Any) -> None:
    """Weights on meta that no hook has elsewhere are no weights."""
    for name, part in port.networks(pipe).items():
        if not weight_hooks.is_sequential(part) and any(parameter.is_meta for parameter in part.parameters()):
            raise PlanError(
                f"{name} is on the meta device and has no weights; autotune.plan works without them, "
                "to apply a plan load the pipeline first"
            )


def _refuse_elsewhere(subject: Subject) -> None:
    """Offload that is left as found has to bring weights to the device that the plan is for."""
    there = elsewhere(subject.pipe, subject.device) if subject.plan.offload is None else None
    if there is not None:
        raise PlanError(
            f"the pipeline's offload brings weights to {there}, and the plan is for {subject.device.torch_device}; "
            f"give offload too, or device={str(there)!r}"
        )


def _refuse_inference(subject: Subject) -> None:
    """Tensors that were made in inference mode are never changed in place again, nor put back outside of it."""
    plan = subject.plan
    emptied = any(map(weight_hooks.is_sequential, port.networks(subject.pipe).values()))
    if plan.offload != "sequential" and plan.channels_last is None and not emptied:
        return
    for name, part in port.networks(subject.pipe).items():
        if any(parameter.is_inference() for parameter in part.parameters()):
            layout = "a plan" if plan.channels_last is None else f"channels_last={plan.channels_last}"
            asked = "offload='sequential'" if plan.offload == "sequential" else layout
            raise PlanError(
                f"{asked} cannot be applied: the weights of {name} were made in torch.inference_mode, which forbids "
                "replacing them; load the pipeline outside of it, and call it inside if you like"
            )


def current_plan(pipe: Any) -> Plan:
    """The pipeline as it is now, as a plan; None for what no value of a lever describes."""
    return Plan(**{lever.name: lever.read(pipe) for lever in ORDER})


@contextmanager
def executed(subject: Subject, values: dict[str, Any]) -> Iterator[None]:
    """Levers that change what is executed, pulled on a twin for the time of a recording."""
    journal = Journal()
    changes = {name: value for name, value in values.items() if value is not None}
    traced = changes | {"attention": traced_as(changes["attention"])} if "attention" in changes else changes
    try:
        for name, lever in EXECUTED.items():
            if name in traced:
                lever.apply(subject, traced[name], journal)
        yield
    finally:
        journal.undo()
