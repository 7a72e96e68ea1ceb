"""A pipeline from outside: class, attributes, hooks with their settings, the very parameters, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from functools import partial
from typing import Any

import torch

from autotune.upstream.port import networks

__all__ = ["Seen", "weights_of"]

_PLAIN = (str, int, float, bool, Enum, torch.device, torch.dtype, type(None))


class Seen:
    """A pipeline as it is when this is made."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = {"class": type(pipe)} | {name: _told(value) for name, value in vars(pipe).items() if _stays(name)}
        self.modules = {
            path: {name: _told(value) for name, value in vars(module).items() if not _passes(module, name)}
            for path, module in _modules(pipe)
        }
        self.weights = weights_of(pipe)
        self.data = {path: tensor.detach().clone() for path, tensor in self.weights.items()}
        self.strides = {path: tensor.stride() for path, tensor in self.weights.items()}
        self.precision = torch.get_float32_matmul_precision()

    def differences(self, pipe: Any) -> Iterator[str]:
        """What is no longer the same, a line each."""
        now = Seen(pipe)
        yield from (f"the pipeline's {name}" for name in _unequal(self.pipe, now.pipe))
        yield from (f"module {path}" for path in self.modules.keys() ^ now.modules.keys())
        for path in self.modules.keys() & now.modules.keys():
            yield from (f"{path}.{name}" for name in _unequal(self.modules[path], now.modules[path]))
        yield from (f"tensor {path}" for path in self.weights.keys() ^ now.weights.keys())
        for path in self.weights.keys() & now.weights.keys():
            before, after = self.weights[path], now.weights[path]
            if after.dtype != before.dtype or now.strides[path] != self.strides[path]:
                yield f"precision or layout of {path}"
            elif not before.is_meta and not torch.equal(after, self.data[path]):
                yield f"numbers in {path}"
            elif isinstance(before, torch.nn.Parameter) and after is not before:
                yield f"the object {path}"
        if now.precision != self.precision:
            yield f"TF32: {now.precision} instead of {self.precision}"

    def assert_same(self, pipe: Any) -> None:
        """Nothing of it has changed."""
        found = list(self.differences(pipe))
        assert not found, found


def weights_of(pipe: Any) -> dict[str, torch.Tensor]:
    """Every parameter and buffer by path; where a hook keeps it, what waits there."""
    return {
        f"{path}.{name}": _held(module, name, tensor)
        for path, module in _modules(pipe)
        for name, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None
    }


def _unequal(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in {**one, **other} if name not in one or name not in other or one[name] != other[name]]


def _stays(name: str) -> bool:
    """Whether a pipeline's attribute is the same after a call."""
    return name not in {"_autotune", "_current_timestep"}


def _passes(module: Any, name: str) -> bool:
    """Whether a module's attribute is looked at elsewhere or says nothing: weight_norm makes `weight` at each call, and the
    libraries leave a bound `forward` behind when their hooks go."""
    if name == "forward":
        return getattr(vars(module)[name], "__func__", None) is type(module).forward
    return name in {"_parameters", "_buffers", "_modules", "weight"}


def _modules(pipe: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, part in networks(pipe).items():
        yield from ((f"{name}.{path}" if path else name, module) for path, module in part.named_modules())


def _held(module: Any, name: str, tensor: torch.Tensor) -> torch.Tensor:
    hook = getattr(module, "_hf_hook", None)
    maps = [getattr(inner, "weights_map", None) for inner in getattr(hook, "hooks", [hook])]
    return next((weights[name] for weights in maps if tensor.is_meta and weights is not None), tensor)


def _told(value: Any) -> Any:
    """A value in a form that compares: hooks by their settings, everything else by itself."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return type(value).__name__, [_told(item) for item in value]
    if isinstance(value, dict):
        return {key: _told(item) for key, item in value.items()}
    if isinstance(value, partial):
        return "partial", _told(value.func), _depth(value)
    if hasattr(value, "__qualname__"):
        return value.__qualname__, _depth(value)
    if type(value).__module__.startswith(("accelerate.hooks", "diffusers.hooks")):
        settings = {
            k: v for k, v in vars(value).items() if isinstance(v, (*_PLAIN, dict, list)) and k != "input_device"
        }
        return type(value).__name__, _told(settings)
    return type(value).__name__, None if isinstance(value, torch.Tensor) else id(value)


def _depth(function: Any) -> int:
    """How many functions stand around a function."""
    count = 0
    while hasattr(function, "__wrapped__"):
        function, count = function.__wrapped__, count + 1
    return count
