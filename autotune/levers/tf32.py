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
        return _is_on() and not _SWITCH.is_used  # as its owner has it

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        if value and (_SWITCH.is_used or not _is_on()):
            journal.change(lambda: _SWITCH.use(journal), lambda: _SWITCH.release(journal))


class _Switch:
    """The setting while pipelines use it, and how it was before the first of them."""

    def __init__(self) -> None:
        self._users: weakref.WeakSet[Journal] = weakref.WeakSet()
        self._put_back: Callable[[], object] | None = None

    @property
    def is_used(self) -> bool:
        """Whether it is on because of a user."""
        return self._put_back is not None

    def use(self, user: Journal) -> None:
        """Switches it on for one more; who is collected without a word is a user no more."""
        if self._put_back is None:
            self._put_back = _as_it_is()
        self._users.add(user)
        weakref.finalize(user, self._settle).atexit = False
        _turn_on()

    def release(self, user: Journal) -> None:
        """One less."""
        self._users.discard(user)
        self._settle()

    def _settle(self) -> None:
        users = list(self._users)  # a set of weak references counts the dead until it is told of them
        if self._put_back is not None and not users:
            if _is_on():  # else somebody has set something else since
                self._put_back()
            self._put_back = None


_SWITCH = _Switch()


def _as_it_is() -> Callable[[], object]:
    """Puts back the present setting."""
    if _old_interface_works():
        precision = torch.get_float32_matmul_precision()
        return lambda: torch.set_float32_matmul_precision(precision)
    matmul = torch.backends.cuda.matmul
    setting = matmul.fp32_precision
    return lambda: setattr(matmul, "fp32_precision", setting)


def _turn_on() -> None:
    if _old_interface_works():
        torch.set_float32_matmul_precision("high")
    else:
        torch.backends.cuda.matmul.fp32_precision = "tf32"


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
