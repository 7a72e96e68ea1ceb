"""A zoo pipeline with a published record's settings, made by diffusers' own calls. It has no weights and is thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autotune.errors import PipelineError
from autotune.trace.weights import tensor_bytes
from autotune.units import GIB
from autotune.zoo.build import build, component, quiet
from autotune.zoo.recipes import recipes
from benchmarks.eras import as_of

if TYPE_CHECKING:
    from benchmarks.cases import Case

__all__ = ["prepared"]


def prepared(case: Case) -> Any:
    """The zoo pipeline with the case's settings, by diffusers' own calls."""
    import diffusers

    recipe = recipes()[case.recipe]
    pipe: Any = build(recipe, dtype=case.dtype)  # type: ignore[arg-type]
    with quiet():
        if type(pipe).__name__ != case.pipeline:
            pipe = _as(getattr(diffusers, case.pipeline), pipe)
        if case.vae:
            pipe.vae = component(recipes()[case.vae], "vae", dtype=case.dtype)  # type: ignore[arg-type]
        if not case.safety_checker and getattr(pipe, "safety_checker", None) is not None:
            pipe.safety_checker = None
        as_of(pipe, version=case.diffusers, attention=case.attention, autocast=case.autocast)
        _set(pipe, case)
    if case.resident_gib is not None:
        _as_loaded(pipe, case.resident_gib)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _as_loaded(pipe: Any, resident_gib: float) -> None:
    """Gives T5's output projections the precision that the stated size of all weights tells.

    transformers keeps them in fp32 for float16, in some versions under a quantiser too, and `pipe.to(dtype)` undoes it.
    """
    import torch

    projections = [
        module.wo
        for name in _named(pipe, "T5")
        for module in getattr(pipe, name).modules()
        if isinstance(getattr(module, "wo", None), torch.nn.Linear)
    ]
    compute = next((p.dtype for p in pipe.vae.parameters()), torch.float32)

    def distance(dtype: torch.dtype) -> float:
        for projection in projections:
            projection.to(dtype)
        parts = (part for part in pipe.components.values() if isinstance(part, torch.nn.Module))
        return abs(
            sum(sum(weights) for part in parts for weights in tensor_bytes(part, "").values()) / GIB - resident_gib
        )

    if projections:
        nearest = min((compute, torch.float32), key=distance)
        distance(nearest)


def _set(pipe: Any, case: Case) -> None:
    import torch

    if case.vae_slicing:
        pipe.vae.enable_slicing()
    if case.vae_tiling:
        pipe.vae.enable_tiling()
    for name in ("unet", "vae", "controlnet"):
        if name in case.channels_last and hasattr(pipe, name):
            getattr(pipe, name).to(memory_format=torch.channels_last)
    if case.fused_qkv:
        (pipe if hasattr(pipe, "fuse_qkv_projections") else pipe.transformer).fuse_qkv_projections()
    if case.quantization:
        from autotune.trace.quantized import quantized

        for part, scheme in case.quantization:
            for name in _named(pipe, part):
                quantized(getattr(pipe, name), scheme, getattr(torch, case.dtype))


def _named(pipe: Any, part: str) -> list[str]:
    """The components that are meant by "denoiser", "T5", "TE" or, of several text encoders, "TE2"."""
    encoders = [name for name in pipe.components if name.startswith("text_encoder")]
    if part == "T5":
        return [name for name in encoders if type(getattr(pipe, name)).__name__.startswith("T5")]
    if part.startswith("TE"):
        meant = {"TE": encoders, "TE1": ["text_encoder"]}.get(part, [part.replace("TE", "text_encoder_")])
        return [name for name in meant if getattr(pipe, name, None) is not None]
    return ["transformer" if hasattr(pipe, "transformer") else "unet"]


def _as(cls: Any, pipe: Any) -> Any:
    """Another pipeline around the same components, as `from_pipe` makes it."""
    expected, _ = cls._get_signature_keys(cls)
    parts = {name: part for name, part in pipe.components.items() if name in expected}
    absent = sorted(expected - parts.keys() - set(cls._optional_components))
    if absent:
        raise PipelineError(f"{cls.__name__} wants {', '.join(absent)}, which {type(pipe).__name__} does not have")
    return cls(**(dict.fromkeys(expected) | parts))
