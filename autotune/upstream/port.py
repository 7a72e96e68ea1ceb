"""The pipeline port: all that is asked of a pipeline, so that nothing above asks for its class.

`ClassicPort` reads a `DiffusionPipeline`. A `ModularPipeline` would be a second implementation: see ARCHITECTURE.md.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from autotune.records.model import role_named

if TYPE_CHECKING:
    import torch

__all__ = [
    "Offloaded",
    "PipelinePort",
    "compiled",
    "denoisers",
    "excluded_from_offload",
    "networks",
    "networks_among",
    "offloaded",
    "optional_of",
    "parameters_of",
    "port_of",
    "text_encoders",
]

Offloaded = Literal["none", "model", "sequential", "group"]


class PipelinePort(ABC):
    """What is asked of a pipeline of any kind."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    @property
    @abstractmethod
    def components(self) -> Mapping[str, Any]:
        """Its parts by name: networks, scheduler, tokenizers."""

    @property
    @abstractmethod
    def call(self) -> Any:
        """The function whose signature is the call's, unbound."""

    @property
    @abstractmethod
    def execution_device(self) -> torch.device | None:
        """Where a call would run now; None where it cannot be told, as of a pipeline without weights."""

    @property
    @abstractmethod
    def offload_order(self) -> tuple[str, ...] | None:
        """Components in the order in which model offload swaps them; None where the class declares none."""

    @property
    @abstractmethod
    def stay_on_device(self) -> tuple[str, ...]:
        """Components that its offload moves to the device for good."""

    @property
    @abstractmethod
    def expected(self) -> tuple[str, ...]:
        """Components that its configuration names."""

    @property
    @abstractmethod
    def optional(self) -> frozenset[str]:
        """Those of them that may be None."""


class ClassicPort(PipelinePort):
    """A `DiffusionPipeline` (diffusers/pipelines/pipeline_utils.py)."""

    @property
    def components(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._pipe.components
        return found

    @property
    def call(self) -> Any:
        return type(self._pipe).__call__

    @property
    def execution_device(self) -> torch.device | None:
        return getattr(self._pipe, "_execution_device", None)

    @property
    def offload_order(self) -> tuple[str, ...] | None:
        order = self._pipe.model_cpu_offload_seq
        return tuple(order.split("->")) if order else None

    @property
    def stay_on_device(self) -> tuple[str, ...]:
        return tuple(self._pipe._exclude_from_cpu_offload)

    @property
    def expected(self) -> tuple[str, ...]:
        config = self._pipe.config
        return tuple(name for name in config if not name.startswith("_") and _is_component(config[name]))

    @property
    def optional(self) -> frozenset[str]:
        return optional_of(self._pipe)


def optional_of(pipeline_class: Any) -> frozenset[str]:
    """Components without which a pipeline of the class can do."""
    return frozenset(pipeline_class._optional_components)


def _is_component(value: Any) -> bool:
    """A component is written as its library and its class (model_index.json)."""
    return isinstance(value, list | tuple) and len(value) == 2


def port_of(pipe: Any) -> PipelinePort:
    """The port of a pipeline. Whether it is one that can be planned for says `probe.pipeline.require_pipeline`."""
    return ClassicPort(pipe)


def parameters_of(pipe: Any) -> dict[str, inspect.Parameter]:
    """Named arguments of the pipeline's call; `**kwargs` is not one: diffusers keeps it for deprecated names."""
    known = inspect.signature(port_of(pipe).call).parameters
    return {name: p for name, p in known.items() if name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD}


def networks(pipe: Any) -> dict[str, torch.nn.Module]:
    """The pipeline's networks by attribute name, compiled wrappers taken off."""
    return networks_among(port_of(pipe).components)


def networks_among(components: Mapping[str, Any]) -> dict[str, torch.nn.Module]:
    """The networks among some components, compiled wrappers taken off (torch/_dynamo/eval_frame.py `_orig_mod`)."""
    import torch

    parts = {name: getattr(part, "_orig_mod", part) for name, part in components.items()}
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
    """Networks that both of accelerate's offloads move to the card for good."""
    return tuple(name for name in port_of(pipe).stay_on_device if name in networks(pipe))


def compiled(pipe: Any) -> list[str]:
    """The networks that `torch.compile` wraps, or that have a compiled module inside."""
    from autotune.upstream.internals import is_compiled

    around, parts = wrapped(pipe), networks(pipe).items()
    return [name for name, part in parts if name in around or any(is_compiled(module) for module in part.modules())]


def wrapped(pipe: Any) -> list[str]:
    """The networks that are what `torch.compile(network)` returned."""
    return [name for name, part in port_of(pipe).components.items() if hasattr(part, "_orig_mod")]


def offloaded(pipe: Any) -> Offloaded:
    """How the pipeline is offloaded now."""
    from autotune.upstream.groups import group_config
    from autotune.upstream.weight_hooks import is_hooked, is_sequential

    parts = networks(pipe).values()
    if any(group_config(part) is not None for part in parts):
        return "group"
    if any(is_sequential(part) for part in parts):
        return "sequential"
    return "model" if any(map(is_hooked, parts)) else "none"
