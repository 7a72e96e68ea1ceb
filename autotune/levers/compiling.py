"""The denoiser's code: traced by `torch.jit`, or its repeated blocks compiled by `torch.compile`.

Both happen at the first call, with what is then passed, and pay over many calls only. Blocks are compiled in place, so class,
configuration and `save_pretrained` stay; undo forgets the compiled call of each. "none" sets aside what the owner compiled so.
"""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial
from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.forwarding import wrap_forward
from autotune.levers.journal import ABSENT, Journal, Slot
from autotune.levers.tracing import Traced, untraceable
from autotune.upstream import internals, port

__all__ = ["Compile"]

_TRITON_CAPABILITY = (7, 0)  # triton/backends/nvidia: Volta and later


class Compile(Lever):
    """Python's share of a step, and with `torch.compile` also the traffic between pointwise kernels."""

    name = "compile"
    summary = (
        "a UNet traced by torch.jit, or the denoiser's repeated blocks by torch.compile",
        "less time between kernels; compiled blocks also fuse pointwise kernels",
        "seconds to a minute at the first call; again for each new shape",
    )

    def domain(self, subject: Subject) -> Domain:
        if subject.device.kind == "cpu":
            return Domain((None,), "nothing is known of what it gains on this CPU")
        refused = {value: _refusal(subject, value) for value in ("trace", "blocks")}
        values = [value for value, why in refused.items() if not why]
        return Domain((None, *values), "; ".join(why for why in refused.values() if why) or "pays over many calls")

    def check(self, subject: Subject, value: Any) -> None:
        why = _refusal(subject, value)
        if why:
            works = "None, or setting the component to its _orig_mod first" if value == "none" else "'none'"
            raise PlanError(f"compile={value!r} cannot be applied: {why}; what works is {works}")

    def read(self, pipe: Any) -> str | None:
        return "none" if port.denoisers(pipe).keys().isdisjoint(port.compiled(pipe)) else None

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        if value == "none":
            parts = port.denoisers(subject.pipe).values()
            for module in (module for part in parts for module in part.modules() if internals.is_compiled(module)):
                journal.set(module, internals.COMPILED, None)
        if value == "trace":
            for name, part in _unets(subject.pipe):
                wrap_forward(Traced(part, name), journal)
        if value == "blocks":
            parts = port.denoisers(subject.pipe).values()
            for block in (block for part in parts for block in repeated_blocks(part)):
                if not internals.is_compiled(block):
                    journal.change(
                        block.compile,
                        partial(internals.forget_compiled, block),
                        partial(_was_plain, block),
                    )


def _was_plain(block: torch.nn.Module) -> tuple[Slot, ...]:
    return (Slot(vars(block), internals.COMPILED, ABSENT),)


def _refusal(subject: Subject, value: str) -> str:
    """Why the denoiser cannot be compiled so; empty if it can."""
    if value == "none":
        wrapped = [name for name in port.wrapped(subject.pipe) if name in port.denoisers(subject.pipe)]
        return f"{wrapped[0]} is what torch.compile returned, which is not unwrapped for its owner" if wrapped else ""
    if value == "trace":
        if not _unets(subject.pipe):
            return f"only a UNet2DConditionModel is traced, and {type(subject.pipe).__name__} has none"
        return next((why for _, part in _unets(subject.pipe) if (why := untraceable(subject.pipe, part))), "")
    if not any(repeated_blocks(part) for part in port.denoisers(subject.pipe).values()):
        return "the denoiser has no repeated blocks"
    return _no_compiler(subject)


def _no_compiler(subject: Subject) -> str:
    if subject.device.kind == "cuda":
        if (subject.device.compute_capability or (0, 0)) < _TRITON_CAPABILITY:
            return f"Triton has no code for {subject.device.name} (compute capability 7.0 and later)"
        return "" if not torch.cuda.is_available() or internals.has_triton() else "Triton is not installed"
    return "" if any(shutil.which(name) for name in ("g++", "clang++", "cl")) else "there is no C++ compiler"


def _unets(pipe: Any) -> list[tuple[str, torch.nn.Module]]:
    from diffusers import UNet2DConditionModel

    return [(name, part) for name, part in port.denoisers(pipe).items() if isinstance(part, UNet2DConditionModel)]


def repeated_blocks(part: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks worth compiling: those that the class names, else the outermost list's members whose class comes twice."""
    named = internals.named_blocks(part)
    if named:
        return [module for module in part.modules() if type(module).__name__ in named]
    outermost: list[torch.nn.Module] = []
    inside: set[int] = set()
    for module in part.modules():
        if isinstance(module, torch.nn.ModuleList) and id(module) not in inside:
            inside |= {id(inner) for child in module for inner in child.modules()}
            outermost += list(module)
    counts = Counter(type(block) for block in outermost)
    return [block for block in outermost if counts[type(block)] > 1]
