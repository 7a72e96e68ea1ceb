"""Every private name of diffusers, transformers and accelerate that the levers touch, in one place.

Each function says which line of the library it leans on; `tests/contract/test_contract_upstream.py` is the canary.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, Literal

import torch

__all__ = [
    "Placement",
    "excluded_from_offload",
    "forget_hooks",
    "is_sequential",
    "kept_in_fp32",
    "networks",
    "placement",
    "placement_device",
]

Placement = Literal["none", "model", "sequential", "group"]


def networks(pipe: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's networks by attribute name."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def excluded_from_offload(pipe: Any) -> tuple[str, ...]:
    """Components that both offload modes move to the card for good (pipeline_utils.py `_exclude_from_cpu_offload`)."""
    return tuple(name for name in pipe._exclude_from_cpu_offload if name in networks(pipe))


def is_sequential(part: torch.nn.Module) -> bool:
    """Whether some module of the component loads its weights on call (accelerate/hooks.py `AlignDevicesHook.offload`)."""
    hooks = (getattr(module, "_hf_hook", None) for module in part.modules())
    return any(getattr(inner, "offload", False) is True for hook in hooks for inner in _unpacked(hook))


def _unpacked(hook: Any) -> list[Any]:
    return list(getattr(hook, "hooks", [hook]))  # accelerate/hooks.py SequentialHook


def placement(pipe: Any) -> Placement:
    """How the pipeline's weights are placed now."""
    parts = networks(pipe).values()
    if any(_group_hooked(part) for part in parts):
        return "group"
    if any(is_sequential(part) for part in parts):
        return "sequential"
    return "model" if any(hasattr(part, "_hf_hook") for part in parts) else "none"


def _group_hooked(part: torch.nn.Module) -> bool:
    registries = (getattr(module, "_diffusers_hook", None) for module in part.modules())
    return any("group_offloading" in getattr(registry, "hooks", {}) for registry in registries)


def placement_device(pipe: Any) -> torch.device | None:
    """The device that accelerate's hooks execute on (pipeline_utils.py `_offload_device`)."""
    device = getattr(pipe, "_offload_device", None)
    return torch.device(device) if device is not None else None


def forget_hooks(pipe: Any) -> None:
    """Takes off accelerate's hooks and what the pipeline remembers of them, as if offload had never been enabled."""
    pipe.remove_all_hooks()
    for attribute in ("_all_hooks", "_offload_device", "_offload_gpu_id"):
        pipe.__dict__.pop(attribute, None)
    for part in networks(pipe).values():
        for module in part.modules():
            left = module.__dict__.get("forward")  # accelerate/hooks.py remove_hook_from_module leaves the bound method
            if isinstance(left, MethodType) and left.__self__ is module and left.__func__ is type(module).forward:
                del module.__dict__["forward"]


def kept_in_fp32(part: torch.nn.Module, dtype: torch.dtype) -> tuple[str, ...]:
    """Name patterns of parameters that stay in fp32 when the component is lowered.

    transformers keeps `_keep_in_fp32_modules` for float16 only and `_keep_in_fp32_modules_strict` for both
    (modeling_utils.py); diffusers keeps `_keep_in_fp32_modules` for any 16-bit type (model_loading_utils.py).
    """
    weak = getattr(part, "_keep_in_fp32_modules", None) or ()
    strict = getattr(part, "_keep_in_fp32_modules_strict", None) or ()
    if type(part).__module__.startswith("transformers") and dtype != torch.float16:
        weak = ()
    return (*weak, *strict)
