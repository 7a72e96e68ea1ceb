"""The arguments of a question that are not the usual ones, as `optimize` takes them: what an answer tells one to type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from autotune.records.workload import Workload

if TYPE_CHECKING:
    from autotune.flow.question import Question

__all__ = ["asked", "call_of"]

_REPEATED = ("max_vram", "max_ram", "workload", "quality", "objective", "calls", "keep", "forbid", "allow", "undo")
_PLAIN = (str, int, float, list, tuple, dict)
_ARGUMENTS = {"batch": "num_images_per_prompt", "height": "height", "width": "width", "frames": "num_frames",
              "steps": "num_inference_steps"}  # fmt: skip
_ONE = ("num_images_per_prompt", 1)


def asked(question: Question) -> dict[str, Any]:
    """By name, caps first; what cannot be written down in a line, such as an example's images, is left out."""
    usual = {field.name: field.default for field in fields(question)}
    given = {name: getattr(question, name) for name in _REPEATED}
    if given["workload"] is not None:
        several = given["workload"] if isinstance(given["workload"], list | tuple) else [given["workload"]]
        calls = [call_of(call) for call in several]
        given["workload"] = (calls if len(calls) > 1 else calls[0] or None) if calls else None
    given["keep"] = dict(given["keep"] or {}) or None
    given = {name: list(value) if isinstance(value, set | frozenset) else value for name, value in given.items()}
    return {name: value for name, value in given.items() if value != usual[name] and isinstance(value, _PLAIN)}


def call_of(workload: Workload | Mapping[str, Any]) -> dict[str, Any]:
    """The call's own arguments: those that say something, and that are words or numbers.

    >>> call_of(Workload(width=768, steps=20))
    {'width': 768, 'num_inference_steps': 20}
    """
    if isinstance(workload, Workload):
        told = {argument: getattr(workload, field) for field, argument in _ARGUMENTS.items()}
        said = {**told, **workload.arguments}
        if workload.guidance is False:
            said["guidance_scale"] = 1.0
        return {name: value for name, value in said.items() if value is not None and (name, value) != _ONE}
    return {name: value for name, value in workload.items() if isinstance(value, str | int | float | bool)}
