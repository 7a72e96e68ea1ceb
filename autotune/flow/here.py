"""What is true of this machine only: what is free, how its allocator is set, which plans of a remembered front it can apply.

A front may come from a machine with other packages. Of a card that is not here nothing is known, so nothing is left out.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from autotune.errors import PlanError
from autotune.probe import gpu
from autotune.records.device import Device
from autotune.records.front import Front
from autotune.records.plan import Plan
from autotune.simulate.allocator_settings import Settings

if TYPE_CHECKING:
    from autotune.flow.job import Job

__all__ = ["allocator_here", "applicable", "applicable_by_name", "local_device", "particulars", "torch_here"]

log = logging.getLogger("autotune")


def local_device(torch_device: str | None) -> Device:
    """The device that torch would use here; this process's context counts as free there, since every estimate counts it.

    Raises:
        NoAcceleratorError: the device named is not here, or of a kind that is not supported yet.
    """
    from autotune.simulate.workspace import bare_context_bytes

    return gpu.local_device(torch_device, context_bytes=bare_context_bytes)


def allocator_here(device: Device) -> Settings | None:
    """How torch's allocator is set by this process's environment; None for a card that is not here.

    Raises:
        PlanError: a value that torch would refuse as well.
    """
    return Settings.from_environment(os.environ) if device.is_here else None


def torch_here(device: Device) -> str | None:
    """The version of torch that runs on a card that is here; None for one that is not."""
    return version("torch") if device.is_here else None


def particulars(device: Device) -> dict[str, Any]:
    """What makes a plan take other bytes on this machine than elsewhere: parts of a profile's key, none where all is usual."""
    settings = allocator_here(device)
    if settings is None or device.kind == "cpu":
        return {}
    from autotune.simulate.quirks import quirks_of

    quirks = [quirk.note for quirk in quirks_of(device, torch_here(device))]
    named = {"allocator": settings.model_dump(exclude_defaults=True), "torch": quirks}
    return {name: value for name, value in named.items() if value}


def applicable(front: Front, job: Job) -> Front | None:
    """The front without the plans that the job's pipeline cannot take here; None where it has to be searched anew."""
    from autotune.levers.base import Subject
    from autotune.levers.engine import check

    def refusal(plan: Plan) -> str:
        subject = Subject(
            job.pipe, job.device, front.workload, plan, front.denoisers, known=job.known, unloaded=job.unloaded
        )
        try:
            check(subject, plan, job.found)
        except PlanError as error:
            return str(error)
        return ""

    return _without(front, refusal) if job.device.is_here else front


def applicable_by_name(front: Front) -> Front | None:
    """The same where nothing but the model's name is known; None also where a plan's attention is that of a package, which
    only the model itself can answer for."""

    def refusal(plan: Plan) -> str:
        if plan.attention is not None and plan.attention.startswith(("xformers", "backend:")):
            return f"attention={plan.attention!r} may need a package"
        return "Triton is not installed" if plan.compile == "blocks" and find_spec("triton") is None else ""

    return _without(front, refusal) if front.device.is_here else front


def _without(front: Front, refusal: Callable[[Plan], str]) -> Front | None:
    """The front without the plans that are refused; None if one of these may have beaten what would come next.

    A plan with compiled blocks beats none without: its first call takes longer (`search/front.py`)."""
    why = {candidate.plan.id: refusal(candidate.plan) for candidate in front.candidates}
    refused = [candidate.plan for candidate in front.candidates if why[candidate.plan.id]]
    kept = tuple(candidate for candidate in front.candidates if not why[candidate.plan.id])
    hiding = [p for p in refused if p.compile != "blocks" or refusal(p.model_copy(update={"compile": None}))]
    if hiding or not kept:
        log.info("the profile of %s is not for this machine (%s): searching anew", front.model, why[refused[0].id])
        return None
    return front.model_copy(update={"candidates": kept})
