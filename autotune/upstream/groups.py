"""diffusers' hooks: group offload, and the registries that hold it (diffusers/hooks)."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from types import MethodType, SimpleNamespace
from typing import Any

import torch

from autotune.upstream.internals import uses_weight_norm

__all__ = [
    "REGISTRY",
    "Registries",
    "cache_among",
    "exchange_forward",
    "group",
    "group_config",
    "groupable",
    "groupable_by_block",
    "hook_registries",
    "named_groups",
    "regroup",
    "ungroup",
]


REGISTRY = "_diffusers_hook"
"""Where a module holds its registry of hooks (diffusers/hooks/hooks.py HookRegistry.check_if_exists_or_initialize)."""
# diffusers/hooks/group_offloading.py: _GROUP_OFFLOADING, _LAYER_EXECUTION_TRACKER, _LAZY_PREFETCH_GROUP_OFFLOADING
_GROUP_HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
# Hooks that look at nothing but the call they stand around (diffusers/hooks: group_offloading.py, layerwise_casting.py).
_HARMLESS_HOOKS = frozenset({*_GROUP_HOOKS, "layerwise_casting", "peft_autocast_disable"})


def cache_among(modules: Iterable[torch.nn.Module]) -> str:
    """What a step cache on one of the modules does to a batch, in a clause; empty if there is none. Whatever hook is not known
    to be harmless counts: FirstBlockCache and its kin keep states from call to call (diffusers/hooks)."""
    for module in modules:
        registry = module.__dict__.get("_diffusers_hook")
        name = (
            next((name for name in registry.hooks if name not in _HARMLESS_HOOKS), "") if registry is not None else ""
        )
        if name:
            return f"the hook {name} of diffusers, as step caches have them, takes what it keeps of some samples for others"
    return ""


def group_config(part: torch.nn.Module) -> Any:
    """The settings of the network's group offload (diffusers/hooks/group_offloading.py GroupOffloadingHook.config)."""
    for module in part.modules():
        hook = getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).get("group_offloading")
        if hook is not None:
            return hook.config
    return None


def groupable(part: torch.nn.Module) -> bool:
    """Whether diffusers can group-offload the network (modeling_utils.py `_supports_group_offloading`)."""
    return bool(getattr(part, "_supports_group_offloading", True)) and not uses_weight_norm(part)


def groupable_by_block(part: torch.nn.Module) -> bool:
    """Whether all of its weights come when it is grouped by block. What lies in no list of blocks comes with the network's own
    forward, which nobody calls on an autoencoder: pipelines call `decode` (hooks/group_offloading.py, the unmatched group)."""
    return groupable(part) and (not hasattr(part, "decode") or bool(named_groups(part)))


def named_groups(part: torch.nn.Module) -> frozenset[str]:
    """Children whose lists are blocks too (modeling_utils.py `_group_offload_block_modules`)."""
    return frozenset(getattr(part, "_group_offload_block_modules", None) or ())


def group(part: torch.nn.Module, device: torch.device, **settings: Any) -> None:
    """Group offload of one network between this device and RAM."""
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(part, onload_device=device, offload_device=torch.device("cpu"), **settings)


def ungroup(part: torch.nn.Module) -> Any:
    """Takes group offload off, which diffusers has no call for; gives back its settings, None if there was none."""
    config = group_config(part)
    for module in part.modules():
        registry: Any = module.__dict__.get("_diffusers_hook")
        if registry is None:
            continue
        _tidy(registry)
        for name in _GROUP_HOOKS:
            registry.remove_hook(name, recurse=False)
        left = module.__dict__.get("forward")
        if isinstance(left, MethodType) and left.__self__ is module and left.__func__ is type(module).forward:
            del module.__dict__["forward"]
    return config


def exchange_forward(module: torch.nn.Module, held: Any, other: Any) -> None:
    """Where hooks of the module stand over one forward, they stand over another (diffusers/hooks/hooks.py `_fn_refs`)."""
    registry: Any = getattr(module, "_diffusers_hook", None)
    for reference in registry._fn_refs if registry is not None else ():
        for name in ("forward", "original_forward"):
            if getattr(reference, name, None) is held:
                setattr(reference, name, other)


def hook_registries(part: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that hold a registry of diffusers' hooks, maybe an empty one (diffusers/hooks/hooks.py HookRegistry)."""
    return [module for module in part.modules() if "_diffusers_hook" in module.__dict__]


class Registries:
    """The registries of diffusers' hooks on some networks, and what each of them holds."""

    def __init__(self, parts: Iterable[torch.nn.Module]) -> None:
        self._parts = tuple(parts)
        self._held: dict[torch.nn.Module, dict[str, Any]] = {
            module: {name: copy(vars(module.__dict__["_diffusers_hook"])[name]) for name in _HELD}
            for part in self._parts
            for module in hook_registries(part)
        }

    def shown(self) -> dict[torch.nn.Module, Any]:
        """For each module a registry that holds what its own held."""
        return {module: SimpleNamespace(**held) for module, held in self._held.items()}

    def put_back(self) -> None:
        """Each of them holds what it held, and there is no other."""
        for module in (module for part in self._parts for module in hook_registries(part)):
            if module in self._held:
                for name, value in self._held[module].items():
                    setattr(module.__dict__["_diffusers_hook"], name, copy(value))
            else:
                del module.__dict__["_diffusers_hook"]

    def forget_empty(self, parts: Iterable[torch.nn.Module]) -> None:
        """Registries that came since go, unless they hold hooks."""
        for module in (module for part in parts for module in hook_registries(part)):
            if module not in self._held and not module.__dict__["_diffusers_hook"].hooks:
                del module.__dict__["_diffusers_hook"]


_HELD = ("hooks", "_hook_order", "_fn_refs")  # diffusers/hooks/hooks.py HookRegistry.__init__


def _tidy(registry: Any) -> None:
    """Drops what an interrupted registration or removal left behind: a hook is in all three of its tables, or in none."""
    kept = [name for name in registry._hook_order if name in registry.hooks][: len(registry._fn_refs)]
    references = dict(zip(registry._hook_order, registry._fn_refs, strict=False))
    for name in registry.hooks.keys() - set(kept):
        del registry.hooks[name]
    registry._fn_refs[:] = [references[name] for name in kept]
    registry._hook_order[:] = kept


def regroup(part: torch.nn.Module, config: Any) -> None:
    """Group offload with the settings that `ungroup` gave back."""
    from diffusers.hooks.group_offloading import _apply_group_offloading

    _apply_group_offloading(part, config)
