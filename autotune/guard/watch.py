"""Timing the calls of an optimised pipeline in passing: the clock before, the clock after, and nothing else.

It decides which calls tell something about the plan. It does not know what was predicted, nor what becomes of its figures.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import torch

from autotune.probe.workload import resolve_workload
from autotune.records.device import Device
from autotune.records.workload import Workload
from autotune.upstream.port import parameters_of

__all__ = ["Watch"]

log = logging.getLogger("autotune")

_WARMING_UP = 1  # lazy loading, compiling, libraries that choose their kernels
_LEARNED_FROM = 3  # more of the same call say nothing new
_CALLBACKS = ("callback_on_step_end", "callback")  # the caller's own code would be timed too


class Watch:
    """Times the calls that one applied plan was made for: the first warms up, the next three are handed to `learn`.

    Args:
        workload: the resolved call that was planned for; calls that differ in what takes time are not timed.
        device: where the plan runs.
        learn: is given the call's seconds, and what torch's allocator had reserved at most so far, in bytes (None on the CPU).

    A failure in here is a warning, never the call's; a call that fails is passed on as it is, and is not learned from.
    """

    def __init__(self, workload: Workload, device: Device, learn: Callable[[float, int | None], None]) -> None:
        self._workload, self._device, self._learn = workload, device, learn
        self._left = _WARMING_UP + _LEARNED_FROM

    def run(self, pipe: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of `call(pipe, *args, **kwargs)`."""
        if not self._left or not self._is_planned(pipe, args, kwargs):
            return call(pipe, *args, **kwargs)
        self._finish()
        start_s = perf_counter()
        result = call(pipe, *args, **kwargs)
        self._finish()
        self._note(perf_counter() - start_s)
        return result

    def _is_planned(self, pipe: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the call is the one that was planned for. One that cannot be read is left to say so itself."""
        try:
            given = inspect.signature(pipe.__call__).bind(*args, **kwargs).arguments
            if given.get("output_type") == "latent" or any(given.get(name) is not None for name in _CALLBACKS):
                return False
            defaults = {name: parameter.default for name, parameter in parameters_of(pipe).items()}
            return _what_counts(resolve_workload(pipe, given), defaults) == _what_counts(self._workload, defaults)
        except Exception:
            return False

    def _finish(self) -> None:
        """Waits for the card: a call returns before its kernels have run."""
        if self._device.kind != "cuda" or not self._left:
            return
        try:
            torch.cuda.synchronize(self._device.torch_device)
        except Exception as error:  # the next who uses the card gets it too
            self._give_up(error)

    def _note(self, call_s: float) -> None:
        if not self._left:
            return
        self._left -= 1
        if self._left == _LEARNED_FROM:
            return
        try:
            on_card = self._device.kind == "cuda"
            self._learn(call_s, torch.cuda.max_memory_reserved(self._device.torch_device) if on_card else None)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._left = 0
        log.warning("calls of this plan are not timed any more: %s", error or type(error).__name__)


def _what_counts(workload: Workload, defaults: Mapping[str, Any]) -> Workload:
    """The workload without what takes no time: words, and arguments that say what is the default anyway."""
    kept = {
        name: value
        for name, value in workload.arguments.items()
        if "prompt" not in name and value != defaults.get(name)
    }
    return workload.key.model_copy(update={"arguments": kept, "prompt_tokens": None})
