"""Where a pipeline's weights are, and which hooks stand over its networks, so that a bulk call of upstream's can be taken back.

Offload exchanges parameters for empty ones and, on removal, for new ones: ties would be lost. The objects are kept; they share
memory with what accelerate keeps, so that costs nothing, and a parameter that shares none came from elsewhere.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any
from weakref import ref

import torch

from autotune.levers.adapters import Fused
from autotune.levers.base import release_cache
from autotune.levers.journal import ABSENT, Slot
from autotune.upstream import groups, port, weight_hooks

__all__ = ["Functions", "Placed", "Tables"]


class Tables:
    """Which tensor objects the modules of some networks hold."""

    def __init__(self, parts: tuple[torch.nn.Module, ...]) -> None:
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (table, dict(table))
            for part in parts
            for module in part.modules()
            for table in (module._parameters, module._buffers)
            if table
        ]

    def tensors(self) -> list[torch.Tensor]:
        """All of them."""
        return [tensor for _, held in self._tables for tensor in held.values() if tensor is not None]

    def slots(self) -> list[Slot]:
        """The same as slots."""
        return [
            Slot(table, name, tensor) for table, held in self._tables for name, tensor in held.items() if name in table
        ]

    def put_back(self, brought: Container[tuple[int, str]] = frozenset()) -> None:
        """The same objects in their places, but where somebody has put another since; what hooks `brought` is nobody's."""
        for table, held in self._tables:
            for name, tensor in held.items():
                if name in table and ((id(table), name) in brought or not _is_newcomer(table[name], tensor)):
                    table[name] = tensor

    def fill(self) -> None:
        """The same objects where there is nothing but an empty tensor now: an interruption lost what was there."""
        for table, held in self._tables:
            for name, tensor in held.items():
                if tensor is not None and not tensor.is_meta and table.get(name) is not None and table[name].is_meta:
                    table[name] = tensor


class Functions:
    """The functions that stand in place of forwards in some networks, and the registries of hooks behind them."""

    def __init__(self, parts: tuple[torch.nn.Module, ...]) -> None:
        self.registries = groups.Registries(parts)
        modules = [module for part in parts for module in part.modules()]
        self._forwards = [(module, vars(module).get("forward")) for module in modules]
        self._hooks = [
            Slot(vars(module), name, vars(module).get(name, ABSENT))
            for module in modules
            for name in weight_hooks.HOOK_ATTRIBUTES
        ]

    def slots(self) -> list[Slot]:
        """They and the hooks behind them, as slots."""
        forwards = [Slot(vars(m), "forward", ABSENT if forward is None else forward) for m, forward in self._forwards]
        registries = [Slot(vars(m), groups.REGISTRY, held) for m, held in self.registries.shown().items()]
        return [*forwards, *self._hooks, *registries]

    def put_back(self) -> None:
        """All as they were, and no others."""
        self.registries.put_back()
        for module, forward in self._forwards:
            if forward is not None:
                module.__dict__["forward"] = forward
            else:
                module.__dict__.pop("forward", None)


class Placed:
    """A pipeline before it is offloaded otherwise.

    `put_back` may run before, during and after the bulk call. Until `is_done` is set nobody but that call has changed anything,
    so whatever functions it left in place of a forward go; later ones may be somebody else's.
    """

    def __init__(self, pipe: Any) -> None:
        self._pipe = ref(pipe)
        self._parts = tuple(port.networks(pipe).values())
        self._tables = Tables(self._parts)
        self._places = {id(t): (t, t.device, t.is_pinned()) for t in self._tables.tensors()}
        self._functions = Functions(self._parts)
        self._home = next((device for _, device, _ in self._places.values()), torch.device("cpu"))
        self._remembered = weight_hooks.offload_remembered(pipe)
        self._fused = Fused(pipe)
        self._brought: set[tuple[int, str]] = set()
        self.is_done = False

    def was(self) -> list[Slot]:
        """What stood where, hooks included."""
        pipe = vars(self._pipe())
        remembered = [Slot(pipe, name, self._remembered.get(name, ABSENT)) for name in weight_hooks.REMEMBERED]
        return [*remembered, *self._functions.slots(), *self._tables.slots()]

    def put_back(self) -> None:
        """Hooks off, the same objects where they were; what came since, such as a LoRA's weights, goes with them."""
        parts = tuple(dict.fromkeys((*self._parts, *port.networks(self._pipe()).values())))
        if any(map(weight_hooks.is_sequential, parts)):  # what was fused since went into weights that were not there
            self._fused.as_before()
        for part in parts:
            self._brought.update(weight_hooks.brought(part))
            groups.ungroup(part)
        weight_hooks.forget_hooks(self._pipe(), parts)
        if not self.is_done:
            self._functions.put_back()
        self._functions.registries.forget_empty(parts)
        self._pipe().__dict__.update(self._remembered)
        self._tables.put_back(self._brought)
        self._move_back(parts)
        self._fused.as_found()

    def _move_back(self, parts: tuple[torch.nn.Module, ...]) -> None:
        left = {tensor.device for tensor, device, _ in self._places.values() if tensor.device != device}
        for tensor, device, pinned in self._places.values():
            if tensor.device != device:
                tensor.data = tensor.data.to(device)
            elif not pinned and tensor.is_pinned():
                tensor.data = tensor.data.clone()
        for tensor in (tensor for part in parts for tensor in (*part.parameters(), *part.buffers())):
            if id(tensor) not in self._places and tensor.device not in {self._home, torch.device("meta")}:
                tensor.data = tensor.data.to(self._home)
        for device in left:
            release_cache(device)


def _is_newcomer(now: Any, before: Any) -> bool:
    """Whether this slot's tensor was replaced by somebody. Moving a network makes new buffers, so those are told by shape."""
    if now is None or before is None:
        return False
    if isinstance(now, torch.nn.Parameter) and not now.is_meta:
        return now is not before and now.data_ptr() != before.data_ptr() and not _holds_the_same(now, before)
    return bool(now.shape != before.shape)


def _holds_the_same(now: torch.Tensor, before: torch.Tensor) -> bool:
    """A weight that accelerate made anew, and that another offload of the owner's has moved since, is the old one still."""
    alike = now.shape == before.shape and now.dtype == before.dtype
    return alike and torch.equal(now.detach().to(before.device), before.detach())
