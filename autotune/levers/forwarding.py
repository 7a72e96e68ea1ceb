"""Putting a function of ours around a module's `forward`, and taking it off again.

The function stands in the module's own `__dict__`, where it may be copied with the module, covered by hooks that come later, or
followed by `torch.compile`. So it knows its module and not a bound `forward`: a copy of the module runs the copy's weights.
"""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch

from autotune.levers.journal import ABSENT, Journal, Slot, fill
from autotune.upstream import groups, weight_hooks

__all__ = ["Around", "wrap_forward"]


class Around(ABC):
    """A `forward` that calls the one that was there before it.

    Args:
        module: the module whose `forward` it is.
        mark: what is done, so that a trace tells the wrapped module from the plain one.
    """

    def __init__(self, module: torch.nn.Module, mark: Any) -> None:
        self.module = module
        self.before: Callable[..., Any] | None = module.__dict__.get("forward")
        self.autotune_mark = (mark, getattr(self.before, "autotune_mark", None))
        for name in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(self.forward, name):
                setattr(self, name, getattr(self.forward, name))

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        """What `inspect` looks through to: asked each time, for a copy has another."""
        return self.forward

    @property
    def forward(self) -> Callable[..., Any]:
        """The forward beneath: a function that somebody put there, or that of the module's class."""
        if self.before is not None:
            return self.before
        bound: Callable[..., Any] = type(self.module).forward.__get__(self.module)
        return bound

    @abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What runs instead."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """The same around the module's copy."""
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        for name, value in vars(self).items():
            twin.__dict__[name] = copy.deepcopy(value, memo)
        return twin


def wrap_forward(around: Around, journal: Journal) -> None:
    """From now on the module runs `around`. It goes beneath the hooks that offload adds later, which remember the `forward`
    that they find."""
    module = around.module
    slot = Slot(vars(module), "forward", vars(module).get("forward", ABSENT))

    def take_off() -> None:
        """Wherever it is held by then: by the module, or by hooks that somebody has hung over it."""
        if vars(module).get("forward") is around:
            fill(slot)
        for exchange in (groups.exchange_forward, weight_hooks.exchange_forward):
            exchange(module, around, around.forward)

    journal.change(lambda: vars(module).__setitem__("forward", around), take_off, lambda: (slot,))
