"""The denoiser's batch in parts: activations of one part at a time, guidance halves included.

Which arguments carry the batch, and that no operator mixes samples, is read off a weightless call (`trace/batch.py`). What a
later call passes beyond that is unknown, and so is what it does with other attention processors (perturbed attention guidance
exchanges them for the time of a call): such a call runs whole, with a line in the log. So does one with a step cache: what it
keeps of one part, and whether it skips, would be taken for the next part.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.forwarding import Around, wrap_forward
from autotune.levers.journal import Journal
from autotune.records.model import DenoiserFacts, role_named
from autotune.upstream import groups, port

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
        denoisers = port.denoisers(subject.pipe).values()
        mixing = mixing or next(filter(None, (groups.cache_among(part.modules()) for part in denoisers)), "")
        if mixing:
            return Domain((None,), mixing)
        batch = min((facts.batch for facts in subject.denoisers.values()), default=1)
        if subject.steps_are_small:
            return Domain((None,), "what a step allocates is little beside the denoiser's weights")
        if batch < 2:
            return Domain((None,), "the denoiser is called with one sample at a time")
        parts = (2, batch) if batch > 3 else (batch,)
        return Domain((None, *parts), f"the denoiser is called with {batch} samples, and none looks at another")

    def check(self, subject: Subject, value: Any) -> None:
        if value is False:
            return
        asked = f"batch_split={value!r} cannot be applied"
        if not port.denoisers(subject.pipe):
            raise PlanError(f"{asked}: the pipeline has no denoiser; what works is False")
        for name, part in port.denoisers(subject.pipe).items():
            cache = groups.cache_among(part.modules())
            if cache:
                raise PlanError(f"{asked}: {name}: {cache}; what works is False, or {name}.disable_cache() first")
        for name, facts in subject.denoisers.items():
            if facts.mixes:
                raise PlanError(f"{asked}: {name}: {facts.mixes}; what works is False")
            if value > facts.batch:
                nearest = facts.batch if facts.batch > 1 else False
                raise PlanError(f"{asked}: {name} is called with {facts.batch} at a time; what works is {nearest}")

    def read(self, pipe: Any) -> Any:
        return False

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        for name, part in port.denoisers(subject.pipe).items() if value else ():
            if name in subject.denoisers:
                wrap_forward(_Split(part, value, subject.denoisers[name], name), journal)


class _Split(Around):
    """A denoiser that takes its batch in parts."""

    def __init__(self, part: torch.nn.Module, parts: int, facts: DenoiserFacts, name: str) -> None:
        super().__init__(part, mark=("parts", parts))
        self._parts, self._name, self._known = parts, name, frozenset(facts.batched)
        self._modules = list(part.modules())
        self._processors = [(module, module.processor) for module in self._modules if hasattr(module, "processor")]
        self._said: set[str] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten_with_path((args, kwargs))
        batch = _batch_of(leaves, self._known)
        why = self._why_not(leaves, batch) if batch > 1 else ""
        if why and why not in self._said:
            self._said.add(why)
            log.warning("%s runs with its whole batch: %s", self._name, why)
        if batch < 2 or why:
            return self.forward(*args, **kwargs)
        outputs = []
        for start, stop in _bounds(batch, min(self._parts, batch)):
            own = [
                leaf[start:stop] if keystr(p) in self._known and _has_axis(leaf, batch) else leaf for p, leaf in leaves
            ]
            part_args, part_kwargs = tree_unflatten(own, spec)
            outputs.append(self.forward(*part_args, **part_kwargs))
        return _joined(outputs)

    def _why_not(self, leaves: list[tuple[Any, Any]], batch: int) -> str:
        """What may look across the samples of this call; empty if nothing does."""
        strange = next((keystr(p) for p, leaf in leaves if keystr(p) not in self._known and _has_axis(leaf, batch)), "")
        if strange:
            return f"argument {strange} was not there when it was planned"
        if any(module.processor is not processor for module, processor in self._processors):
            return "its attention processors are not those that it was planned with"
        return groups.cache_among(self._modules)


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
