"""The denoiser's batch in parts: activations of one part at a time, guidance halves included.

Which arguments carry the batch, and that no operator mixes samples, is read off a weightless call (`trace/batch.py`). What a
later call passes beyond that is unknown, and so is what it does with other attention processors (perturbed attention guidance
exchanges them for the time of a call): such a call runs whole, with a line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject, Undo, nothing
from autotune.levers.forwarding import wrap_forward
from autotune.records.model import DenoiserFacts, role_named
from autotune.upstream import port

__all__ = ["BatchSplit"]

log = logging.getLogger("autotune")


class BatchSplit(Lever):
    """Calls the denoiser once for each part and joins what it returns; exact."""

    name = "batch_split"
    summary = (
        "the denoiser's batch, guidance halves included, in parts",
        "denoising memory of one part",
        "smaller kernels; weights that are streamed come once for each part",
    )

    def touches(self, name: str, part: torch.nn.Module) -> bool:
        return role_named(name) in {"denoiser", None}

    def domain(self, subject: Subject) -> Domain:
        mixing = next((facts.mixes for facts in subject.denoisers.values() if facts.mixes), "")
        if mixing:
            return Domain((False,), mixing)
        batch = min((facts.batch for facts in subject.denoisers.values()), default=1)
        if subject.steps_are_small:
            return Domain((False,), "what a step allocates is little beside the denoiser's weights")
        if batch < 2:
            return Domain((False,), "the denoiser is called with one sample at a time")
        parts = (2, batch) if batch > 3 else (batch,)
        return Domain((False, *parts), f"the denoiser is called with {batch} samples, and none looks at another")

    def check(self, subject: Subject, value: Any) -> None:
        if value is False:
            return
        asked = f"batch_split={value!r} cannot be applied"
        if not port.denoisers(subject.pipe):
            raise PlanError(f"{asked}: the pipeline has no denoiser; what works is False")
        for name, facts in subject.denoisers.items():
            if facts.mixes:
                raise PlanError(f"{asked}: {name}: {facts.mixes}; what works is False")
            if value > facts.batch:
                nearest = facts.batch if facts.batch > 1 else False
                raise PlanError(f"{asked}: {name} is called with {facts.batch} at a time; what works is {nearest}")

    def read(self, pipe: Any) -> Any:
        return False

    def apply(self, subject: Subject, value: Any, *, undo: bool) -> Undo:
        if value is False:
            return nothing
        undos = [
            wrap_forward(part, _split(value, subject.denoisers[name], name, part), mark=("parts", value))
            for name, part in port.denoisers(subject.pipe).items()
            if name in subject.denoisers
        ]

        def put_back() -> None:
            for take_off in reversed(undos):
                take_off()

        return put_back


def _split(parts: int, facts: DenoiserFacts, name: str, part: torch.nn.Module) -> Callable[..., Any]:
    known = frozenset(facts.batched)
    processors = [(module, module.processor) for module in part.modules() if hasattr(module, "processor")]
    said: set[str] = set()

    def around(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten_with_path((args, kwargs))
        batch = _batch_of(leaves, known)
        strange = [keystr(path) for path, leaf in leaves if keystr(path) not in known and _has_axis(leaf, batch)]
        why = f"argument {strange[0]} was not there when it was planned" if strange else ""
        if batch > 1 and not why and any(module.processor is not processor for module, processor in processors):
            why = "its attention processors are not those that it was planned with"
        if why and why not in said:
            said.add(why)
            log.warning("%s runs with its whole batch: %s", name, why)
        if batch < 2 or why:
            return forward(*args, **kwargs)
        outputs = []
        for start, stop in _bounds(batch, min(parts, batch)):
            own = [leaf[start:stop] if keystr(p) in known and _has_axis(leaf, batch) else leaf for p, leaf in leaves]
            part_args, part_kwargs = tree_unflatten(own, spec)
            outputs.append(forward(*part_args, **part_kwargs))
        return _joined(outputs)

    return around


def _batch_of(leaves: list[tuple[Any, Any]], known: frozenset[str]) -> int:
    """Samples of the first argument that carries the batch."""
    sizes = [
        leaf.shape[0]
        for path, leaf in leaves
        if keystr(path) in known and isinstance(leaf, torch.Tensor) and leaf.dim()
    ]
    return max(sizes) if sizes else 1  # Dynamo knows no `default`, and the owner may have compiled the denoiser


def _has_axis(leaf: Any, batch: int) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 0 and leaf.shape[0] == batch and batch > 1


def _bounds(batch: int, parts: int) -> list[tuple[int, int]]:
    edges = [batch * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def _joined(outputs: list[Any]) -> Any:
    """One output from those of the parts: tensors one after another, everything else as the first part has it."""
    flat = [tree_flatten(output) for output in outputs]
    spec = flat[0][1]
    columns = zip(*(leaves for leaves, _ in flat), strict=True)
    return tree_unflatten([torch.cat(c) if isinstance(c[0], torch.Tensor) else c[0] for c in columns], spec)
