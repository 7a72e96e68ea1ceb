"""Placement: where weights wait while they are not needed.

On a card the libraries' own calls do the work. Without one, model offload runs with device="cpu", sequential offload through
accelerate component by component (`takeover.sequential_without_card`) and group offload from RAM to RAM: the same hooks,
nothing saved, but every path can be run.
"""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject, release_cache
from autotune.levers.journal import Journal
from autotune.levers.placed import Placed
from autotune.levers.takeover import elsewhere, sequential_without_card
from autotune.levers.text_encoders import wait_apart
from autotune.records.model import role_named
from autotune.records.plan import GroupOffload, group_offload
from autotune.upstream import groups, internals, port, weight_hooks

__all__ = ["Offload", "group_settings"]

_MODES = ("model", "sequential")
# Pinning on the fly trades speed for RAM, and record_stream a little memory for fewer stalls: both only with a stream.
_GROUPS = ("group:block", "group:block+stream", "group:leaf+stream", "group:leaf+stream+low_cpu_mem")


class Offload(Lever):
    """Exactly one family per pipeline; hooks that are there already are taken over and given back."""

    name = "offload"
    summary = (
        "weights wait in RAM by component, by leaf module, or by diffusers' groups",
        "the card holds one component, one layer, or one block",
        "transfers: a little (model), a lot (sequential), hidden behind computing (streams)",
    )

    def domain(self, subject: Subject) -> Domain:
        found, there = self.read(subject.pipe), elsewhere(subject.pipe, subject.device)
        on_cpu = subject.device.kind == "cpu"
        refused = {} if on_cpu else {mode: _refusal(subject, mode) for mode in (*_MODES, *_GROUPS)}
        modes = [mode for mode in ("none", *refused) if not refused.get(mode)]
        if there is not None:
            return Domain(tuple(modes), f"the pipeline's offload brings weights to {there}")
        if on_cpu:
            return Domain((None,), "there is no card to keep weights away from")
        reasons = dict.fromkeys(why for why in refused.values() if why)
        return Domain(
            (None, *(mode for mode in modes if mode != found)), "; ".join(reasons) or "weights can wait in RAM"
        )

    def check(self, subject: Subject, value: Any) -> None:
        why = _refusal(subject, value)
        if why:
            raise PlanError(f"offload={value!r} cannot be applied: {why}; what works is 'none'")

    def read(self, pipe: Any) -> str | None:
        """The mode of the whole pipeline; None where some networks are offloaded and others that it covers are not."""
        parts, excluded = port.networks(pipe), port.excluded_from_offload(pipe)
        mode = port.offloaded(pipe)
        if mode == "group":
            whole = all(groups.group_config(part) is not None for part in parts.values() if groups.groupable(part))
            return _group_value(pipe) if whole else None
        if mode == "sequential":
            covered = [part for name, part in parts.items() if name not in excluded]
            return mode if all(map(weight_hooks.is_sequential, covered)) else None
        order = [parts[name] for name in port.port_of(pipe).offload_order or () if name in parts]
        moved = [part for part in parts.values() if weight_hooks.moves_whole(part)]
        if not moved:
            return "none"
        return "model" if order and all(part in moved for part in order) else None

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        pipe, device = subject.pipe, torch.device(subject.device.torch_device)
        before = Placed(pipe)
        journal.push(before.put_back, before.was)
        if value is None and subject.taken:
            _as_found(subject, device)
        elif value == "model":
            pipe.enable_model_cpu_offload(device=device)
        elif value == "sequential" and device.type == "cpu":
            excluded = port.excluded_from_offload(pipe)
            sequential_without_card(pipe, [name for name in port.networks(pipe) if name not in excluded])
        elif value == "sequential":
            pipe.to("cpu", silence_dtype_warnings=True)  # diffusers looks at the first network only
            pipe.enable_sequential_cpu_offload(device=device)
        else:
            _place(subject, value or "none", device)
        release_cache(device)
        before.is_done = True


def _group_value(pipe: Any) -> str:
    """The value whose settings the largest of the pipeline's groups has."""
    configs = [groups.group_config(part) for part in port.denoisers(pipe).values()]
    configs += [groups.group_config(part) for part in port.networks(pipe).values()]
    config = next(config for config in configs if config is not None)
    options = {
        "+stream": config.stream is not None,
        "+record_stream": config.record_stream,
        "+low_cpu_mem": config.stream is not None and config.low_cpu_mem_usage,
    }
    return f"group:{config.offload_type.value.removesuffix('_level')}" + "".join(o for o, on in options.items() if on)


def _as_found(subject: Subject, device: torch.device) -> None:
    """The owner's own placement again, over weights and forwards as the other levers have made them."""
    parts = port.networks(subject.pipe)
    apart = [part for name, part in parts.items() if name in wait_apart(subject)]
    placed = {part for taken in subject.taken for part in taken.parts}
    for taken in subject.taken:
        taken.put_on(but=apart)
    for part in parts.values():
        if part in apart:
            part.to("cpu")
        elif part not in placed:  # such as one that was exchanged since
            part.to(device)


def _place(subject: Subject, value: str, device: torch.device) -> None:
    """Resident, or in groups: component by component, but for those that another lever places."""
    apart = wait_apart(subject)
    for name, part in port.networks(subject.pipe).items():
        if name in apart:
            part.to("cpu")
        elif value == "none" or not groups.groupable(part):
            part.to(device)
        else:
            groups.group(part, device, **group_settings(name, part, value))


def group_settings(name: str, part: torch.nn.Module, value: str) -> dict[str, Any]:
    """Arguments of `apply_group_offloading` for one component.

    Text encoders have no list of blocks of their own and some VAEs name none, so they go by leaf; a VAE gets no stream: the
    order of its layers is learned at the first call, and with tiles that call is not like the others (modeling_utils.py
    enable_group_offload).
    """
    chosen: GroupOffload = group_offload(value) or GroupOffload("leaf_level", False, False, False)
    role = role_named(name)
    settings = chosen._asdict()
    if role == "text_encoder" or not groups.groupable_by_block(part):
        settings["offload_type"] = "leaf_level"
    if role == "vae":
        settings |= {"use_stream": False, "record_stream": False, "low_cpu_mem_usage": False}
    if settings["offload_type"] == "block_level":
        settings["num_blocks_per_group"] = 1
    return settings


def _refusal(subject: Subject, mode: str) -> str:
    """Why the pipeline cannot be offloaded so; empty if it can."""
    pipe = subject.pipe
    parts = port.networks(pipe)
    if mode == "none":
        return ""
    if mode == "model":
        return (
            f"{type(pipe).__name__} declares no order for model offload" if pipe.model_cpu_offload_seq is None else ""
        )
    unwrapped = port.denoisers(pipe).keys() - set(port.wrapped(pipe)) if subject.plan.compile == "none" else ()
    for name in (name for name in port.compiled(pipe) if name not in unwrapped):
        return f"{name} is compiled, and hooks that load weights inside would break its graph"
    if mode == "sequential":
        normed = next((name for name, part in parts.items() if internals.uses_weight_norm(part)), "")
        return f"{normed} uses weight_norm, which sequential offload cannot empty" if normed else ""
    if not any(groups.groupable(part) for part in port.denoisers(pipe).values()):
        return "diffusers cannot group-offload the denoiser"
    if "+stream" in mode and subject.device.kind != "cuda":
        return "streams need a CUDA card"
    return ""
