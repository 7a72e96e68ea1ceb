"""Attention processors: exchange vanilla, sliced and xFormers ones for torch's fused attention."""

from __future__ import annotations

from typing import Any

from autotune.levers import _upstream
from autotune.levers.base import Domain, Lever, Subject, Undo

__all__ = ["Attention"]

# Legacy processors of diffusers/models/attention_processor.py and the fused one that computes the same.
_FUSED = {
    "AttnProcessor": "AttnProcessor2_0",
    "SlicedAttnProcessor": "AttnProcessor2_0",
    "XFormersAttnProcessor": "AttnProcessor2_0",
    "AttnAddedKVProcessor": "AttnAddedKVProcessor2_0",
    "SlicedAttnAddedKVProcessor": "AttnAddedKVProcessor2_0",
    "XFormersAttnAddedKVProcessor": "AttnAddedKVProcessor2_0",
}


class Attention(Lever):
    """Replaces processor by processor and keeps the old objects.

    `disable_attention_slicing` and `disable_xformers_...` would set defaults instead of what was there before.
    """

    name = "attention"
    summary = ("fused attention (SDPA) in place of vanilla or sliced", "no score matrix; faster", "none")

    def domain(self, subject: Subject) -> Domain:
        if not _replaceable(subject.pipe):
            return Domain(("as_is",), "attention is fused already")
        return Domain(("as_is", "sdpa"), "some processors compute the score matrix step by step")

    def check(self, subject: Subject, value: Any) -> None:
        """Both values always apply: fused attention is left as it is."""

    def read(self, pipe: Any) -> str:
        return "as_is"

    def apply(self, subject: Subject, value: Any, *, undo: bool) -> Undo:
        from diffusers.models import attention_processor

        before = _replaceable(subject.pipe) if value == "sdpa" else []
        for module, processor in before:
            module.processor = getattr(attention_processor, _FUSED[type(processor).__name__])()

        def put_back() -> None:
            for module, processor in before:
                module.processor = processor

        return put_back


def _replaceable(pipe: Any) -> list[tuple[Any, Any]]:
    """Attention modules with a legacy processor, and that processor."""
    return [
        (module, module.processor)
        for part in _upstream.networks(pipe).values()
        for module in part.modules()
        if type(getattr(module, "processor", None)).__name__ in _FUSED
    ]
