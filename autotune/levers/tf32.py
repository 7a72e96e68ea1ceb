"""TF32: fp32 matrix products on tensor cores. Process-wide in torch, so users are counted: what was there before comes back
when the last of them is restored, or let go."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.journal import Journal

__all__ = ["Tf32"]


class Tf32(Lever):
    """Sets `torch.set_float32_matmul_precision("high")`, or "highest"; convolutions use TF32 by torch's default."""

    name = "tf32"
    summary = (
        "TF32 for fp32 matrix products",
        "up to 8x their rate on Ampere and later",
        "10-bit mantissa; process-wide",
    )

    def domain(self, subject: Subject) -> Domain:
        if not subject.device.supports_tf32:
            return Domain((None,), f"{subject.device.name} has no TF32 (compute capability 8.0 and later)")
        is_on = subject.device.is_here and self.read(subject.pipe)  # a setting of this process
        return Domain((None, not is_on), "the card has TF32 tensor cores")

    def check(self, subject: Subject, value: Any) -> None:
        if value and not subject.device.supports_tf32:
            raise PlanError(f"tf32=True cannot be applied: {self.domain(subject).reason}; what works is False")

    def read(self, pipe: Any) -> bool:
        return _is_on() if _SWITCH.found is None else _SWITCH.found  # as its owner has it

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        if _SWITCH.wanted not in {None, value}:
            raise PlanError(
                f"tf32={value} cannot be applied: it is one setting for the whole process, and another optimised pipeline "
                f"runs with tf32={not value}; call autotune.restore on that one first"
            )
        journal.change(lambda: _SWITCH.use(journal, value), lambda: _SWITCH.release(journal))


class _Switch:
    """The setting while pipelines use it, and how it was before the first of them."""

    def __init__(self) -> None:
        self._users: weakref.WeakSet[Journal] = weakref.WeakSet()
        self._put_back: Callable[[], object] | None = None
        self.found: bool | None = None
        """Whether it was on before its first user; None while nobody uses it."""
        self.wanted: bool | None = None
        """Whether its users want it on; None without any."""

    def use(self, user: Journal, on: bool) -> None:
        """Sets it for one more; who is collected without a word is a user no more."""
        if self._put_back is None:
            self._put_back, self.found, self.wanted = _as_it_is(), _is_on(), on
        self._users.add(user)
        weakref.finalize(user, self._settle).atexit = False
        _turn(on)

    def release(self, user: Journal) -> None:
        """One less."""
        self._users.discard(user)
        self._settle()

    def _settle(self) -> None:
        users = list(self._users)  # a set of weak references counts the dead until it is told of them
        if self._put_back is not None and not users:
            if _is_on() == self.wanted:  # else somebody has set something else since
                self._put_back()
            self._put_back = self.found = self.wanted = None


_SWITCH = _Switch()


def _as_it_is() -> Callable[[], object]:
    """Puts back the present setting."""
    if _old_interface_works():
        precision = torch.get_float32_matmul_precision()
        return lambda: torch.set_float32_matmul_precision(precision)
    matmul = torch.backends.cuda.matmul
    setting = matmul.fp32_precision
    return lambda: setattr(matmul, "fp32_precision", setting)


def _turn(on: bool) -> None:
    if _old_interface_works():
        torch.set_float32_matmul_precision("high" if on else "highest")
    else:
        torch.backends.cuda.matmul.fp32_precision = "tf32" if on else "ieee"


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
