"""Answering a question: the front, from a profile or a search, and the plan that is chosen from it.

What traces is imported where it is needed: a profile is found without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from autotune.flow.advice import advice
from autotune.flow.asked import asked
from autotune.flow.budget import assumed_host, budget_for, held_by
from autotune.flow.checks import names_of
from autotune.flow.choose import choose
from autotune.flow.here import local_device
from autotune.flow.job import Job, job_for
from autotune.flow.learning import with_learned
from autotune.flow.question import Question
from autotune.flow.recall import open_store, recall_by_source, recalled, remember
from autotune.flow.speeds import with_speed
from autotune.probe import catalog
from autotune.probe.host import host as probe_host
from autotune.probe.pipeline import present_device
from autotune.records.device import Device
from autotune.records.front import Front
from autotune.records.host import Host
from autotune.records.plan import Plan
from autotune.records.workload import Workload, with_defaults
from autotune.report.explanation import Explanation

if TYPE_CHECKING:
    from autotune.store.profiles import ProfileStore
    from autotune.zoo.recipe import Recipe

__all__ = ["Question", "answer", "answer_from", "as_it_stands", "front_for", "job_of", "named_call", "place_of"]


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
    if device is None or host is None:
        device, host = place_of(question)
    held = held_by(question.model, device)
    budget = budget_for(device, host, max_vram=question.max_vram, max_ram=question.max_ram, held=held)

    def smaller(plan: Plan, cap_bytes: int) -> Workload | None:
        from autotune.flow.shrink import nearest_fit

        return nearest_fit(job_of(question, device), plan, cap_bytes)

    wanted: dict[str, Any] = {"quality": question.quality, "objective": question.objective, "nearest": smaller}
    reload = False
    if question.keeps_originals and _has_files(question.model):
        # Originals wait in RAM where that allows the plan that is best without them; else they are read again from their files.
        best = choose(front.without_originals(), budget, **wanted)
        chosen = next(c for c in front.candidates if c.plan.id == best.plan.id)
        reload = not chosen.fits(budget.vram_bytes, budget.ram_bytes, one_memory=device.shares_ram)
        chosen = best if reload else chosen
    else:
        chosen = choose(front, budget, **wanted)
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
        compared=front.against(max_vram=budget.vram_bytes, max_ram=budget.ram_bytes, quality=question.quality),
        advice=advice(front, chosen, budget, question.quality),
        found=front.found,
        unloaded=question.is_named,
        notes=_notes(front, question),
        reload=reload,
        answered_from=front.origin,
        asked=asked(question),
    )


def _notes(front: Front, question: Question) -> tuple[str, ...]:
    """What one must know of the precision: of one that was fixed, and of a card that computes one wrongly."""
    fixed = (question.keep or {}).get("dtype")
    if fixed is not None and front.caution:
        return (f"dtype={fixed} was fixed by the caller: {front.caution}",)
    if front.device.fp16_fails:
        return (f"{front.device.name} is known to give black images in fp16: no plan uses it",)
    return ()


def _has_files(pipe: Any) -> bool:
    from autotune.levers.files import files_of

    return files_of(pipe) is not None


def as_it_stands(question: Question, plan: Plan | None = None, changes: Sequence[str] = ()) -> Explanation:
    """What the call costs without any change, or under a plan that is applied already and what has changed since."""
    from autotune.flow.planning import found_in, standing

    device, host = place_of(question)
    job = job_of(question, device, now=bool(changes))
    held = held_by(question.model if plan is not None else job.pipe, device)
    budget = budget_for(device, host, max_vram=question.max_vram, max_ram=question.max_ram, held=held)
    made, chosen = standing(job, plan)
    return Explanation(
        state="as it is" if plan is None else "optimised",
        model=job.model.name,
        workload=made,
        device=device,
        host=host,
        cap_bytes=budget.vram_bytes,
        cap_note=budget.note,
        ram_cap_bytes=budget.ram_bytes,
        chosen=chosen,
        found=found_in(job),
        unloaded=question.is_named,
        notes=tuple(f"since the plan was applied, {change}" for change in changes),
        asked=asked(question),
    )


def front_for(question: Question, device: Device | None = None) -> Front:
    """The front: from a profile if there is one, else by tracing and searching."""
    device = device or place_of(question)[0]
    elsewhere = question.torch_version is not None or question.allocator is not None  # no profile knows of these
    store = None if question.restricted or elsewhere else open_store(question.profiles)
    call = named_call(question)
    known = None if call is None else _known(question, device, store, call)
    if known is not None:
        return known
    from autotune.flow.fronts import front_from
    from autotune.flow.planning import findings_of, offers_of, place_for

    job = job_of(question, device)
    asked_for: dict[str, Any] = {
        "keep": question.keep,
        "forbid": names_of(question.forbid),
        "allow": names_of(question.allow),
    }

    def search() -> Front:
        findings = findings_of(job, **asked_for)
        front = front_from(findings, place_for(job), progress=lambda done, total: job.tell("searching", done, total))
        if call is not None and _keeps(question, device):
            from autotune.flow.kept import keep
            from autotune.store.calls import CallStore, calls_directory, key_of

            key = key_of(call.recipe.source_key, call.workload)
            keep(CallStore(calls_directory()), key, findings, lambda: offers_of(job, findings))
        return front

    return recalled(store, job, search)


def _known(question: Question, device: Device, store: ProfileStore | None, call: _Call) -> Front | None:
    """What a profile says, or traces that were kept: neither needs torch or diffusers."""
    front = recall_by_source(
        store,
        source_key=call.recipe.source_key,
        device=device,
        workload=call.workload,
        undo=question.keeps_originals,
        name=call.recipe.name,
    )
    if front is not None or device.is_here or not _keeps(question, device):
        return front
    from autotune.flow.fronts import Place
    from autotune.flow.kept import front_kept
    from autotune.store.calls import CallStore, calls_directory, key_of, shipped_calls, shipped_key

    place = Place(device, question.settings, question.torch_version)
    for folder, key, origin in (
        (calls_directory(), key_of, "traces of an earlier question"),
        (shipped_calls(), shipped_key, "traces that came with autotune"),
    ):
        if folder is None:
            continue
        named = key(call.recipe.source_key, call.workload)
        found = front_kept(CallStore(folder), named, place, name=call.recipe.name, workload=call.workload)
        if found is not None:
            front, model = found
            remember(store, front, model, workload=call.workload, undo=question.keeps_originals)
            return front.model_copy(update={"origin": origin})
    return None


def _keeps(question: Question, device: Device) -> bool:
    """Whether traces of this question are kept, and looked for."""
    return question.profiles is not False and not question.restricted and device.kind == "cuda"


def job_of(question: Question, device: Device, *, now: bool = False) -> Job:
    """The pipeline read and the workload resolved; a model given by name is built on the meta device.

    An optimised pipeline is read as its owner made it, or with `now` as it is.
    """
    given: dict[str, Any] = {"unloaded": question.is_named and question.loaded_as is None}
    if not question.is_named:
        from autotune.guard.as_found import as_found

        given["pipe"] = question.model if now else as_found(question.model)
    if question.is_named:
        from autotune.zoo.additions import in_words, taking, with_additions
        from autotune.zoo.card_call import card_call
        from autotune.zoo.locate import locate

        pipe, name, source_key, recipe = locate(question.model, dtype=question.loads)
        if question.added:
            pipe = with_additions(pipe, **question.additions)
            given["additions"] = in_words(**question.additions)
        if isinstance(question.workload, Workload):
            pipe = taking(pipe, question.workload.inputs)
        if recipe is not None:
            given |= {"known": recipe.precision, "defaults": card_call(recipe) if recipe.name == name else None}
        given |= {"pipe": pipe, "name": name, "source_key": None if question.added else source_key}
    return job_for(
        **given,
        device=device,
        workload=question.workload,
        example=question.example,
        calls=question.calls,
        undo=question.keeps_originals,
        allocator=question.settings,
        torch_version=question.torch_version,
        progress=question.progress,
    )


def place_of(question: Question) -> tuple[Device, Host]:
    """The device and the machine around it: this one, or what is stated or assumed of one that is not here. A pipeline that
    lies on a card stays on that card."""
    if question.gpu is not None:
        device = catalog.card(question.gpu)
        return device, assumed_host(device, question.ram)
    here = with_speed(local_device(question.device or present_device(question.model)))
    return (here if question.profiles is False else with_learned(here)), probe_host()


class _Call(NamedTuple):
    """A call of a zoo model that can be told without building it."""

    recipe: Recipe
    workload: Workload


def named_call(question: Question) -> _Call | None:
    """The question's call where a zoo model is named, and no look at the pipeline's class is needed to tell it; else None."""
    if not question.is_named or question.example or question.added or question.loaded_as is not None:
        return None
    from autotune.zoo.recipes import find

    recipe = find(str(question.model))
    workload = None if recipe is None else _default_workload(recipe, question)
    return None if recipe is None or workload is None else _Call(recipe, workload)


def _default_workload(recipe: Recipe, question: Question) -> Workload | None:
    """The resolved workload where that needs no look at the pipeline's class; else None."""
    from autotune.zoo.card_call import card_call

    plain = {"height": "height", "width": "width", "num_inference_steps": "steps"}
    given = question.workload
    if isinstance(given, Mapping):
        if not all(name in plain and type(value) is int and value > 0 for name, value in given.items()):
            return None
        given = Workload(**{plain[name]: value for name, value in given.items()})
    if given is not None and not isinstance(given, Workload):
        return None
    said, usual = given or Workload(), card_call(recipe)
    if said.inputs or said.arguments or (said.guidance is not None and said.guidance != usual.guidance):
        return None
    merged = with_defaults(said, usual)
    return merged.model_copy(update={"calls": max(question.calls, merged.calls)})
