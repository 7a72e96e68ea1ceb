"""accelerate's hooks: weights that come when their module is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import MethodType
from typing import Any

import torch

from autotune.upstream.groups import group_config
from autotune.upstream.port import networks

__all__ = [
    "HOOK_ATTRIBUTES",
    "REMEMBERED",
    "brought",
    "exchange_forward",
    "forget_hook",
    "forget_hooks",
    "guards_of",
    "hang_nothing",
    "hooks_of",
    "is_hooked",
    "is_sequential",
    "offload_device",
    "offload_remembered",
    "put_hook",
    "sent",
    "stream",
    "streams_of",
    "tie_again",
    "waiting",
    "waits_on_disk",
]


def offload_device(pipe: Any) -> torch.device | None:
    """The device that accelerate's hooks execute on (pipeline_utils.py `_offload_device`)."""
    device = getattr(pipe, "_offload_device", None)
    return torch.device(device) if device is not None else None


HOOK_ATTRIBUTES = ("_hf_hook", "_diffusers_hook", "_old_forward")
"""What accelerate and diffusers hang on a module when they wrap its forward (accelerate/hooks.py add_hook_to_module;
diffusers/hooks/hooks.py HookRegistry)."""
REMEMBERED = ("_all_hooks", "_offload_device", "_offload_gpu_id")
"""What the pipeline itself remembers of accelerate's hooks (pipeline_utils.py enable_model_cpu_offload)."""


def offload_remembered(pipe: Any) -> dict[str, Any]:
    """What the pipeline itself remembers of accelerate's hooks."""
    return {name: pipe.__dict__[name] for name in REMEMBERED if name in pipe.__dict__}


def hang_nothing(pipe: Any) -> None:
    """The pipeline, a copy of another, remembers no hooks: those that it had are the other's."""
    pipe.__dict__["_all_hooks"] = []


def forget_hooks(pipe: Any, parts: Iterable[torch.nn.Module] = ()) -> None:
    """Takes accelerate's hooks off the pipeline's networks, and others, and what it remembers of them."""
    pipe.remove_all_hooks()  # those of compiled wrappers, which hand what is set on them to the network within
    for part in dict.fromkeys((*parts, *networks(pipe).values())):
        forget_hook(part)
    for attribute in REMEMBERED:
        pipe.__dict__.pop(attribute, None)


def is_sequential(part: torch.nn.Module) -> bool:
    """Whether some module of the component loads its weights on call (accelerate/hooks.py `AlignDevicesHook.offload`)."""
    hooks = (getattr(module, "_hf_hook", None) for module in part.modules())
    return any(getattr(inner, "offload", False) is True for hook in hooks for inner in _unpacked(hook))


def moves_whole(part: torch.nn.Module) -> bool:
    """Whether the network as a whole comes to the device when it is called (accelerate/hooks.py CpuOffload)."""
    from accelerate.hooks import CpuOffload

    return any(isinstance(inner, CpuOffload) for inner in _unpacked(getattr(part, "_hf_hook", None)))


def _unpacked(hook: Any) -> list[Any]:
    return list(getattr(hook, "hooks", [hook]))  # accelerate/hooks.py SequentialHook


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


def brought(part: torch.nn.Module) -> Iterator[tuple[int, str]]:
    """The slots that hooks fill at each call, whatever stands there: the identity of a table, and a name in it."""
    for module, hook in hooks_of(part):
        for inner in _unpacked(hook):
            if getattr(inner, "offload", False) is True and inner.weights_map is not None:
                for table in (module._parameters, module._buffers):
                    yield from ((id(table), name) for name in table if name in inner.weights_map)


def tie_again(root: torch.nn.Module) -> None:
    """Accelerate gives back a parameter for each place (hooks.py detach_hook); places that share its memory share it again."""
    seen: dict[Any, torch.nn.Parameter] = {}
    for module in root.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.numel() and not parameter.is_meta:
                key = (parameter.data_ptr(), parameter.shape, parameter.stride())
                module._parameters[name] = seen.setdefault(key, parameter)


def exchange_forward(module: torch.nn.Module, held: Any, other: Any) -> None:
    """Where a hook of accelerate's stands over one forward, it stands over another (accelerate/hooks.py `_old_forward`)."""
    if module.__dict__.get("_old_forward") is held:
        module.__dict__["_old_forward"] = other


def waiting(module: torch.nn.Module) -> dict[str, int]:
    """Where in RAM the module's own weights wait while sequential offload has emptied it (accelerate/hooks.py weights_map)."""
    hook = getattr(module, "_hf_hook", None)
    maps = [getattr(inner, "weights_map", None) for inner in _unpacked(hook)]
    held: Any = next((weights for weights in maps if isinstance(getattr(weights, "dataset", None), dict)), {})
    return {name: held[name].data_ptr() for name in module._parameters if name in held}


def is_hooked(module: torch.nn.Module) -> bool:
    """Whether the module has a hook of accelerate's."""
    return hasattr(module, "_hf_hook")


def waits_on_disk(part: torch.nn.Module) -> bool:
    """Whether weights are in files: of group offload, or of accelerate (utils/offload.py OffloadedWeightsLoader.index)."""
    if getattr(group_config(part), "offload_to_disk_path", None) is not None:
        return True
    maps = (hook.weights_map for hook in _loading(part))
    return any(getattr(getattr(weights, "dataset", weights), "index", None) for weights in maps)


def sent(values: Any, device: torch.device) -> Any:
    """Nested arguments or results with their tensors on the device; the containers keep their class."""
    from accelerate.utils import send_to_device

    return send_to_device(values, device)
