"""Every private name of diffusers, transformers and accelerate that the levers touch, in one place.

Each function says which line of the library it leans on; `tests/contract/test_contract_upstream.py` is the canary.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from types import MethodType
from typing import Any, Literal

import torch

from autotune.records.model import role_named

__all__ = [
    "Placement",
    "backend_missing",
    "backend_names",
    "backend_ready",
    "compiled",
    "denoisers",
    "excluded_from_offload",
    "forget_compiled",
    "forget_hook",
    "forget_hooks",
    "forget_registry",
    "group",
    "group_config",
    "groupable",
    "guards_of",
    "has_triton",
    "hook_registries",
    "hooks_of",
    "is_adapted",
    "is_compiled",
    "is_sequential",
    "kept_in_fp32",
    "networks",
    "offload_by_hand",
    "offload_remembered",
    "placement",
    "placement_device",
    "put_hook",
    "regroup",
    "sent",
    "stream",
    "streams_of",
    "text_encoders",
    "tie_again",
    "unet_output",
    "ungroup",
    "uses_weight_norm",
    "waits_on_disk",
]

Placement = Literal["none", "model", "sequential", "group"]


def networks(pipe: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's networks by attribute name, compiled wrappers taken off (torch/_dynamo/eval_frame.py `_orig_mod`)."""
    parts = {name: getattr(part, "_orig_mod", part) for name, part in pipe.components.items()}
    return {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}


def denoisers(pipe: Any) -> dict[str, torch.nn.Module]:
    """The networks that run in each denoising step; the largest one where no name says so."""
    parts = networks(pipe)
    named = {name: part for name, part in parts.items() if role_named(name) == "denoiser"}
    if named or not parts:
        return named
    largest = max(parts, key=lambda name: sum(parameter.numel() for parameter in parts[name].parameters()))
    return {largest: parts[largest]}


def text_encoders(pipe: Any) -> dict[str, torch.nn.Module]:
    """The networks that encode prompts."""
    return {name: part for name, part in networks(pipe).items() if role_named(name) == "text_encoder"}


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
    if any(group_config(part) is not None for part in parts):
        return "group"
    if any(is_sequential(part) for part in parts):
        return "sequential"
    return "model" if any(hasattr(part, "_hf_hook") for part in parts) else "none"


def placement_device(pipe: Any) -> torch.device | None:
    """The device that accelerate's hooks execute on (pipeline_utils.py `_offload_device`)."""
    device = getattr(pipe, "_offload_device", None)
    return torch.device(device) if device is not None else None


_REMEMBERED = ("_all_hooks", "_offload_device", "_offload_gpu_id")  # pipeline_utils.py enable_model_cpu_offload


def offload_remembered(pipe: Any) -> dict[str, Any]:
    """What the pipeline itself remembers of accelerate's hooks."""
    return {name: pipe.__dict__[name] for name in _REMEMBERED if name in pipe.__dict__}


def forget_hooks(pipe: Any) -> None:
    """Takes off accelerate's hooks and what the pipeline remembers of them, as if offload had never been enabled."""
    pipe.remove_all_hooks()
    for attribute in _REMEMBERED:
        pipe.__dict__.pop(attribute, None)
    for part in networks(pipe).values():
        forget_hook(part)


def forget_hook(part: torch.nn.Module) -> None:
    """Takes accelerate's hooks off one network, and the bound `forward` that they leave behind."""
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(part, recurse=True)
    for module in part.modules():
        left = module.__dict__.get("forward")  # accelerate/hooks.py remove_hook_from_module leaves the bound method
        if isinstance(left, MethodType) and left.__self__ is module and left.__func__ is type(module).forward:
            del module.__dict__["forward"]


def hooks_of(part: torch.nn.Module) -> list[tuple[torch.nn.Module, Any]]:
    """Each module of the network that has a hook of accelerate's, and the hook."""
    return [(module, module._hf_hook) for module in part.modules() if getattr(module, "_hf_hook", None) is not None]


def put_hook(module: torch.nn.Module, hook: Any) -> None:
    """Hangs a hook of accelerate's on the module again."""
    from accelerate.hooks import add_hook_to_module

    add_hook_to_module(module, hook)


def guards_of(part: torch.nn.Module) -> list[tuple[torch.nn.Module, dict[str, Any]]]:
    """Methods such as `to` that accelerate replaced by warnings: they go with its hooks (big_modeling.py dispatch_model)."""
    from accelerate.hooks import _accelerate_added_attributes as added

    guards = ((module, {k: v for k, v in module.__dict__.items() if k in added}) for module in part.modules())
    return [(module, attributes) for module, attributes in guards if attributes]


def streams_of(part: torch.nn.Module) -> list[tuple[torch.nn.Module, torch.device, bool]]:
    """The modules under which weights are loaded on call, where to, and whether buffers are too (accelerate.cpu_offload)."""
    found: list[tuple[torch.nn.Module, torch.device, bool]] = []
    inside: set[torch.nn.Module] = set()
    for module in part.modules():
        if module in inside or getattr(module, "_hf_hook", None) is None:
            continue
        loading = next(_loading(module), None)
        if loading is not None:
            found.append((module, torch.device(loading.execution_device), bool(loading.offload_buffers)))
            inside |= set(module.modules())
    return found


def _loading(root: torch.nn.Module) -> Iterator[Any]:
    """The hooks that load weights on call, the module's own and those beneath it."""
    hooks = (inner for _, hook in hooks_of(root) for inner in _unpacked(hook))
    return (hook for hook in hooks if getattr(hook, "offload", False) is True)


def stream(part: torch.nn.Module, device: torch.device, *, buffers: bool) -> None:
    """From now on each module of the network loads its weights on call (pipeline_utils.py enable_sequential_cpu_offload)."""
    from accelerate import cpu_offload

    cpu_offload(part, device, offload_buffers=buffers)


def tie_again(root: torch.nn.Module) -> None:
    """Accelerate gives back a parameter for each place (hooks.py detach_hook); places that share its memory share it again."""
    seen: dict[Any, torch.nn.Parameter] = {}
    for module in root.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.numel() and not parameter.is_meta:
                key = (parameter.data_ptr(), parameter.shape, parameter.stride())
                module._parameters[name] = seen.setdefault(key, parameter)


def waits_on_disk(part: torch.nn.Module) -> bool:
    """Whether weights are in files: of group offload, or of accelerate (utils/offload.py OffloadedWeightsLoader.index)."""
    if getattr(group_config(part), "offload_to_disk_path", None) is not None:
        return True
    maps = (hook.weights_map for hook in _loading(part))
    return any(getattr(getattr(weights, "dataset", weights), "index", None) for weights in maps)


def offload_by_hand(part: torch.nn.Module, device: torch.device) -> Any:
    """The network moves in when it is called, and out when `offload()` of what is returned says so."""
    from accelerate import cpu_offload_with_hook

    return cpu_offload_with_hook(part, device)[1]


def sent(values: Any, device: torch.device) -> Any:
    """Nested arguments or results with their tensors on the device; the containers keep their class."""
    from accelerate.utils import send_to_device

    return send_to_device(values, device)


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


def is_adapted(module: torch.nn.Module) -> bool:
    """Whether the module is a layer with LoRA weights (peft/tuners/tuners_utils.py BaseTunerLayer.merged_adapters)."""
    return hasattr(module, "merged_adapters") and hasattr(module, "unmerge")


def compiled(pipe: Any) -> list[str]:
    """The networks that `torch.compile` wraps, or that have a compiled module inside."""
    wrapped = {name for name, part in pipe.components.items() if hasattr(part, "_orig_mod")}
    parts = networks(pipe).items()
    return [name for name, part in parts if name in wrapped or any(is_compiled(module) for module in part.modules())]


def uses_weight_norm(part: torch.nn.Module) -> bool:
    """Weight norm makes a weight of two at each call; a weight that was emptied cannot be made (torch/nn/utils/weight_norm.py,
    torch/nn/utils/parametrizations.py)."""
    return any(hasattr(m, "weight_g") or hasattr(m, "parametrizations") for m in part.modules())


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether `module.compile()` was called (torch/nn/modules/module.py `_compiled_call_impl`)."""
    return getattr(module, "_compiled_call_impl", None) is not None


def forget_compiled(module: torch.nn.Module) -> None:
    """The module runs as Python again."""
    module.__dict__.pop("_compiled_call_impl", None)


def has_triton() -> bool:
    """Whether inductor finds Triton."""
    return find_spec("triton") is not None


def unet_output(sample: torch.Tensor) -> Any:
    """What a UNet returns with `return_dict=True`."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    return UNet2DConditionOutput(sample=sample)


def backend_names() -> tuple[str, ...]:
    """The backends that diffusers' attention dispatcher knows."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    return tuple(member.value for member in AttentionBackendName)


def backend_ready(name: str) -> Any:
    """A backend as the dispatcher's processors hold it, its kernel fetched where it comes from a hub."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _maybe_download_kernel_for_backend

    backend = AttentionBackendName(name)
    _maybe_download_kernel_for_backend(backend)
    return backend


def backend_missing(name: str) -> str:
    """What is missing for a backend of the dispatcher: the package, or a newer version; empty if nothing is."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _check_attention_backend_requirements

    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except RuntimeError as error:
        return str(error).rstrip(".")
    return ""


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
