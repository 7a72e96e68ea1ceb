"""Putting a function of ours around a module's `forward`, and taking it off again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import torch

from autotune.levers.base import Undo

__all__ = ["wrap_forward"]

_ABSENT = object()


def wrap_forward(module: torch.nn.Module, around: Callable[..., Any], *, mark: Hashable) -> Undo:
    """From now on the module runs `around(forward, *args, **kwargs)`.

    It goes beneath the hooks that offload adds later, which remember the `forward` they find. `mark` says what is done, so
    that a trace tells the wrapped module from the plain one.
    """
    before, forward = module.__dict__.get("forward", _ABSENT), module.forward

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        return around(forward, *args, **kwargs)

    wrapped.autotune_mark = (mark, getattr(forward, "autotune_mark", None))  # type: ignore[attr-defined]
    module.__dict__["forward"] = wrapped

    def take_off() -> None:
        if before is _ABSENT:
            module.__dict__.pop("forward", None)
        else:
            module.__dict__["forward"] = before

    return take_off
