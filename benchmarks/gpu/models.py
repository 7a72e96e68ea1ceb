"""Pipelines by name with made-up weights: of the zoo in half precision, or the tiny ones as `tiny-sd`.

Memory depends on shapes and not on values, so weights need no download. Values are small enough to stay finite.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch

from autotune.errors import AutotuneError, PipelineError, nearest
from autotune.probe.host import host
from autotune.records.workload import Workload
from autotune.units import size
from autotune.upstream.port import networks
from autotune.zoo.build import build, quiet
from autotune.zoo.precisions import common
from autotune.zoo.recipes import find, names, recipes

__all__ = ["DEFAULT", "DEFAULT_ON_CPU", "Loaded", "load", "model_name", "require_room"]

DEFAULT = ("sd15", "sdxl-base-1.0", "flux1-schnell")
DEFAULT_ON_CPU = ("tiny-sd",)

_STEPS = 2
_TINY = "tiny-"
_BLOCK_VALUES = 2**16  # random numbers that are made; the rest are their copies, at the speed of memory
_LARGEST_VALUE = 0.05
_HALF_BYTES = 2  # of a value in half precision
_FREE_RAM_SHARE = 0.9


class Loaded(NamedTuple):
    """A pipeline in RAM."""

    name: str
    pipe: Any
    workload: Workload
    """Its default call with few steps."""
    weights_bytes: int


def load(name: str, *, weights: bool = True) -> Loaded:
    """The pipeline of that name, as `model_name` gives it; one of the zoo without `weights` is on the meta device.

    Raises:
        AutotuneError: it does not fit into RAM.
    """
    with quiet():
        return _tiny(name) if name.startswith(_TINY) else _of_the_zoo(name, weights=weights)


def model_name(name: str) -> str:
    """The name under which a model is known here.

    Raises:
        PipelineError: there is no such model.
    """
    known = [*names(), *(f"{_TINY}{family}" for family in _tiny_ones().PIPELINES)]
    if name in known:
        return name
    recipe = find(name)
    if recipe is None:
        raise PipelineError(f"no model {name!r} in the zoo or among the tiny ones; nearest: {nearest(name, known)}")
    return recipe.name


def require_room(wanted_bytes: int, *, why: str) -> None:
    """Refuses what would not fit into RAM.

    Raises:
        AutotuneError: says how much there is.
    """
    free_bytes = round(host().ram_available_bytes * _FREE_RAM_SHARE)
    if wanted_bytes > free_bytes:
        raise AutotuneError(f"{why} takes {size(wanted_bytes)} of RAM, and {size(free_bytes)} may be used")


def _tiny(name: str) -> Loaded:
    tiny, family = _tiny_ones(), name.removeprefix(_TINY)
    call = dict(tiny.CALLS[family])
    fields = {"height": "height", "width": "width", "num_frames": "frames", "num_inference_steps": "steps"}
    sizes = {field: call.pop(argument, None) for argument, field in fields.items()}
    workload = Workload(**sizes, arguments=call)
    pipe = tiny.PIPELINES[family]()
    return Loaded(name, pipe, workload, sum(_weights_bytes(part) for part in networks(pipe).values()))


def _tiny_ones() -> Any:
    """Their module, whose import makes the libraries talk."""
    with quiet():
        from benchmarks import tiny

        return tiny


def _of_the_zoo(name: str, *, weights: bool) -> Loaded:
    recipe = recipes()[name]
    published = common({part.dtype for part in recipe.components})
    parameters = sum(part.parameters for part in recipe.components)
    if weights:
        require_room(parameters * _HALF_BYTES, why=f"{name} with weights")
    pipe = build(recipe, dtype="bfloat16" if published == "bfloat16" else "float16")
    for part in networks(pipe).values() if weights else ():
        _give_weights(part)
    return Loaded(name, pipe, Workload(steps=_STEPS), sum(map(_weights_bytes, networks(pipe).values())))


def _weights_bytes(network: torch.nn.Module) -> int:
    return sum(tensor.nbytes for tensors in (network.parameters(), network.buffers()) for tensor in tensors)


def _give_weights(network: torch.nn.Module) -> None:
    """Puts tensors in RAM in the place of weightless ones. What was tied stays tied, unlike with `to_empty`."""
    made: dict[torch.Tensor, torch.Tensor] = {}  # by identity, as tensors are hashed
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_meta:
                if parameter not in made:
                    made[parameter] = torch.nn.Parameter(_filled(parameter), requires_grad=False)
                module._parameters[name] = made[parameter]  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = made.setdefault(buffer, torch.zeros(buffer.shape, dtype=buffer.dtype))


def _filled(like: torch.Tensor) -> torch.Tensor:
    """A tensor of that shape and type that holds the same random numbers over and over."""
    tensor = torch.empty(like.shape, dtype=like.dtype)
    values, block = tensor.view(-1), _block(like.dtype)
    whole = values.numel() // len(block) * len(block)
    values[:whole].view(-1, len(block)).copy_(block.expand(whole // len(block), -1))
    values[whole:].copy_(block[: values.numel() - whole])
    return tensor


@cache
def _block(dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(_BLOCK_VALUES).uniform_(-_LARGEST_VALUE, _LARGEST_VALUE).to(dtype)
