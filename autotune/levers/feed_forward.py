"""Feed-forward layers in chunks along the tokens: the wide middle of one chunk is alive at a time.

`enable_forward_chunking` exists on a handful of classes and refuses lengths that the chunk does not divide
(diffusers/models/attention.py `_chunked_feed_forward`). A feed-forward layer looks at each token by itself, so the chunks are
made here around the layer, in every model that has diffusers' `FeedForward` and at every length.
"""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.forwarding import Around, wrap_forward
from autotune.levers.journal import Journal
from autotune.records.model import role_named
from autotune.upstream import internals, port

__all__ = ["FeedForwardChunks"]

_CHUNKS = 4  # the wide middle is four to eight times its input: a quarter of it is no larger than what surrounds it


class FeedForwardChunks(Lever):
    """Wraps each feed-forward layer of the denoisers; exact, since tokens do not meet in it."""

    name = "feed_forward_chunks"
    summary = (
        "feed-forward layers of the denoiser in chunks of tokens",
        "a fraction of their wide middle",
        "more, smaller kernels",
    )

    def touches(self, name: str, part: torch.nn.Module) -> bool:
        return role_named(name) in {"denoiser", None}

    def domain(self, subject: Subject) -> Domain:
        if not _layers(subject.pipe):
            return Domain((None,), "the denoiser has no feed-forward layer of diffusers' kind")
        if subject.steps_are_small:
            return Domain((None,), "what a step allocates is little beside the denoiser's weights")
        if subject.denoisers and all(facts.batch > 1 and not facts.mixes for facts in subject.denoisers.values()):
            return Domain((None,), "the batch can be split, which saves more")
        return Domain((None, _CHUNKS), "feed-forward layers look at each token by itself")

    def check(self, subject: Subject, value: Any) -> None:
        if value and not _layers(subject.pipe):
            raise PlanError(
                f"feed_forward_chunks={value!r} cannot be applied: {self.domain(subject).reason}; what works is False"
            )

    def read(self, pipe: Any) -> Any:
        return None if _chunked_by_owner(pipe) else False

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        for block in _chunked_by_owner(subject.pipe):
            journal.set(block, internals.CHUNK_SIZE, None)
        for layer in _layers(subject.pipe) if value else ():
            wrap_forward(_Chunked(layer, value), journal)


def _layers(pipe: Any) -> list[torch.nn.Module]:
    from diffusers.models.attention import FeedForward

    parts = port.denoisers(pipe).values()
    return [module for part in parts for module in part.modules() if isinstance(module, FeedForward)]


def _chunked_by_owner(pipe: Any) -> list[torch.nn.Module]:
    """The blocks that diffusers' own switch has taking their feed-forward layer in chunks."""
    parts = port.denoisers(pipe).values()
    return [module for part in parts for module in part.modules() if getattr(module, internals.CHUNK_SIZE, None)]


class _Chunked(Around):
    """A feed-forward layer that takes its tokens in chunks."""

    def __init__(self, layer: torch.nn.Module, chunks: int) -> None:
        super().__init__(layer, mark=("chunks", chunks))
        self._chunks = chunks

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """`hidden_states` is `(batch, tokens, channels)`; anything else is done whole."""
        if hidden_states.dim() != 3 or hidden_states.shape[1] < 2:
            return self.forward(hidden_states, *args, **kwargs)
        parts = hidden_states.chunk(self._chunks, dim=1)
        return torch.cat([self.forward(part, *args, **kwargs) for part in parts], dim=1)
