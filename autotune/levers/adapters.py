"""LoRA weights that are fused or unfused while weights are lowered or away.

Fusing adds to the weights that are there. Before the originals are put back the layers are fused as they were when those left,
and after that as they were found. Layers whose LoRA was unloaded meanwhile are remembered: what was fused or unfused before is
done to the originals too. A LoRA that was loaded, fused and unloaded under the plan cannot be told from the
weights, and goes with the plan.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from autotune.upstream import internals, port

__all__ = ["Fused"]


class Fused:
    """Which adapters are fused into which layers at this moment."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = ref(pipe)
        self._before = _fused(pipe)
        self._found: dict[Any, list[str]] | None = None
        self._gone: dict[Any, list[str]] = {}

    def as_before(self) -> None:
        """Fuses and unfuses until it is as it was at first. Called again after it was interrupted, it goes on."""
        if self._found is None:
            self._found = _fused(self._pipe())
            left = {layer: list(layer.merged_adapters) for layer in self._before.keys() - self._found.keys()}
            self._gone = {layer: now for layer, now in left.items() if now != self._before[layer]}
        for layer in self._found:
            _set(layer, self._before.get(layer, []))

    def as_found(self) -> None:
        """Until it is as `as_before` found it, if it was called."""
        for layer, adapters in (self._found or {}).items():
            _set(layer, adapters)
        while self._gone:
            layer, adapters = next(iter(self._gone.items()))
            layer.merged_adapters[:] = self._before[layer]  # which is how the weights that are back were fused
            _set(layer, adapters)
            del self._gone[layer]


def _fused(pipe: Any) -> dict[Any, list[str]]:
    modules = (module for part in port.networks(pipe).values() for module in part.modules())
    layers: list[Any] = [module for module in modules if internals.is_adapted(module)]
    return {layer: list(layer.merged_adapters) for layer in layers}


def _set(layer: Any, adapters: list[str]) -> None:
    if list(layer.merged_adapters) == adapters:
        return
    if layer.merged_adapters:
        layer.unmerge()
    if adapters:
        layer.merge(adapter_names=adapters)
