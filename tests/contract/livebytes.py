"""Counts the bytes of tensors that are alive during a real run on the CPU, and nothing else."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """The most bytes that storages born under the mode hold at one time. Weights, and views of them, do not count."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._live_bytes = 0
        self._paused = False
        self._sizes: dict[int, int] = {}
        self._weights: dict[int, torch.UntypedStorage] = {}  # held, so that no other storage takes their address
        for part in networks(pipe):
            self.know(part)

    def know(self, root: torch.nn.Module) -> None:
        """The tensors of the module are weights: those it holds, and those that accelerate holds for it."""
        for module in root.modules():
            tensors = [*module._parameters.values(), *module._buffers.values(), *waiting(module)]
            for tensor in tensors:
                if tensor is not None and tensor.device.type != "meta":
                    storage = tensor.untyped_storage()
                    self._weights[storage._cdata] = storage

    @contextmanager
    def casting(self) -> Iterator[None]:
        """What `Module.to` makes are weights too: SDXL upcasts its VAE within the call."""
        original = torch.nn.Module.to

        def to(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
            before, self._paused = self._paused, True
            try:
                return original(module, *args, **kwargs)
            finally:
                self._paused = before
                self.know(module)

        torch.nn.Module.to = to
        try:
            yield
        finally:
            torch.nn.Module.to = original

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in () if self._paused else tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self._saw(leaf.untyped_storage())
        return out

    def _saw(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._sizes or key in self._weights:
            return
        self._sizes[key] = storage.nbytes()
        self._live_bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)
        weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        self._live_bytes -= self._sizes.pop(key)


def networks(pipe: Any) -> list[torch.nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]


def waiting(module: torch.nn.Module) -> list[torch.Tensor]:
    """The tensors that accelerate holds for a sequentially offloaded module."""
    hook = getattr(module, "_hf_hook", None)
    maps = [getattr(inner, "weights_map", None) for inner in getattr(hook, "hooks", [hook])]
    tables = (module._parameters, module._buffers)
    away = [name for table in tables for name, t in table.items() if t is not None and t.device.type == "meta"]
    return [weights[name] for weights in maps if weights is not None for name in away]


def activations_bytes(pipe: Any, run: Any) -> int:
    """The peak of one call of `run`."""
    with torch.no_grad(), LiveBytes(pipe) as live, live.casting():
        run(pipe)
    return live.peak_bytes
