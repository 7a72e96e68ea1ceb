"""A card described by hand: a few facts as its owner writes them, the rest from the nearest card of the generation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autotune.errors import BadSizeError, NoAcceleratorError, UnknownGpuError, nearest
from autotune.probe.assumed import like, most_alike
from autotune.probe.names import shown
from autotune.records.device import Device
from autotune.units import GB, parse_bytes, size

__all__ = ["EXAMPLE", "described", "fields_of"]

EXAMPLE = "gpu='8.9,16GB,RTX 4000 Ada'"

# CUDA programming guide, compute capabilities; those of Jetson and DRIVE boards apart.
_CAPABILITIES = (
    *((5, 0), (5, 2), (6, 0), (6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9)),
    *((9, 0), (10, 0), (10, 3), (12, 0), (12, 1)),
)
_JETSON = ((5, 3), (6, 2), (7, 2), (8, 7), (10, 1), (11, 0))
# More than any card has by a factor of three: the largest of 2026 have 288 GB, 8 TB/s and 188 SMs.
_MEMORY_BYTES = (GB, 1000 * GB)
_SMS = (1, 600)
_GB_PER_S = (1.0, 30_000.0)

_FIELDS = ("compute_capability", "memory", "name", "sm_count", "bandwidth")
_CAPABILITY = re.compile(r"(?:cc|compute capability)? ?(\d{1,2})\.(\d)")
_SM_NAME = re.compile(r"sm_?(\d{1,2})(\d)")
_PARTS = {
    "memory": re.compile(r"[\d.]+ ?[kmgt]i?b?"),
    "sm_count": re.compile(r"(\d+) ?sms?"),
    "bandwidth": re.compile(r"([\d.]+) ?gb/s"),
}


def fields_of(text: str) -> dict[str, Any] | None:
    """The fields of a description in one line, in any order; None for a text that describes nothing: a name.

    Raises:
        UnknownGpuError: a fact is there twice.

    >>> fields_of("16GB, 8.9, RTX 4000 Ada")
    {'memory': '16GB', 'compute_capability': '8.9', 'name': 'RTX 4000 Ada'}
    """
    parts = [part.strip() for part in re.split("[,;]", text)]
    kinds = [_kind(part) for part in parts]
    if "compute_capability" not in kinds:
        return None
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise UnknownGpuError(f"gpu={shown(text)} describes its {twice} twice; write it as in {EXAMPLE}")
    return {kind: _bare(kind, part) for kind, part in zip(kinds, parts, strict=True)}


def described(fields: Mapping[str, Any]) -> Device:
    """A card by compute capability and memory, and by name, `sm_count` and `bandwidth` (GB/s) where they are known.

    Args:
        fields: The facts. All others are those of the nearest card of the generation, which a note names.

    Raises:
        UnknownGpuError: a fact is missing, unknown, or cannot be true.
        BadSizeError: the memory is no size.
        NoAcceleratorError: a compute capability that only boards have which are not supported yet.

    >>> card = described({"compute_capability": "8.9", "memory": "16GB", "bandwidth": 288})
    >>> card.bandwidth_bytes_per_s, card.source
    (288000000000.0, 'assumed')
    """
    _check_fields(fields)
    capability = _capability(fields["compute_capability"])
    total_bytes = _memory(fields["memory"])
    sm_count = _number("sm_count", fields.get("sm_count"), _SMS)
    bandwidth = _number("bandwidth", fields.get("bandwidth"), _GB_PER_S, "GB/s")
    if sm_count is not None and sm_count != int(sm_count):
        raise _untrue("sm_count", fields["sm_count"], "a whole number")
    name = _name(fields.get("name"), capability)
    sms = None if sm_count is None else int(sm_count)
    model = most_alike(name, total_bytes, capability, sms)
    facts = {
        "name": name,
        "total_bytes": total_bytes,
        "compute_capability": capability,
        "sm_count": sms or model.facts.sm_count,
        **({} if bandwidth is None else {"bandwidth_bytes_per_s": bandwidth * GB}),
    }
    return like(model, facts, sms, said="described by hand; what was not said is taken from")


def _kind(part: str) -> str:
    plain = part.casefold()
    if _CAPABILITY.fullmatch(plain) or _SM_NAME.fullmatch(plain):
        return "compute_capability"
    return next((kind for kind, pattern in _PARTS.items() if pattern.fullmatch(plain)), "name")


def _bare(kind: str, part: str) -> str:
    """The fact without the word that told it: "48" of "48 SMs"."""
    found = _PARTS[kind].fullmatch(part.casefold()) if kind in _PARTS else None
    return found[1] if found and found.re.groups else part


def _check_fields(fields: Mapping[str, Any]) -> None:
    for field in fields:
        if field not in _FIELDS:
            close = nearest(str(field)[:60], list(_FIELDS), 1)
            raise UnknownGpuError(f"a card is not described by {shown(field)}; nearest: {close}")
    missing = [field for field in _FIELDS[:2] if fields.get(field) is None]
    if missing:
        raise UnknownGpuError(
            f"a card described by hand needs its {' and its '.join(missing).replace('_', ' ')}; write it as in {EXAMPLE}"
        )


def _capability(written: object) -> tuple[int, int]:
    if isinstance(written, tuple | list) and len(written) == 2:
        written = f"{written[0]}.{written[1]}"
    elif isinstance(written, int | float) and 0 < written < 100:
        written = str(float(written))
    plain = written.strip().casefold() if isinstance(written, str) else ""
    found = _CAPABILITY.fullmatch(plain) or _SM_NAME.fullmatch(plain)
    capability = (int(found[1]), int(found[2])) if found else None
    if capability in _JETSON:
        raise NoAcceleratorError(
            f"compute_capability={shown(written)} is that of NVIDIA Jetson and DRIVE boards, which are not supported yet"
        )
    if capability is None or capability not in _CAPABILITIES:
        there = ", ".join(f"{major}.{minor}" for major, minor in _CAPABILITIES)
        raise UnknownGpuError(f"compute_capability={shown(written)} is not one that torch runs on; there are {there}")
    return capability


def _memory(written: Any) -> int:
    total_bytes = parse_bytes(written, name="memory")
    low, high = _MEMORY_BYTES
    if not low <= total_bytes <= high:
        raise BadSizeError(
            f"memory={shown(written)} is not the memory of a card; cards have {size(low)} to {size(high)}"
        )
    return total_bytes


def _number(field: str, written: object, within: tuple[float, float], unit: str = "") -> float | None:
    """A positive number, also as text; None where nothing was said."""
    if written is None:
        return None
    allowed = f"a number from {within[0]:g} to {within[1]:g} {unit}".rstrip()
    if isinstance(written, bool) or not isinstance(written, int | float | str):
        raise _untrue(field, written, allowed)
    try:
        number = float(written)
    except (ValueError, OverflowError):
        raise _untrue(field, written, allowed) from None
    if not within[0] <= number <= within[1]:  # NaN neither
        raise _untrue(field, written, allowed)
    return number


def _untrue(field: str, written: object, allowed: str) -> UnknownGpuError:
    return UnknownGpuError(f"{field}={shown(written)} is not valid for a card; write {allowed}")


def _name(written: object, capability: tuple[int, int]) -> str:
    if written is None or written == "":
        return f"card of compute capability {capability[0]}.{capability[1]}"
    if not isinstance(written, str) or not written.isprintable() or not written.strip() or len(written) > 100:
        raise _untrue("name", written, "a name of at most 100 characters")
    return " ".join(written.split())
