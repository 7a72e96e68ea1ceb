"""How people write the values of levers, and what to say where one is not valid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.errors import PlanError, nearest

__all__ = ["invalid", "kinds_of", "spelled", "typed", "typed_all"]

_SPELLED: dict[str, Any] = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
# What people write for a mode that goes by another name: `enable_model_cpu_offload` has "cpu" in it.
_MEANT = {
    "cpu": "model",
    "model_cpu": "model",
    "sequential_cpu": "sequential",
    "group": "group:block",
    "leaf": "group:leaf",
}
_AS_FOUND = ("as_is", "as is", "as_found", "as found", "default")
_DIGITS = 6  # of a lever that counts: edges in pixels, parts, chunks


def typed(value: Any) -> str:
    """A lever's value as it is typed in Python.

    >>> from autotune.records.precision import Precision
    >>> typed(Precision("fp16")), typed("none"), typed(512)
    ("'float16'", "'none'", '512')
    """
    return repr(getattr(value, "written", value))


def typed_all(values: Mapping[str, Any]) -> str:
    """Values of several levers as they are typed as arguments.

    >>> typed_all({"offload": "model", "vae_tiling": 512})
    "offload='model', vae_tiling=512"
    """
    return ", ".join(f"{name}={typed(value)}" for name, value in values.items())


def spelled(name: str, value: Any) -> Any:
    """A lever's value as `Plan` has it, from the words that people use and that are printed: "on", "None", "512".

    >>> spelled("tf32", "on"), spelled("vae_tiling", "none"), spelled("vae_tiling", "512"), spelled("offload", "None")
    (True, False, 512, 'none')
    >>> spelled("attention", "as is") is None
    True
    """
    from autotune.records.plan import OFF

    if not isinstance(value, str) or name == "dtype":
        return value
    text, off = value.strip().casefold(), OFF.get(name)
    if text in _AS_FOUND:
        return None
    if text == "none" or _SPELLED.get(text) is False:
        return off
    if off is False:
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else _SPELLED.get(text, value)
    return text


def invalid(name: str, value: Any, *, asked: str | None = None) -> PlanError:
    """The error for a value that a lever does not have: what was asked, what there is, the nearest that works.

    Args:
        name: a lever.
        value: what was given for it.
        asked: how it was given, where that was not `name=value`.

    >>> print(invalid("offload", "models"))
    offload='models' is not a valid value for this lever; there are none, model, sequential, group:block, group:leaf, \
group:block+stream, group:leaf+stream, group:leaf+stream+record_stream, group:leaf+stream+low_cpu_mem; nearest: model
    """
    shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
    return PlanError(f"{asked or f'{name}={shown}'} is not a valid value for this lever; {_what_there_is(name, value)}")


def _what_there_is(name: str, value: Any) -> str:
    from autotune.records.plan import KNOWN_VALUES

    if name == "dtype":
        return "there are fp32, fp16, bf16 and as_is, each also by component: 'fp16, vae=fp32'"
    kinds = kinds_of(name)
    known = [*KNOWN_VALUES.get(name, ()), *(word for kind in kinds for word in map(str, kind.get("enum", ())))]
    if known:
        meant = _MEANT.get(str(value)) if name == "offload" else None
        return f"there are {', '.join(known)}; nearest: {meant or nearest(str(value), known, 1)}"
    numbers = next((kind for kind in kinds if kind["type"] == "integer"), None)
    if numbers is None:
        return "there are True and False"
    least, most = numbers.get("minimum", 1), numbers.get("maximum")
    if most is None:
        return "there are False and a whole number of pixels, for example 512"
    meant = f"; nearest: {min(max(value, least), most)}" if isinstance(value, int) and value is not True else ""
    return f"there are False and whole numbers from {least} to {most}{meant}"


def kinds_of(name: str) -> list[dict[str, Any]]:
    """The kinds of value that a lever has, as JSON schema, but for None."""
    from autotune.records.plan import Plan

    schema = Plan.model_json_schema()["properties"][name]
    return [kind for kind in schema["anyOf"] if kind["type"] != "null"]
