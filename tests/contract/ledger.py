"""Ledgers of weights: what accelerate's own hooks bring in and take out during a real call on the CPU.

Without a card nothing moves, so the hooks of model offload are shown modules that are where the ledger says, on "cpu:0"
while they are in and on "cpu" while they wait; what to do about it is decided by accelerate's code. The hooks of
sequential offload really empty and fill their modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, CpuOffload, UserCpuOffloadHook

WAITING = torch.device("cpu")


class Entry(NamedTuple):
    """A module's weights going in or out."""

    direction: str
    path: str
    size_bytes: int = 0


class Call(NamedTuple):
    """A component being called, and which components' weights are in."""

    component: str
    present: frozenset[str]


class ComponentLedger:
    """Model offload: components in and out, and who is in at each call. To be opened before offload is enabled."""

    def __init__(self, pipe: Any, patch: pytest.MonkeyPatch) -> None:
        self.entries: list[Entry] = []
        self.calls: list[Call] = []
        self._names = {id(part): name for name, part in networks(pipe).items()}
        self._places = dict.fromkeys(self._names.values(), WAITING)
        really_to, really_pre_forward = torch.nn.Module.to, CpuOffload.pre_forward

        def to(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
            device = torch._C._nn._parse_to(*args, **kwargs)[0]
            if id(module) in self._names and device is not None:
                self.move(module, device)
            return really_to(module, *args, **kwargs)

        def pre_forward(hook: CpuOffload, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            previous = hook.prev_module_hook
            if previous is not None:
                hook.prev_module_hook = UserCpuOffloadHook(_Shown(previous.model, self), previous.hook)
            try:
                sent = really_pre_forward(hook, _Shown(module, self), *args, **kwargs)
            finally:
                hook.prev_module_hook = previous
            self.calls.append(Call(self._names[id(module)], self.present))
            return sent

        patch.setattr(torch.nn.Module, "to", to)
        patch.setattr(CpuOffload, "pre_forward", pre_forward)

    @property
    def present(self) -> frozenset[str]:
        """Components whose weights are in now."""
        return frozenset(name for name, place in self._places.items() if place != WAITING)

    def place(self, module: torch.nn.Module) -> torch.device:
        """Where the component's weights are said to be."""
        return self._places[self._names[id(module)]]

    def move(self, module: torch.nn.Module, device: str | torch.device) -> None:
        """Books the component's weights on the device."""
        name, place = self._names[id(module)], torch.device(device)
        if place != self._places[name]:
            self.entries.append(Entry("out" if place == WAITING else "in", name))
        self._places[name] = place


class _Shown:
    """A component as accelerate's hook sees it: its device is the ledger's word."""

    def __init__(self, module: torch.nn.Module, ledger: ComponentLedger) -> None:
        self._module, self._ledger = module, ledger

    def parameters(self) -> Iterator[Any]:
        yield SimpleNamespace(device=self._ledger.place(self._module))

    def to(self, device: str | torch.device) -> _Shown:
        self._ledger.move(self._module, device)
        return self


class LeafLedger:
    """Sequential offload: which module's weights come and go, in order, with their bytes. Opened before the call."""

    def __init__(self, pipe: Any, patch: pytest.MonkeyPatch) -> None:
        self.entries: list[Entry] = []
        paths = {
            id(module): f"{name}.{path}" if path else name
            for name, part in networks(pipe).items()
            for path, module in part.named_modules(remove_duplicate=False)
        }
        really_pre_forward, really_post_forward = AlignDevicesHook.pre_forward, AlignDevicesHook.post_forward

        def pre_forward(hook: AlignDevicesHook, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            before = present_bytes(module)
            sent = really_pre_forward(hook, module, *args, **kwargs)
            self._book("in", paths[id(module)], present_bytes(module) - before)
            return sent

        def post_forward(hook: AlignDevicesHook, module: torch.nn.Module, output: Any) -> Any:
            before = present_bytes(module)
            output = really_post_forward(hook, module, output)
            self._book("out", paths[id(module)], before - present_bytes(module))
            return output

        patch.setattr(AlignDevicesHook, "pre_forward", pre_forward)
        patch.setattr(AlignDevicesHook, "post_forward", post_forward)

    def _book(self, direction: str, path: str, size_bytes: int) -> None:
        if size_bytes:
            self.entries.append(Entry(direction, path, size_bytes))


def present_bytes(module: torch.nn.Module) -> int:
    """Bytes of the module's own weights that are not away."""
    own = [*module._parameters.values(), *module._buffers.values()]
    return sum(t.numel() * t.itemsize for t in own if t is not None and t.device.type != "meta")


def networks(pipe: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
