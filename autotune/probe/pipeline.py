"""A pipeline as facts: components with roles, bytes and capabilities, and the key it is known by.

Capabilities are asked of the objects, not looked up by class name, so a pipeline nobody has seen before is read the same way.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from autotune.errors import PipelineError
from autotune.records.model import Component, Model, Role, role_named
from autotune.upstream.port import networks, port_of

__all__ = ["inspect_pipeline", "present_device", "require_pipeline"]

_INDISPENSABLE = ("denoiser", "vae")  # without a text encoder one can still pass `prompt_embeds`


def require_pipeline(pipe: Any) -> None:
    """Refuses what cannot be planned for.

    Raises:
        PipelineError: not a `DiffusionPipeline`, or required components are missing.
    """
    found = type(pipe).__name__
    if any(base.__name__ == "ModularPipeline" for base in type(pipe).__mro__):
        raise PipelineError(
            f"{found} is a modular pipeline, which is not supported yet; use the DiffusionPipeline of this model"
        )
    diffusers = sys.modules.get("diffusers")  # whose import takes seconds: who has a pipeline has imported it
    if diffusers is None or not isinstance(pipe, diffusers.DiffusionPipeline):
        raise PipelineError(
            f"expected a diffusers DiffusionPipeline, got {found}; pass the pipeline itself, for example "
            "StableDiffusionPipeline.from_pretrained(...); autotune.plan and autotune.explore also take a model's name"
        )
    port = port_of(pipe)
    missing = [
        name
        for name in port.expected
        if name not in pipe.__dict__
        or (pipe.__dict__[name] is None and name not in port.optional and role_named(name) in _INDISPENSABLE)
    ]
    if missing:
        names = ", ".join(missing)
        raise PipelineError(
            f"{found} lacks {names}; load the pipeline with all its components, or set pipe.{missing[0]}"
        )


def inspect_pipeline(pipe: Any, *, name: str | None = None, source_key: str | None = None) -> Model:
    """The facts of a pipeline.

    Raises:
        PipelineError: not a `DiffusionPipeline`, or required components are missing.
    """
    require_pipeline(pipe)
    parts = networks(pipe)
    port = port_of(pipe)
    called = getattr(pipe, "name_or_path", None)  # a `Path` where it was loaded by one
    return Model(
        name=name or str(called or type(pipe).__name__),
        pipeline_class=type(pipe).__name__,
        components=tuple(_component(part_name, part) for part_name, part in parts.items()),
        offload_sequence=port.offload_order,
        excluded_from_offload=tuple(part for part in port.stay_on_device if part in parts),
        structural_key=_structural_key(pipe, parts),
        source_key=source_key,
    )


def present_device(pipe: Any) -> str | None:
    """The card the pipeline executes on now, as torch calls it; None for a pipeline on the CPU or a name."""
    device = port_of(pipe).execution_device
    return str(device) if getattr(device, "type", None) == "cuda" else None


def _component(name: str, part: Any) -> Component:
    tensors = _parameters(part)
    buffers = dict(part.named_buffers())
    persistent = {id(buffers[key]): buffers[key] for key in part.state_dict() if key in buffers}
    bytes_by_dtype: dict[str, int] = {}
    scales = [scale for module in part.modules() for scale in _quantiser_scales(module)]
    for tensor in (*tensors.values(), *persistent.values(), *scales):
        for stored in _stored(tensor):
            dtype = str(stored.dtype).removeprefix("torch.")
            bytes_by_dtype[dtype] = bytes_by_dtype.get(dtype, 0) + stored.numel() * stored.itemsize
    return Component(
        name=name,
        role=_role(name, part),
        class_name=type(part).__name__,
        parameters=sum(tensor.numel() for tensor in tensors.values()),
        bytes_by_dtype=bytes_by_dtype,
        capabilities=tuple(sorted(_capabilities(part))),
    )


def _parameters(part: Any) -> dict[str, Any]:
    """Parameters by path, a shared one once. Sequential offload leaves an empty one in each of its places; there, what waits
    in RAM is compared."""
    from autotune.upstream.weight_hooks import waiting

    found: dict[int, tuple[str, Any]] = {}
    for path, module in part.named_modules():
        held = waiting(module)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                address = held.get(name, 0) if parameter.is_meta else 0
                found.setdefault(address or id(parameter), (f"{path}.{name}" if path else name, parameter))
    return dict(found.values())


def _stored(tensor: Any) -> Iterator[Any]:
    """The plain tensors that a parameter is made of: itself, or what a quantiser's class packs into it."""
    names = tensor.__tensor_flatten__()[0] if hasattr(tensor, "__tensor_flatten__") else ()
    if not names:
        yield tensor
    for name in names:
        yield from _stored(getattr(tensor, name))
    state = getattr(tensor, "quant_state", None)  # bitsandbytes: absmax and code book, and again those of absmax
    for holder in (state, getattr(state, "state2", None)):
        if holder is not None:
            yield from (
                value for value in vars(holder).values() if hasattr(value, "itemsize") and hasattr(value, "numel")
            )


def _quantiser_scales(module: Any) -> Iterator[Any]:
    """Row scales of bitsandbytes' int8 layers: at the weight before the first call, at the layer's state after it."""
    holders = (getattr(module, "weight", None), getattr(module, "state", None))
    found = {id(scale): scale for holder in holders for scale in [getattr(holder, "SCB", None)] if scale is not None}
    yield from found.values()


def _role(name: str, part: Any) -> Role:
    return role_named(name) or ("vae" if hasattr(part, "decode") and hasattr(part, "encode") else "other")


def _capabilities(part: Any) -> set[str]:
    from autotune.upstream import groups, internals

    asked = {
        "vae_slicing": hasattr(part, "use_slicing"),
        "vae_tiling": hasattr(part, "use_tiling"),
        "attention_processors": hasattr(part, "attn_processors"),
        "attention_slicing": hasattr(part, "set_attention_slice"),
        "quantized": bool(getattr(part, "is_quantized", False)),
        "weight_norm": internals.uses_weight_norm(part),
        "repeated_blocks": bool(internals.named_blocks(part)),
        "group_offload": groups.groupable(part),
        "group_offload_by_block": groups.groupable_by_block(part),
    }
    return {name for name, present in asked.items() if present}


def _structural_key(pipe: Any, parts: Mapping[str, Any]) -> str:
    """Hash of classes, shapes, dtypes, attention processors and the configuration that decides how they are executed.

    Of the scheduler only its order counts: the others make about as many calls as there are steps.
    """
    described = {
        name: [
            type(part).__name__,
            _configuration(part),
            sorted({type(module.processor).__name__ for module in part.modules() if hasattr(module, "processor")}),
            sorted((key, list(t.shape), str(t.dtype)) for key, t in _parameters(part).items()),
        ]
        for name, part in parts.items()
    }
    order = getattr(getattr(pipe, "scheduler", None), "order", 1)
    text = json.dumps([type(pipe).__name__, order, described], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _configuration(part: Any) -> dict[str, Any]:
    """What of the configuration changes execution. diffusers fills in every default, so the whole of it compares."""
    config = getattr(part, "config", None)
    if isinstance(config, Mapping):
        return {key: value for key, value in config.items() if not key.startswith("_")}
    names = ("num_attention_heads", "num_heads", "num_key_value_heads", "head_dim")
    return {key: getattr(config, key) for key in names if hasattr(config, key)}
