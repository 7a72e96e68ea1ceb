"""The front that answers a question, and the plan chosen from it.

What traces is imported where it is needed: a profile is found without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.flow.asked import asked
from autotune.flow.budget import budget_for, held_by
from autotune.flow.checks import names_of
from autotune.flow.choose import advice, choose
from autotune.flow.job import Job, job_for
from autotune.flow.learning import with_learned
from autotune.flow.question import Question
from autotune.flow.recall import open_store, recall_by_source, recalled
from autotune.flow.speeds import with_speed
from autotune.probe import catalog
from autotune.probe.gpu import local_device
from autotune.probe.host import host as probe_host
from autotune.probe.pipeline import present_device
from autotune.records.device import Device
from autotune.records.front import Candidate, Front
from autotune.records.host import Host
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from autotune.report.explanation import Explanation

__all__ = ["Question", "answer", "answer_from", "as_it_stands", "front_for", "job_of", "place_of"]


def answer(question: Question) -> tuple[Explanation, Front]:
    """The best plan for the question, and the front it was chosen from.

    Raises:
        AutotuneError: any of them; nothing has been changed.
    """
    device, host = place_of(question)
    front = front_for(question, device)
    return answer_from(front, question, device, host), front


def answer_from(
    front: Front, question: Question, device: Device | None = None, host: Host | None = None
) -> Explanation:
    """The best plan of a front that is there already.

    Raises:
        DoesNotFitError: none of its plans stays under the caps.
    """
    if device is None:
        device, host = place_of(question)
    held = held_by(question.model, device)
    budget = budget_for(device, host, max_vram=question.max_vram, max_ram=question.max_ram, held=held)

    def smaller(plan: Plan, cap_bytes: int) -> Workload | None:
        from autotune.flow.shrink import nearest_fit

        return nearest_fit(job_of(question, device), plan, cap_bytes)

    chosen = choose(front, budget, quality=question.quality, objective=question.objective, nearest=smaller)
    return Explanation(
        state="planned",
        model=front.model,
        workload=front.workload,
        device=front.device,
        host=host,
        cap_bytes=budget.vram_bytes,
        cap_note=budget.note,
        ram_cap_bytes=budget.ram_bytes,
        chosen=chosen,
        compared=front.baseline,
        advice=advice(front, chosen, budget, question.quality),
        asked=asked(question),
    )


def as_it_stands(question: Question, plan: Plan | None = None) -> Explanation:
    """What the call costs without any change, or under a plan that is applied already."""
    from autotune.flow.planning import as_it_is, estimates

    device, host = place_of(question)
    job = job_of(question, device)
    held = held_by(job.pipe, device)
    budget = budget_for(device, host, max_vram=question.max_vram, max_ram=question.max_ram, held=held)
    return Explanation(
        state="as it is" if plan is None else "optimised",
        model=job.model.name,
        workload=job.largest,
        device=device,
        host=host,
        cap_bytes=budget.vram_bytes,
        cap_note=budget.note,
        ram_cap_bytes=budget.ram_bytes,
        chosen=as_it_is(job) if plan is None else Candidate(plan=plan, estimate=estimates(job, [plan])[0]),
        asked=asked(question),
    )


def front_for(question: Question, device: Device | None = None) -> Front:
    """The front: from a profile if there is one, else by tracing and searching."""
    device = device or place_of(question)[0]
    store = None if question.restricted else open_store(question.profiles)
    known = _without_building(question, device, store)
    if known is not None:
        return known
    from autotune.flow.planning import front_of

    job = job_of(question, device)
    return recalled(
        store,
        job,
        lambda: front_of(job, keep=question.keep, forbid=names_of(question.forbid), allow=names_of(question.allow)),
    )


def job_of(question: Question, device: Device) -> Job:
    """The pipeline read and the workload resolved; a model given by name is built on the meta device."""
    pipe, name, source_key = question.model, None, None
    if isinstance(pipe, str | Path):
        from autotune.zoo.locate import locate

        pipe, name, source_key = locate(pipe)
    return job_for(
        pipe,
        device=device,
        workload=question.workload,
        example=question.example,
        calls=question.calls,
        undo=question.undo,
        name=name,
        source_key=source_key,
        progress=question.progress,
    )


def place_of(question: Question) -> tuple[Device, Host | None]:
    """The device, and this machine if the device is in it. A pipeline that lies on a card stays on that card."""
    if question.gpu is not None:
        return catalog.card(question.gpu), None
    here = with_speed(local_device(question.device or present_device(question.model)))
    return (here if question.profiles is False else with_learned(here)), probe_host()


def _without_building(question: Question, device: Device, store: Any) -> Front | None:
    """A zoo model's profile by its recipe alone: needs neither torch nor diffusers."""
    if store is None or not isinstance(question.model, str) or question.example:
        return None
    from autotune.zoo.recipes import find

    recipe = find(question.model)
    workload = None if recipe is None else _default_workload(recipe, question)
    if recipe is None or workload is None:
        return None
    return recall_by_source(
        store, source_key=recipe.source_key, device=device, workload=workload, undo=question.undo, name=recipe.name
    )


def _default_workload(recipe: Any, question: Question) -> Workload | None:
    """The resolved workload where that needs no look at the pipeline's class; else None."""
    plain = {"height": "height", "width": "width", "num_inference_steps": "steps"}
    given = question.workload
    if isinstance(given, Mapping):
        if not all(name in plain and type(value) is int and value > 0 for name, value in given.items()):
            return None
        given = Workload(**{plain[name]: value for name, value in given.items()})
    if given is not None and not isinstance(given, Workload):
        return None
    said = given or Workload()
    defaults = recipe.defaults
    return said.model_copy(
        update={
            "height": said.height or defaults.height,
            "width": said.width or defaults.width,
            "frames": said.frames or defaults.frames,
            "steps": said.steps or defaults.steps,
            "guidance": defaults.guidance if said.guidance is None else said.guidance,
            "calls": max(question.calls, said.calls),
        }
    )
