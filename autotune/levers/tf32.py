"""TF32: fp32 matrix products on tensor cores. Process-wide in torch, so it is put back by `restore`."""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject, Undo, nothing

__all__ = ["Tf32"]


class Tf32(Lever):
    """Sets `torch.set_float32_matmul_precision("high")`; convolutions use TF32 by torch's default.

    Off means as it is: another pipeline of this process may want it on.
    """

    name = "tf32"
    summary = (
        "TF32 for fp32 matrix products",
        "up to 8x their rate on Ampere and later",
        "10-bit mantissa; process-wide",
    )

    def domain(self, subject: Subject) -> Domain:
        if not subject.device.supports_tf32:
            return Domain((False,), f"{subject.device.name} has no TF32 (compute capability 8.0 and later)")
        return Domain((False, True), "the card has TF32 tensor cores")

    def check(self, subject: Subject, value: Any) -> None:
        if value and not subject.device.supports_tf32:
            raise PlanError(f"tf32=True cannot be applied: {self.domain(subject).reason}; what works is False")

    def read(self, pipe: Any) -> bool:
        return _is_on()

    def apply(self, subject: Subject, value: Any, *, undo: bool) -> Undo:
        if not value or _is_on():
            return nothing
        if _old_interface_works():
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("high")
            return lambda: torch.set_float32_matmul_precision(before)
        matmul = torch.backends.cuda.matmul
        setting = matmul.fp32_precision
        matmul.fp32_precision = "tf32"
        return lambda: setattr(matmul, "fp32_precision", setting)


def _old_interface_works() -> bool:
    """torch refuses to read the old setting once somebody has used `fp32_precision`."""
    try:
        torch.get_float32_matmul_precision()
    except RuntimeError:
        return False
    return True


def _is_on() -> bool:
    if _old_interface_works():
        return torch.get_float32_matmul_precision() != "highest"
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")
