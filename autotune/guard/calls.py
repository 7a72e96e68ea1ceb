"""Calls beside the one that was planned for: a bigger one is told, and refused where it cannot fit by the recorded sizes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from autotune.errors import DoesNotFitError
from autotune.probe.workload import resolve_workload
from autotune.records.workload import Workload
from autotune.report.explanation import Explanation
from autotune.units import size
from autotune.upstream.port import port_of

__all__ = ["Bigger", "Calls"]

_PLAIN = (bool, int, float, str, type(None))
_MOST_KINDS = 64  # of calls whose answer is remembered: who draws sizes by chance has each looked at anew


class Bigger(NamedTuple):
    """A call that is bigger than the planned one."""

    words: str
    """In a sentence, with the least that it needs where that is known."""
    refusal: DoesNotFitError | None
    """Why it cannot run under the plan, where by the recorded sizes it needs more than the cap."""
    arguments: Mapping[str, Any]
    kind: Any
    """What calls that are as large have in common."""


class Calls:
    """Tells calls that are bigger than the planned one.

    Args:
        pipe: the pipeline; it is looked at and not kept.
        workload: the resolved call that was planned for.
        story: what was answered then, with sizes and cap; None for a plan that the caller wrote.
    """

    def __init__(self, pipe: Any, workload: Workload, story: Explanation | None = None) -> None:
        self._planned, self._story = workload, story
        self._signature = inspect.signature(port_of(pipe).call)
        self._known: dict[Any, tuple[str, DoesNotFitError | None]] = {}
        self._settled: set[Any] = set()

    def bigger(self, pipe: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bigger | None:
        """How the call is bigger than the planned one; None if it is not, or cannot be read."""
        try:
            given = dict(list(self._signature.bind(pipe, *args, **kwargs).arguments.items())[1:])
        except TypeError:  # the call says so itself
            return None
        given |= given.pop("kwargs", {})
        kind = tuple((name, _measure(value)) for name, value in given.items())
        if kind not in self._known:
            if len(self._known) >= _MOST_KINDS:
                self._known.clear()
                self._settled.clear()
            self._known[kind] = self._judge(pipe, given)
        words, refusal = self._known[kind]
        return Bigger(words, refusal, given, kind) if words else None

    def remember(self, bigger: Bigger, refusal: DoesNotFitError | None) -> None:
        """Calls of that kind are not planned for again: nothing fits, or it failed."""
        self._known[bigger.kind] = bigger.words, refusal
        self._settled.add(bigger.kind)

    def is_settled(self, bigger: Bigger) -> bool:
        """Whether planning for such calls was tried."""
        return bigger.kind in self._settled

    def _judge(self, pipe: Any, given: dict[str, Any]) -> tuple[str, DoesNotFitError | None]:
        try:
            made = resolve_workload(pipe, given)
        except Exception:  # it cannot be read: the call itself is left to say why
            return "", None
        planned = self._planned.asked  # the pipeline may make less of either
        if not planned.area or _work(made) <= _work(planned):
            return "", None
        bigger = f"this call ({made.label}) is bigger than the one that was planned ({self._planned.label})"
        if self._story is None:
            return bigger, None
        need_bytes, phase = self._need(_work(made) / _work(planned))
        cap_bytes = self._story.cap_bytes
        if need_bytes > cap_bytes:
            return bigger, DoesNotFitError(
                f"{bigger} and needs at least {size(need_bytes)} in {phase} by the recorded sizes, more than the cap of "
                f"{size(cap_bytes)}; call autotune.optimize(pipe, workload=...) with this size",
                smallest_bytes=need_bytes,
                phase=phase,
            )
        return f"{bigger}: at least {size(need_bytes)} by the recorded sizes (cap {size(cap_bytes)})", None

    def _need(self, ratio: float) -> tuple[int, str]:
        """The least that a call of so many times the pixels can need: tensors grow with it, or more than that. A decode in
        tiles or one by one need not grow, and encoding does not."""
        assert self._story is not None
        plan = self._story.runs
        parted = plan.vae_tiling or plan.vae_slicing or plan.vae_framewise
        still = {"encoding"} | ({"decoding"} if parted else set())
        needs = {
            phase.name: phase.peak_bytes + int(phase.activations_bytes * (0 if phase.name in still else ratio - 1))
            for phase in self._story.chosen.estimate.phases
        }
        largest = max(needs, key=lambda name: needs[name])
        return needs[largest], largest


def _work(workload: Workload) -> int:
    """Pixels that go through the denoiser: twice as many with guidance."""
    return workload.area * (2 if workload.guidance else 1)


def _measure(value: Any) -> Any:
    """What of an argument decides how large a call is, in a form that compares: words count by how many prompts they are."""
    if isinstance(value, str):
        return "words"
    if isinstance(value, _PLAIN):
        return value
    shape = getattr(value, "shape", None) or getattr(value, "size", None)
    if shape is not None and not callable(shape):
        return tuple(shape) if hasattr(shape, "__iter__") else shape
    if isinstance(value, list | tuple):
        return tuple(_measure(item) for item in value)
    return type(value).__name__
