"""Marks that torch, peft and transformers leave on modules, and what they do not say in public."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

__all__ = [
    "CHUNK_SIZE",
    "COMPILED",
    "SWITCHES",
    "blends_runs",
    "decode_in_runs",
    "forget_compiled",
    "has_triton",
    "is_adapted",
    "is_compiled",
    "is_of_transformers",
    "kept_in_fp32",
    "named_blocks",
    "named_in_fp32",
    "pads_runs",
    "strictly_in_fp32",
    "unet_output",
    "unhook",
    "uses_weight_norm",
    "writes",
]


def blends_runs(vae: torch.nn.Module) -> bool:
    """Whether a video VAE decodes runs of frames that it blends (autoencoder_kl_ltx.py)."""
    return hasattr(vae, "_temporal_tiled_decode")


def pads_runs(vae: torch.nn.Module) -> bool:
    """Whether its convolutions pad otherwise when it decodes runs of frames (autoencoder_kl_mochi.py)."""
    return hasattr(vae, "_enable_framewise_decoding")


def decode_in_runs(vae: Any) -> None:
    """Has such a VAE pad for runs of frames."""
    vae._enable_framewise_decoding()


def is_adapted(module: torch.nn.Module) -> bool:
    """Whether the module is a layer with LoRA weights (peft/tuners/tuners_utils.py BaseTunerLayer.merged_adapters)."""
    return hasattr(module, "merged_adapters") and hasattr(module, "unmerge")


def uses_weight_norm(part: torch.nn.Module) -> bool:
    """Weight norm makes a weight of two at each call; a weight that was emptied cannot be made (torch/nn/utils/weight_norm.py,
    torch/nn/utils/parametrizations.py)."""
    return any(hasattr(m, "weight_g") or hasattr(m, "parametrizations") for m in part.modules())


def named_blocks(part: torch.nn.Module) -> frozenset[str]:
    """Classes of the blocks that a denoiser repeats (modeling_utils.py `_repeated_blocks`); empty where it names none."""
    return frozenset(getattr(part, "_repeated_blocks", None) or ())


CHUNK_SIZE = "_chunk_size"
"""The attribute of a block whose feed-forward layer diffusers takes in chunks (attention.py set_chunk_feed_forward)."""
SWITCHES = frozenset({"processor", "s1", "s2", "b1", "b2", CHUNK_SIZE, "_chunk_dim", "_cache_config"})
"""Plain attributes that deep modules are switched by: attention processors (diffusers/models/attention_processor.py), FreeU
(unet_2d_condition.py enable_freeu), feed-forward chunks (attention.py set_chunk_feed_forward), step caches (cache_utils.py)."""
COMPILED = "_compiled_call_impl"
"""The attribute that `module.compile()` sets (torch/nn/modules/module.py)."""


def is_of_transformers(part: Any) -> bool:
    """Whether transformers made the network: it hangs hooks of its own when it likes (utils/output_capturing.py)."""
    return any(kind.__module__.startswith("transformers.") for kind in type(part).__mro__)


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether `module.compile()` was called."""
    return getattr(module, COMPILED, None) is not None


def forget_compiled(module: torch.nn.Module) -> None:
    """The module runs as Python again."""
    module.__dict__.pop(COMPILED, None)


_HOOK_TABLES = (  # torch/nn/modules/module.py Module.__init__
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


def unhook(module: torch.nn.Module, function: Any) -> None:
    """Takes a function off the module's forward, wherever it was registered."""
    keys = {key for name in _HOOK_TABLES for key, held in getattr(module, name).items() if held is function}
    for name in _HOOK_TABLES:
        for key in keys:
            getattr(module, name).pop(key, None)


def has_triton() -> bool:
    """Whether inductor finds Triton."""
    return find_spec("triton") is not None


def unet_output(sample: torch.Tensor) -> Any:
    """What a UNet returns with `return_dict=True`."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    return UNet2DConditionOutput(sample=sample)


def named_in_fp32(part: torch.nn.Module) -> frozenset[str]:
    """Name patterns of parameters that the class wants in fp32 (`_keep_in_fp32_modules` of diffusers and transformers)."""
    return frozenset(getattr(part, "_keep_in_fp32_modules", None) or ())


def strictly_in_fp32(part: torch.nn.Module) -> frozenset[str]:
    """Those that it wants so beside bfloat16 too (`_keep_in_fp32_modules_strict` of transformers)."""
    return frozenset(getattr(part, "_keep_in_fp32_modules_strict", None) or ())


def kept_in_fp32(part: torch.nn.Module, dtype: torch.dtype) -> tuple[str, ...]:
    """Name patterns of parameters that stay in fp32 when the component is lowered.

    transformers keeps `_keep_in_fp32_modules` for float16 only and `_keep_in_fp32_modules_strict` for both
    (modeling_utils.py); diffusers keeps `_keep_in_fp32_modules` for any 16-bit type (model_loading_utils.py).
    """
    weak = named_in_fp32(part)
    if type(part).__module__.startswith("transformers") and dtype != torch.float16:
        weak = frozenset()
    return (*sorted(weak), *sorted(strictly_in_fp32(part)))


def writes(tensor: torch.Tensor) -> int:
    """How often the tensor was written to in place, as `load_state_dict` does it; data that is put in its place does not count
    (torch/csrc/autograd/variable.h VariableVersion). Tensors of inference mode are not counted."""
    return 0 if tensor.is_inference() else int(tensor._version)
