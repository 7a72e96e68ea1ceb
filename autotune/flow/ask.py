"""The question in all its parts, checked once, and the front that answers it.

What traces is imported where it is needed: a profile is found without torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotune.errors import PlanError, nearest
from autotune.flow.budget import Budget, budget_for, held_by
from autotune.flow.choose import advice, choose
from autotune.flow.job import Job, Progress, WorkloadLike, job_for
from autotune.flow.learning import with_learned
from autotune.flow.recall import Profiles, open_store, recall_by_source, recalled
from autotune.flow.speeds import with_speed
from autotune.probe import catalog
from autotune.probe.gpu import local_device
from autotune.probe.host import host as probe_host
from autotune.probe.pipeline import present_device, require_pipeline
from autotune.records.device import Device
from autotune.records.front import Candidate, Front, Objective
from autotune.records.host import Host
from autotune.records.plan import KNOWN_VALUES, LANES, LEVERS, Plan, Quality
from autotune.records.workload import Workload, with_defaults
from autotune.report.explanation import Explanation
from autotune.simulate.allocator_settings import Settings

__all__ = ["Question", "answer", "front_for", "job_of", "place_of"]

_OBJECTIVES = ("latency", "memory")
_APPROXIMATIONS = ("sage",)
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}(\.\d{1,3})?([a-z.+][\w.+]{0,30})?")
_MOST_RANK = 4096  # a LoRA of full rank is as large as its layer


@dataclass(frozen=True)
class Question:
    """What a caller asked. Construction validates what needs no pipeline."""

    model: Any
    """A pipeline, or the name of a model."""
    gpu: str | None = None
    device: str | None = None
    max_vram: str | int | None = None
    max_ram: str | int | None = None
    workload: WorkloadLike = None
    example: Mapping[str, Any] | None = None
    calls: int = 1
    quality: Quality = "near"
    allow: str | Sequence[str] = ()
    keep: Mapping[str, Any] | None = None
    forbid: str | Sequence[str] = ()
    objective: Objective = "latency"
    profiles: Profiles = None
    undo: bool = True
    progress: Progress | None = None
    loaded_as: str | Mapping[str, str] | None = None
    """Precision in which a named model is loaded, or precisions by component with a "default"."""
    controlnets: str | Sequence[str] = ()
    lora_rank: int | None = None
    ip_adapter: str | None = None
    torch_version: str | None = None
    """Of a machine that is not here."""
    allocator: str | None = None
    """PYTORCH_CUDA_ALLOC_CONF of a machine that is not here."""

    def __post_init__(self) -> None:
        if not isinstance(self.model, str | Path):
            require_pipeline(self.model)
        _is_a("gpu", self.gpu, str | None, "a name such as 'NVIDIA GeForce RTX 3060 12GB'")
        _is_a("device", self.device, str | None, "a torch device such as 'cuda:0'")
        _is_a("keep", self.keep, Mapping | None, "a dict such as {'vae_tiling': False}")
        _is_a("example", self.example, Mapping | None, "a dict of call arguments")
        _is_a("profiles", self.profiles, str | Path | bool | None, "a folder, None or False")
        for option in ("forbid", "allow"):
            _is_a(option, getattr(self, option), str | Sequence | set | frozenset, "a list of names")
        _one_of("quality", self.quality, LANES)
        _one_of("objective", self.objective, _OBJECTIVES)
        for name in (*(self.keep or {}), *names_of(self.forbid)):
            _one_of("lever", name, LEVERS)
        _check_values(self.keep or {})
        for name in names_of(self.allow):
            _one_of("approximation", name, _APPROXIMATIONS)
        self._check_setup()
        if self.gpu is not None and self.device is not None:
            raise PlanError(
                f"gpu={self.gpu!r} plans for a card that is not here, device={self.device!r} for one that is; give one"
            )
        if isinstance(self.calls, bool) or not isinstance(self.calls, int) or self.calls < 1:
            raise PlanError(f"calls={self.calls!r} is not a number of calls; write for example calls=20")

    def _check_setup(self) -> None:
        """What is said of the model as it is loaded, and of a machine that is not here."""
        _is_a("loaded_as", self.loaded_as, str | Mapping | None, "a precision such as 'fp16' or a dict by component")
        _is_a("controlnets", self.controlnets, str | Sequence, "a zoo name or folder, or a list of them")
        _is_a("ip_adapter", self.ip_adapter, str | None, "a zoo name such as 'ip-adapter-sdxl'")
        _is_a("torch_version", self.torch_version, str | None, "a version such as '2.9.0'")
        _is_a("allocator", self.allocator, str | None, "settings such as 'expandable_segments:True'")
        rank = 1 if self.lora_rank is None else self.lora_rank
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= _MOST_RANK:
            raise PlanError(f"lora_rank={rank!r} is not a rank from 1 to {_MOST_RANK}; write for example lora_rank=16")
        if self.torch_version is not None and not _VERSION.fullmatch(self.torch_version):
            raise PlanError(f"torch_version={self.torch_version!r} is not a version; write for example 2.9.0")
        for option in ("torch_version", "allocator"):
            if getattr(self, option) is not None and self.gpu is None:
                raise PlanError(f"{option} is of a machine that is not here; name its card with gpu=, or leave it out")
        if not isinstance(self.model, str | Path) and (self.loaded_as is not None or self.added):
            raise PlanError(
                "loaded_as, controlnets, lora_rank and ip_adapter are for a model that is named; load this pipeline with them"
            )
        _ = self.settings, _dtypes(self.loaded_as)  # refuse what they cannot read

    @property
    def added(self) -> bool:
        """Whether anything is added to the model."""
        return bool(self.controlnets or self.lora_rank is not None or self.ip_adapter is not None)

    @property
    def additions(self) -> dict[str, Any]:
        """What is added to the model, as arguments of `with_additions`."""
        names = names_of(self.controlnets)
        return {"controlnets": names, "lora_rank": self.lora_rank, "ip_adapter": self.ip_adapter}

    @property
    def settings(self) -> Settings | None:
        """The allocator's settings as they were stated.

        Raises:
            PlanError: settings that torch would refuse as well.
        """
        if self.allocator is None:
            return None
        return Settings.from_environment({"PYTORCH_CUDA_ALLOC_CONF": self.allocator})

    @property
    def restricted(self) -> bool:
        """Whether levers are fixed, approximations allowed or another machine's software stated, so that the answer is no
        profile for others."""
        stated = self.torch_version is not None or self.allocator is not None
        return bool(self.keep or self.forbid or self.allow) or stated


def answer(question: Question) -> tuple[Explanation, Front]:
    """The best plan for the question, and the front it was chosen from.

    Raises:
        AutotuneError: any of them; nothing has been changed.
    """
    device, host = place_of(question)
    held = held_by(question.model, device)
    budget = budget_for(device, host, max_vram=question.max_vram, max_ram=question.max_ram, held=held)
    front = front_for(question, device)

    def smaller(plan: Plan, cap_bytes: int) -> Workload | None:
        from autotune.flow.shrink import nearest_fit

        return nearest_fit(job_of(question, device), plan, cap_bytes)

    chosen = choose(front, budget, quality=question.quality, objective=question.objective, nearest=smaller)
    return _explained(front, chosen, budget, host, question.quality), front


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
    pipe, name, source_key, usual = question.model, None, None, None
    if isinstance(pipe, str | Path):
        from autotune.zoo.additions import taking, with_additions
        from autotune.zoo.locate import locate

        usual = _card_call(pipe)
        pipe, name, source_key = locate(pipe, dtype=_dtypes(question.loaded_as))
        if question.added:
            pipe = with_additions(pipe, **question.additions)
        if isinstance(question.workload, Workload):
            pipe = taking(pipe, question.workload.inputs)
        if question.added or question.loaded_as is not None:
            source_key = None  # which knows of neither
    return job_for(
        pipe,
        device=device,
        workload=question.workload,
        example=question.example,
        calls=question.calls,
        undo=question.undo,
        name=name,
        source_key=source_key,
        defaults=usual,
        additions=_additions_in_words(question),
        allocator=question.settings,
        torch_version=question.torch_version,
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
    if question.added or question.loaded_as is not None:
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


def _card_call(model: str | Path) -> Workload | None:
    """What the card of a zoo model recommends; None for any other model."""
    from autotune.zoo.card_call import card_call
    from autotune.zoo.recipes import find

    recipe = find(str(model))
    return None if recipe is None else card_call(recipe)


def _dtypes(loaded_as: str | Mapping[str, str] | None) -> Any:
    """Precisions under torch's names."""
    if loaded_as is None or isinstance(loaded_as, str):
        return None if loaded_as is None else _dtype(loaded_as)
    return {component: _dtype(said) for component, said in loaded_as.items()}


def _dtype(said: str) -> str:
    known = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    name = known.get(str(said).strip().casefold(), str(said).strip().casefold())
    if name not in known.values():
        raise PlanError(f"loaded_as={said!r} is not a precision; there are {', '.join(known)}")
    return name


def _additions_in_words(question: Question) -> tuple[str, ...]:
    if not question.added:
        return ()
    from autotune.zoo.additions import in_words

    return in_words(**question.additions)


def _explained(front: Front, chosen: Candidate, budget: Budget, host: Host | None, quality: Quality) -> Explanation:
    return Explanation(
        state="planned",
        model=front.model,
        workload=front.workload,
        device=front.device,
        host=host,
        cap_bytes=budget.vram_bytes,
        cap_note=budget.note,
        chosen=chosen,
        compared=front.baseline,
        advice=advice(front, chosen, budget, quality),
    )


def _is_a(option: str, value: Any, kind: Any, wanted: str) -> None:
    if not isinstance(value, kind):
        raise PlanError(f"{option}={value!r} is not {wanted}")


def names_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """One name or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def _check_values(keep: Mapping[str, Any]) -> None:
    for name, value in keep.items():
        try:
            Plan(**{name: value})
        except ValidationError as error:
            wanted = "; ".join(problem["msg"] for problem in error.errors(include_url=False))
            if name in KNOWN_VALUES:
                known = list(KNOWN_VALUES[name])
                wanted = f"there are {', '.join(known)}; nearest: {nearest(str(value), known, 1)}"
            raise PlanError(f"keep={{{name!r}: {value!r}}} is no value of this lever: {wanted}") from error


def _one_of(what: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise PlanError(
            f"no {what} {value!r}; it is one of {', '.join(known)}; nearest: {nearest(str(value), list(known), 1)}"
        )
