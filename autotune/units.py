"""Sizes and times as people write them. The only place that parses or prints one.

GB is 10^9 bytes and GiB is 2^30, as in accelerate; "Gb" is refused because half the world reads it as gigabits.
"""

from __future__ import annotations

import re

from autotune.errors import BadSizeError

__all__ = ["GB", "GIB", "MB", "MIB", "both_sizes", "duration", "parse_bytes", "size"]

MB, GB = 10**6, 10**9
MIB, GIB = 2**20, 2**30

_FACTORS = {"B": 1, "KB": 10**3, "MB": MB, "GB": GB, "TB": 10**12, "KiB": 2**10, "MiB": MIB, "GiB": GIB, "TiB": 2**40}
_LARGEST = 1e6  # of any unit: more than there is, and still a whole number
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_bytes(value: str | int, *, name: str = "size") -> int:
    """Bytes of a size such as ``"4GB"``, ``"3.5 GiB"`` or a plain number of bytes.

    Raises:
        BadSizeError: not a positive size, or a unit that could be read in two ways.

    >>> parse_bytes("4GB"), parse_bytes("3.5 GiB"), parse_bytes(1024)
    (4000000000, 3758096384, 1024)
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadSizeError(f"{name}={value!r} is not a size; write for example {name}='4GB' or a number of bytes")
    if isinstance(value, int):
        if value <= 0:
            raise BadSizeError(f"{name}={value} is not a positive number of bytes; write for example {name}='4GB'")
        return value
    match = _PATTERN.fullmatch(value)
    if match is None:
        raise BadSizeError(f"{name}={value!r} is not a size; write for example {name}='4GB' or '3.7GiB'")
    number, unit = match.groups()
    if unit not in _FACTORS:
        raise BadSizeError(_unit_message(name, value, number, unit))
    result = int(min(float(number), _LARGEST) * _FACTORS[unit])
    if result <= 0:
        raise BadSizeError(f"{name}={value!r} is not a positive size; write for example {name}='4GB'")
    return result


def _unit_message(name: str, value: str, number: str, unit: str) -> str:
    if unit.endswith("b") and unit[:-1].upper() in {"", "K", "M", "G", "T", "KI", "MI", "GI", "TI"}:
        meant = f"{number}{unit[:-1].replace('i', '').upper()}B"
        return f"{name}={value!r} reads as bits; write {name}='{meant}' if you mean bytes"
    folded = {known.casefold(): known for known in _FACTORS}
    meant = folded.get(unit.casefold(), "GB")
    return f"{name}={value!r} has the unit {unit!r}, which is not one of {', '.join(_FACTORS)}; write '{number}{meant}'"


def size(value_bytes: float) -> str:
    """A size in decimal units, three digits: ``'4.00 GB'``, ``'512 MB'``.

    >>> size(3_210_000_000), size(52_000_000)
    ('3.21 GB', '52 MB')
    """
    if abs(value_bytes) >= 0.9995 * GB:
        number = value_bytes / GB
        return f"{number:.2f} GB" if number < 100 else f"{number:.0f} GB"
    if abs(value_bytes) >= MB:
        return f"{value_bytes / MB:.0f} MB"
    return f"{value_bytes / 1000:.0f} KB" if abs(value_bytes) >= 1000 else f"{value_bytes:.0f} B"


def both_sizes(value_bytes: float) -> str:
    """A size in both conventions: ``'4.00 GB (3.73 GiB)'``.

    >>> both_sizes(4_000_000_000)
    '4.00 GB (3.73 GiB)'
    """
    return f"{size(value_bytes)} ({value_bytes / GIB:.2f} GiB)"


def duration(value_s: float) -> str:
    """Seconds as a person would say them: ``'45 ms'``, ``'2.3 s'``, ``'4 min 10 s'``.

    >>> duration(0.045), duration(2.31), duration(250)
    ('45 ms', '2.3 s', '4 min 10 s')
    """
    if value_s < 0.995:
        return f"{value_s * 1000:.0f} ms" if value_s >= 0.0095 else f"{value_s * 1000:.1f} ms"
    if value_s < 99.95:
        return f"{value_s:.1f} s"
    minutes, seconds = divmod(round(value_s), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
