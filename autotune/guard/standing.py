"""What a plan stands on, and what of it is no longer so: asked before each call, in less than a millisecond.

A network that was exchanged is told from one that was altered: the first the plan can be applied to anew, the second is the
owner's business, and the plan goes on for the rest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autotune.levers.fingerprint import Fingerprint
from autotune.records.plan import Plan
from autotune.upstream.internals import is_of_transformers
from autotune.upstream.port import networks_among, port_of

__all__ = ["Change", "Standing"]

_TOLD = ("scheduler",)  # parts that are no networks and yet decide how often those are called


class Change(NamedTuple):
    """What is no longer as it was when the plan was applied."""

    component: str
    words: str
    """A clause: "unet: weights are float32 now"."""
    is_exchanged: bool
    """Whether the component is another network now."""


class Standing:
    """A pipeline's components as they are under a plan.

    Args:
        pipe: the pipeline; it is looked at and not kept.
        plan: the plan that was applied to it.
    """

    def __init__(self, pipe: Any, plan: Plan) -> None:
        self._empties = plan.offload == "sequential"
        held = vars(pipe)
        self._names = [name for name in port_of(pipe).components if name in held]
        self._parts = [held[name] for name in self._names]
        self._prints = {name: self._print(part) for name, part in networks_among(self._held()).items()}

    def _held(self) -> dict[str, Any]:
        return dict(zip(self._names, self._parts, strict=True))

    def _print(self, part: Any) -> Fingerprint:
        """Of a network of transformers no hooks count: it hangs its own when it is first asked for hidden states."""
        return Fingerprint(part, weights=not self._empties, hooks=not is_of_transformers(part))

    def changes(self, pipe: Any) -> list[Change]:
        """All of them, component by component; the first of each network's."""
        held = vars(pipe)
        now = [held.get(name) for name in self._names]
        others = {name for name, one, part in zip(self._names, now, self._parts, strict=True) if one is not part}
        found = self._exchanged(dict(zip(self._names, now, strict=True))) if others else []
        for name, seen in self._prints.items():
            words = seen.change() if name not in others else ""  # torch.compile leaves marks on what it wraps
            if words:
                found.append(Change(name, f"{name}: {words}", is_exchanged=False))
        return found

    def _exchanged(self, now: dict[str, Any]) -> list[Change]:
        before = self._held()
        was, there = networks_among(before), networks_among(now)
        found = []
        for name in self._names:
            if now[name] is before[name] or (there.get(name) is not None and there.get(name) is was.get(name)):
                continue  # wrapped by torch.compile, or unwrapped: the network is the same
            if now[name] is None:
                found.append(Change(name, f"{name} was taken away", is_exchanged=True))
            elif before[name] is None:
                found.append(Change(name, f"{name} was added", is_exchanged=True))
            elif name in there:
                found.append(Change(name, f"{name} is another {type(there[name]).__name__} now", is_exchanged=True))
            elif name in _TOLD and type(now[name]) is not type(before[name]):
                found.append(Change(name, f"{name} is {type(now[name]).__name__} now", is_exchanged=False))
        return found

    def settle(self, pipe: Any) -> None:
        """From now on the pipeline as it is now counts: what was changed has been told, or belongs to a call."""
        held = vars(pipe)
        self._parts = [held.get(name) for name in self._names]
        parts = networks_among(self._held())
        kept = {name: seen for name, seen in self._prints.items() if name in parts and seen.is_of(parts[name])}
        self._prints = {name: seen for name, seen in kept.items() if not seen.change()}
        self._prints |= {name: self._print(part) for name, part in parts.items() if name not in self._prints}
