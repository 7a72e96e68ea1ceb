"""Text encoders are needed for a moment: they may leave the card once they have encoded, or never come to it.

"leave" brings each in when it is called, and a hook on the denoisers sends them back. "cpu" moves what goes in to the CPU and
what comes out to the card. Both use torch's hooks and not accelerate's: diffusers takes the first of those for the device that
the pipeline executes on (pipeline_utils.py `_execution_device`), and one on any network for model offload of them all when a
LoRA is loaded (loaders/lora_base.py `_func_optionally_disable_offloading`).
"""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject, release_cache
from autotune.levers.journal import Journal
from autotune.upstream import port, weight_hooks

__all__ = ["TextEncoders", "wait_apart"]

_CPU = torch.device("cpu")


class TextEncoders(Lever):
    """Where text encoders wait and run, apart from the other networks."""

    name = "text_encoders"
    summary = (
        "text encoders leave the card after encoding, or run on the CPU",
        "their weights are not beside the denoiser's",
        "leave: two moves a call; cpu: seconds of encoding",
    )

    def domain(self, subject: Subject) -> Domain:
        if subject.device.kind == "cpu":
            return Domain((None,), "there is no card to keep weights away from")
        if not port.text_encoders(subject.pipe):
            return Domain((None,), "the pipeline has no text encoder")
        return Domain((None, "leave", "cpu"), "text encoders are done before denoising starts")

    def check(self, subject: Subject, value: Any) -> None:
        if value != "resident" and not port.text_encoders(subject.pipe):
            raise PlanError(
                f"text_encoders={value!r} cannot be applied: the pipeline has no text encoder; what works is 'resident'"
            )

    def read(self, pipe: Any) -> str:
        return "resident"

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        if value == "resident":
            return
        device = torch.device(subject.device.torch_device)
        encoders = tuple(port.text_encoders(subject.pipe).values())
        for part in encoders:
            journal.hook(part, _Comes(device if value == "leave" else _CPU), before=True)
            if value == "cpu":
                journal.hook(part, _Sends(device), before=False)
        for part in port.denoisers(subject.pipe).values() if value == "leave" else ():
            journal.hook(part, _Leaves(encoders, device), before=True)


class _Comes:
    """Before a text encoder runs: it and what it is given come to the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, part: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if _lies(part) != self._device:
            part.to(self._device)
        return weight_hooks.sent(args, self._device), weight_hooks.sent(kwargs, self._device)


class _Sends:
    """After a text encoder has run: its result goes to the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, _: torch.nn.Module, __: Any, ___: Any, output: Any) -> Any:
        return weight_hooks.sent(output, self._device)


class _Leaves:
    """Before a denoiser runs: the text encoders go back to the CPU."""

    def __init__(self, encoders: tuple[torch.nn.Module, ...], device: torch.device) -> None:
        self._encoders, self._device = encoders, device

    def __call__(self, _: torch.nn.Module, __: Any, ___: Any) -> None:
        for part in self._encoders:
            if _lies(part) != _CPU:
                part.to(_CPU)
                release_cache(self._device)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Leaves:
        """A copy of the denoiser has no text encoders of its own, and does not send away another's."""
        return _Leaves((), self._device)


def _lies(part: torch.nn.Module) -> torch.device:
    """The device of its weights; the CPU for a network without any."""
    return next((parameter.device for parameter in part.parameters()), _CPU)


def wait_apart(subject: Subject) -> frozenset[str]:
    """The components that this lever places, so that no other may."""
    leave = subject.plan.text_encoders in {"leave", "cpu"}
    return frozenset(port.text_encoders(subject.pipe)) if leave else frozenset()
