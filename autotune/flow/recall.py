"""Remembering searches: a hit does no tracing and no search.

Only unrestricted searches of one workload are kept: a front answers any cap and any lane, but not a lever that was fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

from autotune.flow.here import applicable, applicable_by_name, particulars
from autotune.flow.job import Job
from autotune.flow.question import Profiles
from autotune.probe import catalog
from autotune.records.device import Device
from autotune.records.front import Front
from autotune.records.model import Model
from autotune.records.plan import LEVERS, PLAIN, Plan
from autotune.records.profile import Profile, ProfileKey
from autotune.records.workload import Workload
from autotune.simulate.speed import sustained
from autotune.store.bundled import directories
from autotune.store.key import hash_options, hash_speed, hash_workload, profile_key, versions
from autotune.store.profiles import ProfileStore

__all__ = ["open_store", "recall_by_source", "recalled", "remember"]


def open_store(profiles: Profiles) -> ProfileStore | None:
    """The store for `profiles=`: a folder, None for the usual folders, False for none at all."""
    if profiles is False:
        return None
    return ProfileStore(*directories(None if profiles in {None, True} else profiles))  # type: ignore[arg-type]


def recalled(store: ProfileStore | None, job: Job, search: Callable[[], Front]) -> Front:
    """The front from a profile, as far as it can be applied here, or from `search`, which is then remembered."""
    if store is None or len(job.workloads) != 1 or _is_particular(job):
        return search()
    owners = {} if job.unloaded else _owners(job.found)
    key = _key(job.model, job.device, job.largest, undo=job.undo, owners=owners)
    hit = store.find(key)
    known = None if hit is None else applicable(_here(hit, job.device, job.model.name, job.largest), job)
    if known is not None:
        return known
    start_s = perf_counter()
    front = search()
    front = front.model_copy(update={"planned_s": perf_counter() - start_s})
    _save(store, key, job.model, front)
    return front


def remember(store: ProfileStore | None, front: Front, model: Model, *, workload: Workload, undo: bool) -> None:
    """Puts the front of a model that is only named among the profiles."""
    if store is not None:
        _save(store, _key(model, front.device, workload, undo=undo), model, front)


def _key(
    model: Model, device: Device, workload: Workload, *, undo: bool, owners: Mapping[str, Any] | None = None
) -> ProfileKey:
    return profile_key(
        structural=model.structural_key,
        gpu_slug=catalog.slug(device),
        workload=workload.key,
        options=_options(device, undo) | dict(owners or {}),
    )


def _save(store: ProfileStore, key: ProfileKey, model: Model, front: Front) -> None:
    aliases = (model.source_key,) if model.source_key else ()
    neutral = front.model_copy(update={"device": _portable(front.device)})
    made = Profile(key=key, aliases=aliases, versions=versions(), front=neutral, planned_s=front.planned_s)
    store.save(made, label=model.name)


def recall_by_source(
    store: ProfileStore | None, *, source_key: str, device: Device, workload: Workload, undo: bool, name: str
) -> Front | None:
    """The front of a model that need not even be built; None if no profile has it."""
    if store is None:
        return None
    options = hash_options(_options(device, undo))
    hit = store.find_alias(source_key, catalog.slug(device), hash_workload(workload.key), options)
    return None if hit is None else applicable_by_name(_here(hit, device, name, workload))


def _options(device: Device, undo: bool) -> dict[str, Any]:
    """What changes a front besides model, card and call. A front that knew fewer levers is another one, and so is one whose
    seconds are those of another speed: of another link or power limit, of constants before they were measured, learned (in
    steps) or revised, or whose bytes are those of another allocator."""
    usual = {"undo": undo, "sustained": hash_speed(sustained(device)), "levers": list(LEVERS)}
    return usual | particulars(device)


def _is_particular(job: Job) -> bool:
    """Whether the owner has set up what no key tells apart: what no value describes, or offload that is for another device."""
    from autotune.levers.takeover import elsewhere

    unsaid = any(value is not None and getattr(job.found, name) is None for name, value in PLAIN.values.items())
    return unsaid or elsewhere(job.pipe, job.device) is not None


def _owners(found: Plan) -> dict[str, Any]:
    """What the pipeline's owner has set up: a plan of the front leaves some of it as found."""
    own = {name: value for name, value in found.values.items() if value != getattr(PLAIN, name)}
    return {"found": own} if own else {}


def _here(profile: Profile, device: Device, name: str, workload: Workload) -> Front:
    front = profile.front
    computed = front.workload.computed or workload.computed
    said = workload.model_copy(update={"computed": computed})
    asked = {"device": device, "model": name, "workload": said}
    return front.model_copy(update={**asked, "origin": "a profile", "planned_s": profile.planned_s})


def _portable(device: Device) -> Device:
    """The device without what is true of this moment only."""
    return device.model_copy(
        update={"free_bytes": None, "driver": None, "power_limit_w": None, "torch_device": "cuda:0"}
        if device.kind == "cuda"
        else {"free_bytes": None}
    )
