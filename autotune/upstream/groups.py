"""diffusers' hooks: group offload, and the registries that hold it (diffusers/hooks)."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

from autotune.upstream.internals import uses_weight_norm

__all__ = [
    "forget_registry",
    "group",
    "group_config",
    "groupable",
    "hook_registries",
    "named_groups",
    "regroup",
    "ungroup",
]


def group_config(part: torch.nn.Module) -> Any:
    """The settings of the network's group offload (diffusers/hooks/group_offloading.py GroupOffloadingHook.config)."""
    for module in part.modules():
        hook = getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).get("group_offloading")
        if hook is not None:
            return hook.config
    return None


# diffusers/hooks/group_offloading.py: _GROUP_OFFLOADING, _LAYER_EXECUTION_TRACKER, _LAZY_PREFETCH_GROUP_OFFLOADING
_GROUP_HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")


def groupable(part: torch.nn.Module) -> bool:
    """Whether diffusers can group-offload the network (modeling_utils.py `_supports_group_offloading`)."""
    return bool(getattr(part, "_supports_group_offloading", True)) and not uses_weight_norm(part)


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
    if config is None:
        return None
    for module in part.modules():
        registry: Any = getattr(module, "_diffusers_hook", None)
        for name in _GROUP_HOOKS if registry is not None else ():
            registry.remove_hook(name, recurse=False)
        left = module.__dict__.get("forward")
        if isinstance(left, MethodType) and left.__self__ is module and left.__func__ is type(module).forward:
            del module.__dict__["forward"]
    return config


def hook_registries(part: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that hold a registry of diffusers' hooks, maybe an empty one (diffusers/hooks/hooks.py HookRegistry)."""
    return [module for module in part.modules() if "_diffusers_hook" in module.__dict__]


def forget_registry(module: torch.nn.Module) -> None:
    """Takes the registry off the module if it holds no hook."""
    if not module.__dict__["_diffusers_hook"].hooks:
        del module.__dict__["_diffusers_hook"]


def regroup(part: torch.nn.Module, config: Any) -> None:
    """Group offload with the settings that `ungroup` gave back."""
    from diffusers.hooks.group_offloading import _apply_group_offloading

    _apply_group_offloading(part, config)
