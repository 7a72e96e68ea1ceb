"""A pipeline's twin: same classes, same code, no tensor of the original and no weights.

Every parameter, buffer and plain tensor attribute becomes a fake that is *born* fake. `FakeTensorMode.from_tensor` would
keep weak references to the original, which break a later `.to`, and turns meta tensors into meta fakes. Offload hooks are
left behind. The original is only read: it is never moved, copied or called.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autotune.trace.quantized import stand_in
from autotune.upstream.fakes import born
from autotune.upstream.port import networks
from autotune.upstream.weight_hooks import HOOK_ATTRIBUTES, hang_nothing, waiting

__all__ = ["ENTRY_POINTS", "UntraceableError", "own_tensors", "set_precision", "twin_of"]

# Methods by which a pipeline's own code calls its networks.
ENTRY_POINTS = ("forward", "encode", "decode")
_LIBRARIES = {"torch", "transformers"}
_BY_HAND = "a function was put in place of its forward"
_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


class UntraceableError(Exception):
    """A component that a weightless twin would not show as it is."""


class _Dropped:
    """Stands in the twin where a hook's state was."""


def own_tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """The parameters and buffers that the module holds itself, not its children's."""
    for table in (module._parameters, module._buffers):
        yield from (tensor for tensor in table.values() if tensor is not None)


def twin_of(pipe: Any, mode: FakeTensorMode) -> Any:
    """A shallow copy of the pipeline whose networks are weightless.

    Quantised linear layers become stand-ins of their stored bytes. A component with other weights of a class of their own, or
    with a function in place of some module's `forward`, raises `UntraceableError` when it is called: a plain fake would not
    show what it does, the function would call the original.
    """
    memo: dict[int, Any] = {}
    parts = networks(pipe)
    strange: dict[str, set[str]] = {name: set() for name in parts}
    for name, part in parts.items():
        tied: dict[int, torch.Tensor] = {}
        for module in part.modules():
            original = stand_in(module) or module
            _remember(original, mode, memo, tied)
            if original is not module:
                memo[id(module)] = copy.deepcopy(original, memo)
            strange[name] |= {type(t).__name__ for t in own_tensors(original) if type(t) not in _PLAIN_TENSORS}
    twin = copy.copy(pipe)
    for name, part in parts.items():
        ghost = copy.deepcopy(part, memo)
        for module in ghost.modules():
            if isinstance(module.__dict__.get("forward"), _Dropped):
                del module.__dict__["forward"]
            for attribute in HOOK_ATTRIBUTES:
                module.__dict__.pop(attribute, None)
            _forget_callers_hooks(module)
        by_hand = any(isinstance(vars(module).get("forward"), FunctionType) for module in ghost.modules())
        if strange[name] or by_hand:
            refuse = _refusing(f"weights of class {', '.join(sorted(strange[name]))}" if strange[name] else _BY_HAND)
            ghost.__dict__.update({method: refuse for method in ENTRY_POINTS if hasattr(ghost, method)})
        twin.__dict__[name] = ghost
    for name, part in pipe.components.items():
        if hasattr(part, "deprecation_warnings"):  # transformers' tokenizers remember there what they warned of
            twin.__dict__[name] = copy.copy(part)
            twin.__dict__[name].deprecation_warnings = dict(part.deprecation_warnings)
    hang_nothing(twin)
    twin.__dict__["_progress_bar_config"] = {"disable": True}
    return twin


def _forget_callers_hooks(module: torch.nn.Module) -> None:
    """Leaves out hooks that somebody registered: they are not ours to call. The libraries' own stay: weight_norm's make the
    weight, and with those of transformers a text encoder collects its hidden states (utils/output_capturing.py)."""
    for table in (module._forward_pre_hooks, module._forward_hooks):
        for key, hook in list(table.items()):
            if str(getattr(hook, "__module__", "")).split(".")[0] not in _LIBRARIES:
                del table[key]


def _refusing(reason: str) -> Callable[..., Any]:
    def forward(*_: Any, **__: Any) -> Any:
        raise UntraceableError(reason)

    return forward


def _remember(
    module: torch.nn.Module, mode: FakeTensorMode, memo: dict[int, Any], tied: dict[int, torch.Tensor]
) -> None:
    """Tells deepcopy what each tensor and each hook of the module becomes."""
    for name, address in waiting(module).items():  # sequential offload leaves an empty parameter in each place
        parameter = module._parameters.get(name)
        if address and parameter is not None and parameter.is_meta:
            memo[id(parameter)] = tied.setdefault(address, born(mode, parameter))
    plain = (value for value in module.__dict__.values() if isinstance(value, torch.Tensor))  # weight_norm holds one so
    for tensor in (*own_tensors(module), *plain):
        if id(tensor) not in memo:
            memo[id(tensor)] = born(mode, tensor)
    hooked = [name for name in HOOK_ATTRIBUTES if module.__dict__.get(name) is not None]
    for name in hooked:
        memo[id(module.__dict__[name])] = _Dropped()
    wrapped = hasattr(module.__dict__.get("forward"), "autotune_mark")  # levers/forwarding.py
    if (hooked or wrapped) and "forward" in module.__dict__:
        memo[id(module.__dict__["forward"])] = _Dropped()


def set_precision(root: torch.nn.Module, mode: FakeTensorMode, dtype: torch.dtype) -> None:
    """What `root.to(dtype)` does to floating-point tensors: `Module.to` itself cannot swap fake parameters."""
    reborn: dict[int, torch.Tensor] = {}
    for module in root.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None and tensor.is_floating_point() and tensor.dtype != dtype:
                    table[name] = reborn.setdefault(id(tensor), born(mode, tensor, dtype))  # type: ignore[assignment]
