"""Text encoders are needed for a moment: they may leave the card once they have encoded, or never come to it.

"leave" is accelerate's `cpu_offload_with_hook` on each, and a hook on the denoisers that sends them back. "cpu" moves what goes
in to the CPU and what comes out to the card; it uses torch's hooks and not accelerate's, for diffusers takes the first of
accelerate's for the device that the pipeline executes on (pipeline_utils.py `_execution_device`).
"""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject, Undo, nothing, release_cache
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
            return Domain(("resident",), "there is no card to keep weights away from")
        if not port.text_encoders(subject.pipe):
            return Domain(("resident",), "the pipeline has no text encoder")
        return Domain(("resident", "leave", "cpu"), "text encoders are done before denoising starts")

    def check(self, subject: Subject, value: Any) -> None:
        if value != "resident" and not port.text_encoders(subject.pipe):
            raise PlanError(
                f"text_encoders={value!r} cannot be applied: the pipeline has no text encoder; what works is 'resident'"
            )

    def read(self, pipe: Any) -> str:
        return "resident"

    def apply(self, subject: Subject, value: Any, *, undo: bool) -> Undo:
        if value == "resident":
            return nothing
        device = torch.device(subject.device.torch_device)
        encoders = list(port.text_encoders(subject.pipe).values())
        if value == "cpu":
            handles = [handle for part in encoders for handle in _runs_on_cpu(part, device)]
            return lambda: _remove(handles)
        hooks = [weight_hooks.offload_by_hand(part, device) for part in encoders]

        def send_away(*_: Any) -> None:
            for hook in hooks:
                if next(hook.model.parameters(), torch.empty(0)).device != _CPU:
                    hook.offload()
                    release_cache(device)

        handles = [part.register_forward_pre_hook(send_away) for part in port.denoisers(subject.pipe).values()]

        def put_back() -> None:
            _remove(handles)
            for part in encoders:
                weight_hooks.forget_hook(part)

        return put_back


def wait_apart(subject: Subject) -> frozenset[str]:
    """The components that this lever places, so that no other may."""
    return frozenset() if subject.plan.text_encoders == "resident" else frozenset(port.text_encoders(subject.pipe))


def _remove(handles: list[Any]) -> None:
    for handle in handles:
        handle.remove()


def _runs_on_cpu(part: torch.nn.Module, device: torch.device) -> list[Any]:
    """Hooks that bring arguments to the CPU and results to the device."""

    def bring(_: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return weight_hooks.sent(args, _CPU), weight_hooks.sent(kwargs, _CPU)

    def send(_: torch.nn.Module, __: Any, output: Any) -> Any:
        return weight_hooks.sent(output, device)

    return [part.register_forward_pre_hook(bring, with_kwargs=True), part.register_forward_hook(send)]
