"""TF32: fp32 matrix products on tensor cores. Process-wide in torch, so it is put back by `restore`."""

from __future__ import annotations

from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject, Undo

__all__ = ["Tf32"]


class Tf32(Lever):
    """Sets `torch.set_float32_matmul_precision("high")`; convolutions use TF32 by torch's default."""

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
        return torch.get_float32_matmul_precision() != "highest"

    def apply(self, subject: Subject, value: Any, *, undo: bool) -> Undo:
        before = torch.get_float32_matmul_precision()
        if value != self.read(subject.pipe):
            torch.set_float32_matmul_precision("high" if value else "highest")
        return lambda: torch.set_float32_matmul_precision(before)
