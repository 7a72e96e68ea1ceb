"""Applying a plan and taking it back: all or nothing, the same twice as once, and right whenever it is interrupted.

The mark on the pipeline comes before the first change and goes after the last: where even a rollback was broken off, the
pipeline says so and `restore` goes on.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from autotune.errors import AutotuneError, PlanError
from autotune.guard.calls import Calls
from autotune.guard.dress import dress
from autotune.guard.optimized import Optimized, disown, mark, optimized_of, own, owner_of, unmark
from autotune.guard.running import run_call
from autotune.guard.standing import Standing
from autotune.levers import engine
from autotune.levers.base import Subject
from autotune.levers.files import files_of
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import Plan
from autotune.records.values import typed_all
from autotune.records.workload import Workload
from autotune.upstream import port

__all__ = ["apply", "is_under", "optimized_of", "reapply", "restore"]

log = logging.getLogger("autotune")


def apply(
    pipe: Any,
    plan: Plan,
    *,
    device: Device,
    workload: Workload,
    undo: bool = True,
    reload: bool = False,
    denoisers: Mapping[str, DenoiserFacts] | None = None,
) -> Optimized:
    """Makes the pipeline run as planned. Applied twice it is applied once; another plan replaces it.

    With `reload` originals that the pipeline's files hold do not wait in RAM: `restore` reads them again.

    Raises:
        PlanError: a value cannot be applied; nothing has been changed then, and an earlier plan is there again, or is said to
            be off where it cannot be put back.
    """
    earlier = optimized_of(pipe)
    if earlier is not None and is_under(pipe, plan, device, undo=undo, denoisers=denoisers):
        earlier.serve(pipe, workload)
        return earlier
    replaced = earlier if earlier is not None and earlier.is_whole and not _is_unproved(pipe, earlier) else None
    restore(pipe)
    try:
        with torch.inference_mode(False):  # parameters made in inference mode could never be put back
            optimized = Optimized(
                plan, device=device, workload=workload, denoisers=denoisers or {}, keeps_originals=undo, reloads=reload
            )
            _apply(pipe, optimized)
    except BaseException:
        if replaced is not None:
            _put_back(pipe, replaced)
        raise
    return optimized


def _is_unproved(pipe: Any, earlier: Optimized) -> bool:
    """Whether the plan would split the batch of a denoiser that came since."""
    changes = earlier.standing.changes(pipe) if earlier.standing is not None else []
    return earlier.unproved(changes) is not None


def _put_back(pipe: Any, earlier: Optimized) -> None:
    """The earlier plan again; the error that led here is told, not one of this."""
    try:
        reapply(pipe, earlier)
    except AutotuneError as error:
        log.warning("the earlier plan could not be put back, the pipeline is as its owner made it: %s", error)


def is_under(
    pipe: Any, plan: Plan, device: Device, *, undo: bool = True, denoisers: Mapping[str, DenoiserFacts] | None = None
) -> bool:
    """Whether the pipeline runs as planned there already, all of it, and nothing has changed since."""
    found = optimized_of(pipe)
    if found is None or not found.is_whole or found.is_altered or found.was_broken_off or found.changes(pipe):
        return False
    same = found.plan.same_as(plan) and found.device.torch_device == device.torch_device
    proved = not plan.batch_split or denoisers is None or denoisers == found.denoisers
    owned = all(owner_of(part) is found for part in port.networks(pipe).values())
    return same and proved and owned and found.keeps_originals == undo


def _apply(pipe: Any, optimized: Optimized) -> None:
    parts = port.networks(pipe)
    _refuse_elsewhere_owned(pipe, parts)
    subject = Subject(
        pipe,
        optimized.device,
        optimized.workload,
        optimized.plan,
        optimized.denoisers,
        files=files_of(pipe) if optimized.reloads else None,
        keeps_originals=optimized.keeps_originals,
    )
    optimized.folders = subject.files.folders if subject.files is not None else ()
    journal = optimized.journal
    try:
        mark(pipe, optimized)
        optimized.runs = optimized.plan.over(engine.current_plan(pipe))
        journal.whose = "the pipeline's class"
        dress(pipe, journal, _run)
        journal.whose = "the marks on networks"
        for part in parts.values():
            journal.change(partial(own, part, optimized), partial(disown, part))
        engine.pull(subject, journal)
        optimized.standing = Standing(pipe, optimized.runs)
        optimized.calls = Calls(pipe, optimized.workload)
        optimized.is_whole = True
    except BaseException as error:
        optimized.is_whole = False
        journal.roll_back()
        unmark(pipe)
        if isinstance(error, AutotuneError) or not isinstance(error, Exception):
            raise
        changes = optimized.plan.changes
        lowered = "dtype" in changes and not optimized.keeps_originals
        rest = ", but for the lowered precision: undo=False" if lowered else ""
        said = typed_all(changes) or "the plan"
        raise PlanError(f"applying {said} failed and was rolled back{rest}: {error}") from error


def _refuse_elsewhere_owned(pipe: Any, parts: Mapping[str, torch.nn.Module]) -> None:
    if any(map(owner_of, parts.values())):
        gc.collect()  # that pipeline may be gone but for the collector
    shared = [name for name, part in parts.items() if owner_of(part) is not None]
    if shared:
        raise PlanError(
            f"{', '.join(shared)} of this {type(pipe).__name__} also {'belong' if shared[1:] else 'belongs'} to a pipeline "
            "that is optimised; "
            "call autotune.restore on that one first"
        )


def restore(pipe: Any) -> bool:
    """Takes the plan back; False if there is none. Interrupted, it can be called again and goes on."""
    optimized = optimized_of(pipe)
    if optimized is None:
        return False
    gone = [str(folder) for folder in optimized.folders if not folder.is_dir()]
    if gone:
        raise AutotuneError(
            f"restore reads originals from {', '.join(gone)}, which is not there; put it back and call again"
        )
    optimized.is_whole = False
    with torch.inference_mode(False):
        optimized.journal.undo()
    unmark(pipe)
    return True


def _run(pipe: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call of an optimised pipeline."""
    return run_call(pipe, call, args, kwargs, renew)


def renew(pipe: Any) -> Optimized:
    """Applies the pipeline's plan to what is there now: a component was exchanged."""
    earlier = optimized_of(pipe)
    assert earlier is not None
    parts = {name: part for name, part in port.networks(pipe).items() if owner_of(part) is not earlier}
    _refuse_elsewhere_owned(pipe, parts)
    subject = Subject(pipe, earlier.device, earlier.workload, earlier.plan, earlier.denoisers)
    plan = engine.covering(subject, earlier.plan)
    engine.check(subject, plan)  # with the plan still on
    restore(pipe)
    return reapply(pipe, earlier, plan)


def reapply(pipe: Any, earlier: Optimized, plan: Plan | None = None) -> Optimized:
    """Puts back a plan that was just taken off, or what of it is still to be had. Without originals the weights stayed lowered,
    and are not cast again."""
    again = apply(
        pipe,
        plan or earlier.plan,
        device=earlier.device,
        workload=earlier.workload,
        undo=earlier.keeps_originals,
        reload=earlier.reloads,
        denoisers=earlier.denoisers,
    )
    again.watch, again.on_change, again.said = earlier.watch, earlier.on_change, earlier.said
    again.replan = earlier.replan
    again.tell(pipe, earlier.story, earlier.front)
    again.calls = earlier.calls  # which knows what was tried
    return again
