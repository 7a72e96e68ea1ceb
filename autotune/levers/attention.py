"""Attention: fused, xFormers', step by step, the whole score matrix, or a backend of diffusers' dispatcher.

`disable_attention_slicing` and `disable_xformers_...` set defaults instead of what was there before, and
`set_attention_backend` also changes the process-wide default (docs/upstream.md). So processors are exchanged one by one and the
old objects are put back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from autotune.errors import PlanError, nearest
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.journal import Journal, Slot, fill
from autotune.records.plan import is_approximate
from autotune.upstream import backends, port

__all__ = ["Attention", "traced_as"]

# Packages behind the dispatcher's backends, and the compute capabilities their kernels are built for
# (diffusers/models/attention_dispatch.py _check_attention_backend_requirements; the packages' READMEs).
_BACKENDS = {
    "flash": ("flash_attn", (8, 0), (13, 0)),
    "_flash_3": ("flash_attn_interface", (9, 0), (10, 0)),
    "sage": ("sageattention", (8, 0), (13, 0)),
}


class Attention(Lever):
    """Replaces processor by processor and keeps the old objects."""

    name = "attention"
    summary = (
        "fused attention (SDPA), xFormers, a dispatcher backend, sliced, or vanilla",
        "fused: no score matrix, faster; sliced: where a card has no fused kernel",
        "sliced and vanilla are slower and larger than fused",
    )

    def touches(self, name: str, part: torch.nn.Module) -> bool:
        return any(_processor_kind(module) for module in part.modules())

    def domain(self, subject: Subject) -> Domain:
        values, reasons = [], []
        if _legacy(subject.pipe):
            values.append("sdpa")
            reasons.append("some processors compute the score matrix step by step")
        if _no_fused_kernel(subject) and _sliceable(subject.pipe) and not _unknown_processors(subject.pipe):
            values += ["sliced:auto", "sliced:max"]
            reasons.append(f"{subject.device.name} has no fused kernel for bfloat16")
        if subject.device.kind == "cuda":
            installed = [f"backend:{name}" for name in _BACKENDS if not _backend_refusal(subject, name)]
            values += [value for value in installed if not is_approximate(value) or "sage" in subject.allowed]
            values += [] if _xformers_refusal(subject) else ["xformers"]
        return Domain((None, *values), "; ".join(reasons) or "no other attention is installed here")

    def check(self, subject: Subject, value: Any) -> None:
        kind, _, argument = value.partition(":")
        refusal = {"sliced": _sliced_refusal, "backend": _backend_refusal}.get(kind)
        if refusal is not None:
            why = refusal(subject, argument)
        elif kind == "xformers":
            why = _xformers_refusal(subject)
        else:
            why = "" if kind != "vanilla" or _exchangeable(subject.pipe) else _nothing_to_exchange(subject.pipe)
        if not why and kind != "sdpa":
            why = _custom_processors(subject.pipe)
        if not why and kind == "sliced":
            why = _unknown_processors(subject.pipe)
        if why:
            raise PlanError(f"attention={value!r} cannot be applied: {why}; what works is 'as_is'")

    def read(self, pipe: Any) -> None:
        return None

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        kind, _, argument = value.partition(":")
        if kind in {"backend", "xformers"}:
            _dispatch(subject.pipe, argument or kind, journal)
        if kind == "backend":
            return
        for module in _attentions(subject.pipe):
            slot = Slot(vars(module), "processor", module.processor)
            journal.push(partial(_put_back, module, slot), partial(_was, module, slot))
        if kind == "sliced":
            size = argument if argument in {"auto", "max"} else int(argument)
            for part in _sliceable(subject.pipe):
                part.set_attention_slice(size)
        else:
            _exchange(subject.pipe, kind)


def traced_as(value: str) -> str:
    """The value that runs anywhere and allocates the same: libraries for cards keep no score matrix, as SDPA does not."""
    if value.startswith("backend:"):
        return "backend:native"
    return "sdpa" if value == "xformers" else value


def _put_back(module: Any, slot: Slot) -> None:
    """The processor that was there, unless one that holds weights has come since: an IP-Adapter's, which its owner unloads."""
    if not isinstance(module.processor, torch.nn.Module):
        fill(slot)


def _was(module: Any, slot: Slot) -> tuple[Slot, ...]:
    return () if isinstance(module.processor, torch.nn.Module) else (slot,)


def _attentions(pipe: Any) -> list[Any]:
    parts = port.networks(pipe).values()
    return [module for part in parts for module in part.modules() if _processor_kind(module)]


def _processor_kind(module: Any) -> tuple[str, bool] | None:
    return _KINDS.get(type(getattr(module, "processor", None)).__name__)


# Processors of diffusers/models/attention_processor.py that compute the same: kind, and whether keys are added.
_KINDS = {
    "AttnProcessor": ("vanilla", False),
    "AttnProcessor2_0": ("sdpa", False),
    "XFormersAttnProcessor": ("xformers", False),
    "SlicedAttnProcessor": ("sliced", False),
    "AttnAddedKVProcessor": ("vanilla", True),
    "AttnAddedKVProcessor2_0": ("sdpa", True),
    "XFormersAttnAddedKVProcessor": ("xformers", True),
    "SlicedAttnAddedKVProcessor": ("sliced", True),
}
_BY_KIND = {kind: name for name, kind in _KINDS.items()}


def _exchangeable(pipe: Any) -> list[Any]:
    from diffusers.models.attention_processor import Attention as Module

    return [module for module in _attentions(pipe) if isinstance(module, Module)]


def _legacy(pipe: Any) -> list[Any]:
    return [module for module in _exchangeable(pipe) if _KINDS[type(module.processor).__name__][0] != "sdpa"]


def _exchange(pipe: Any, kind: str) -> None:
    from diffusers.models import attention_processor

    for module in _exchangeable(pipe):
        present, added = _KINDS[type(module.processor).__name__]
        if present != kind:
            module.processor = getattr(attention_processor, _BY_KIND[kind, added])()


def _dispatch(pipe: Any, backend: str, journal: Journal) -> None:
    """Sets the backend of each processor that asks the dispatcher; the process-wide default stays."""
    name = backends.backend_ready(backend)
    for processor in _dispatching(pipe):
        journal.set(processor, backends.CHOSEN, name)


def _dispatching(pipe: Any) -> list[Any]:
    parts = port.networks(pipe).values()
    processors = (getattr(module, "processor", None) for part in parts for module in part.modules())
    return [processor for processor in processors if hasattr(processor, backends.CHOSEN)]


def _sliceable(pipe: Any) -> list[Any]:
    return [part for part in port.networks(pipe).values() if hasattr(part, "set_attention_slice")]


def _sliced_refusal(subject: Subject, size: str) -> str:
    parts = _sliceable(subject.pipe)
    if not parts:
        return f"{_denoiser_classes(subject.pipe)} has no sliced attention"
    heads = [
        module.sliceable_head_dim
        for part in parts
        for module in part.modules()
        if hasattr(module, "sliceable_head_dim")
    ]
    if size.isdecimal() and int(size) > min(heads, default=1):
        return f"a slice cannot hold more than the {min(heads)} heads of the smallest attention"
    return ""


def _backend_refusal(subject: Subject, name: str) -> str:
    known = backends.backend_names()
    if name not in known:
        return f"diffusers has no attention backend {name!r}; nearest: {nearest(name, list(known))}"
    if not _dispatching(subject.pipe):
        return f"the attention of {_denoiser_classes(subject.pipe)} does not ask diffusers' dispatcher"
    missing = backends.backend_missing(name)
    if missing:
        return missing
    package, first, end = _BACKENDS.get(name, ("", (0, 0), (99, 0)))
    capability = subject.device.compute_capability
    if package and (capability is None or not first <= capability < end):
        return f"{package} has no kernels for {subject.device.name}"
    return ""


def _xformers_refusal(subject: Subject) -> str:
    if not _exchangeable(subject.pipe) and not _dispatching(subject.pipe):
        return _nothing_to_exchange(subject.pipe)
    if subject.device.kind != "cuda":
        return "xformers needs a CUDA card"
    return backends.backend_missing("xformers")


def _custom_processors(pipe: Any) -> str:
    """IP-Adapter and the like keep weights in processors of their own, which an exchange would set aside."""
    parts = port.networks(pipe).values()
    own = (getattr(module, "processor", None) for part in parts for module in part.modules())
    strange = sorted({type(processor).__name__ for processor in own if isinstance(processor, torch.nn.Module)})
    return f"{strange[0]} holds weights of its own" if strange else ""


def _unknown_processors(pipe: Any) -> str:
    """`set_attention_slice` exchanges processors whatever they are, and what its owner wrote computes something else."""
    modules = (module for part in _sliceable(pipe) for module in part.modules() if hasattr(module, "processor"))
    strange = sorted({type(module.processor).__name__ for module in modules if not _processor_kind(module)})
    return f"slices would take the place of {strange[0]}" if strange else ""


def _no_fused_kernel(subject: Subject) -> bool:
    """bf16 before compute capability 8.0: neither flash nor efficient takes it (sdp_utils.cpp), the math kernel is left."""
    if subject.device.kind != "cuda" or (subject.device.compute_capability or (8, 0)) >= (8, 0):
        return False
    parts = port.denoisers(subject.pipe).values()
    return any(parameter.dtype == torch.bfloat16 for part in parts for parameter in part.parameters())


def _nothing_to_exchange(pipe: Any) -> str:
    return f"the attention of {_denoiser_classes(pipe)} has one processor only"


def _denoiser_classes(pipe: Any) -> str:
    return " and ".join(dict.fromkeys(type(part).__name__ for part in port.denoisers(pipe).values()))
