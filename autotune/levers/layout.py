"""Layout: weights of 2-D convolutions in channels-last order.

`model.to(memory_format=...)` raises at the first 5-D weight and may have converted half a model by then, so each `Conv2d` is
converted by itself. Values do not change; the strides of each weight are remembered.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.journal import Journal, Slot
from autotune.upstream import fakes, port

__all__ = ["ChannelsLast"]


class ChannelsLast(Lever):
    """What tensor cores want: cuDNN then makes no NHWC copies of what goes in and out of a convolution."""

    name = "channels_last"
    summary = (
        "2-D convolutions in NHWC order",
        "no layout copies on tensor cores: less memory, faster",
        "float noise; nothing without convolutions",
    )

    def touches(self, name: str, part: torch.nn.Module) -> bool:
        return bool(_convolutions(part))

    def domain(self, subject: Subject) -> Domain:
        if not any(_convolutions(part) for part in port.networks(subject.pipe).values()):
            return Domain((None,), "no network has 2-D convolutions")
        if subject.device.kind != "cuda" or (subject.device.compute_capability or (0, 0)) < (7, 0):
            return Domain((None,), f"{subject.device.name} has no tensor cores, which is what the layout is for")
        return Domain((None, True) if self.read(subject.pipe) is not True else (None,), "tensor cores want NHWC")

    def check(self, subject: Subject, value: Any) -> None:
        if value and not any(_convolutions(part) for part in port.networks(subject.pipe).values()):
            raise PlanError(
                "channels_last=True cannot be applied: no network has 2-D convolutions; what works is False"
            )

    def read(self, pipe: Any) -> bool | None:
        parts = port.networks(pipe).values()
        laid = {_is_last(module) for part in parts for module in _convolutions(part)} - {None}
        return None if len(laid) > 1 else laid == {True}

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        parts = port.networks(subject.pipe).values()
        order = torch.channels_last if value else torch.contiguous_format
        for module in (module for part in parts for module in _convolutions(part)):
            strides = tuple(module.weight.stride())
            journal.change(
                partial(_convert, module, order), partial(_put_back, module, strides), partial(_was, module, strides)
            )


def _convert(module: torch.nn.Conv2d, order: torch.memory_format) -> None:
    weight = module.weight
    strides = torch.empty(weight.shape, device="meta", memory_format=order).stride()
    if order is torch.channels_last:
        if not weight.is_contiguous(memory_format=order):
            weight.data = _laid(weight, strides)
    elif weight.stride() != strides:  # of one pixel it counts as contiguous in either order
        weight.data = _laid(weight, strides)


def _laid(weight: torch.Tensor, strides: tuple[int, ...]) -> torch.Tensor:
    """The same in another order."""
    fake = fakes.laid(weight, strides)
    if fake is not None:
        return fake
    now = weight.detach()
    return now.new_empty_strided(now.shape, strides).copy_(now)


def _is_last(module: torch.nn.Conv2d) -> bool | None:
    """Whether the weight lies in channels-last order; None where both orders are the same."""
    weight = module.weight
    if weight.dim() != 4:
        return None
    first, last = weight.is_contiguous(), weight.is_contiguous(memory_format=torch.channels_last)
    return last if first != last else None


def _was(module: torch.nn.Conv2d, strides: tuple[int, ...]) -> tuple[Slot, ...]:
    """The weight as it lay, without its numbers."""
    weight = module.weight
    laid = torch.empty_strided(weight.shape, strides, dtype=weight.dtype, device="meta")
    return (Slot(module._parameters, "weight", torch.nn.Parameter(laid, requires_grad=weight.requires_grad)),)


def _put_back(module: torch.nn.Conv2d, strides: tuple[int, ...]) -> None:
    """The layout, whatever the weight holds by now."""
    weight = module.weight
    if tuple(weight.stride()) != strides and weight.dim() == len(strides):
        weight.data = _laid(weight, strides)


def _convolutions(part: torch.nn.Module) -> list[torch.nn.Conv2d]:
    return [m for m in part.modules() if isinstance(m, torch.nn.Conv2d) and m._parameters.get("weight") is not None]
