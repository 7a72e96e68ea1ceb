"""How people write the values of levers, and what to say where one is not valid."""

from __future__ import annotations

from typing import Any

from autotune.errors import PlanError, nearest

__all__ = ["invalid", "spelled", "typed"]

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
_NEUTRAL = ("none", "as_is", "as is", "default")
_DIGITS = 6  # of a lever that counts: edges in pixels, parts, chunks


def typed(value: Any) -> str:
    """A lever's value as it is typed in Python.

    >>> from autotune.records.precision import Precision
    >>> typed(Precision("fp16")), typed("none"), typed(512)
    ("'float16'", "'none'", '512')
    """
    return repr(getattr(value, "written", value))


def spelled(name: str, value: Any) -> Any:
    """A lever's value as `Plan` has it, from the words that people use and that are printed: "on", "None", "512".

    >>> spelled("tf32", "on"), spelled("vae_tiling", "none"), spelled("vae_tiling", "512"), spelled("offload", "None")
    (True, False, 512, 'none')
    """
    if not isinstance(value, str) or name == "dtype":
        return value
    text, default = value.strip().casefold(), _default(name)
    if isinstance(default, bool):
        if text in _NEUTRAL:
            return False
        return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else _SPELLED.get(text, value)
    if text in _NEUTRAL or _SPELLED.get(text) is False:
        return default
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
    schema = _schema(name)
    known = [*KNOWN_VALUES.get(name, ()), *map(str, schema.get("enum", ()))]
    if known:
        meant = _MEANT.get(str(value)) if name == "offload" else None
        return f"there are {', '.join(known)}; nearest: {meant or nearest(str(value), known, 1)}"
    if schema.get("type") == "boolean":
        return "there are True and False"
    [numbers] = [kind for kind in schema["anyOf"] if kind["type"] == "integer"]
    least, most = numbers.get("minimum", 1), numbers.get("maximum")
    if most is None:
        return "there are False and a whole number of pixels, for example 512"
    meant = f"; nearest: {min(max(value, least), most)}" if isinstance(value, int) and value is not True else ""
    return f"there are False and whole numbers from {least} to {most}{meant}"


def _default(name: str) -> Any:
    from autotune.records.plan import Plan

    field = Plan.model_fields.get(name)
    return None if field is None else field.default


def _schema(name: str) -> dict[str, Any]:
    from autotune.records.plan import Plan

    schema: dict[str, Any] = Plan.model_json_schema()["properties"][name]
    return schema
