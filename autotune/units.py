"""Sizes and times as people write them. The only place that parses or prints one.

GB is 10^9 bytes and GiB is 2^30, as in accelerate. Units are read in any case, but for one: in "4Gb" the lone small b stands
for bits in half the world, so it is refused.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from autotune.errors import BadSizeError

__all__ = ["GB", "GIB", "MB", "MIB", "Scale", "both_sizes", "duration", "parse_bytes", "size"]

MB, GB = 10**6, 10**9
MIB, GIB = 2**20, 2**30

_LETTERS = {"k": "kilo", "m": "mega", "g": "giga", "t": "tera"}
_FACTORS = {"b": 1, "byte": 1, "bytes": 1}
for _power, (_letter, _word) in enumerate(_LETTERS.items(), start=1):
    _FACTORS |= dict.fromkeys((_letter, f"{_letter}b", f"{_word}byte", f"{_word}bytes"), 1000**_power)
    _binary = f"{_word[:2]}bibyte"
    _FACTORS |= dict.fromkeys((f"{_letter}i", f"{_letter}ib", _binary, f"{_binary}s"), 1024**_power)
_UNITS = "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"

_PATTERN = re.compile(r"([0-9]{1,30}(?:[.,][0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z]{0,12})")
_THOUSANDS = re.compile(r"[0-9]{1,3},[0-9]{3}")
_MOST = 10**18  # bytes: more than any machine has, and what a float still tells apart to a kilobyte
_SURELY_BYTES = 1000  # a bare number below this is a number of gigabytes in the writer's mind


def parse_bytes(value: str | float, *, name: str = "size") -> int:
    """Bytes of a size such as ``"4GB"``, ``"3.5 GiB"``, ``"4g"`` or a plain number of bytes.

    Raises:
        BadSizeError: not a positive size, or one that could be read in two ways.

    >>> parse_bytes("4GB"), parse_bytes("3.5 gib"), parse_bytes("4e9"), parse_bytes(1024)
    (4000000000, 3758096384, 4000000000, 1024)
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadSizeError(f"{name}={value!r} is not a size; write for example {name}='4GB' or a number of bytes")
    if isinstance(value, int) and abs(value) > _MOST:  # Python refuses to write out some of these
        raise BadSizeError(f"{name} has more bytes than any machine; write for example {name}='4GB'")
    match = _PATTERN.fullmatch(str(value).strip().removeprefix("-"))
    if match is None:
        raise BadSizeError(f"{name}={_shown(value)} is not a size; write for example {name}='4GB' or '3.7GiB'")
    number, unit = match.groups()
    if _THOUSANDS.fullmatch(number):
        whole = number.replace(",", "")
        raise BadSizeError(f"{name}={value!r} can be read in two ways; write {name}='{whole}{unit}' or use a point")
    factor = _factor(name, value, number, unit)
    exact = Decimal(number.replace(",", ".")) * factor
    if exact > _MOST:
        raise BadSizeError(f"{name}={_shown(value)} is more than any machine has; write for example {name}='4GB'")
    if exact < 1 or str(value).strip().startswith("-"):
        positive = "size" if unit else "number of bytes"
        raise BadSizeError(f"{name}={_shown(value)} is not a positive {positive}; write for example {name}='4GB'")
    if not unit and exact < _SURELY_BYTES:
        meant = f"{number}GB"
        raise BadSizeError(
            f"{name}={value!r} is a number of bytes; {number} GB? Write {name}='{meant}'", nearest=[meant]
        )
    return int(exact)


def _factor(name: str, value: str | float, number: str, unit: str) -> int:
    """Bytes in one of that unit."""
    if not unit:
        return 1
    prefix, last = unit[:-1], unit[-1]
    lone_small_b = last == "b" and (not prefix or (prefix != prefix.lower() and unit.casefold() in _FACTORS))
    if lone_small_b or unit.casefold().removesuffix("s").endswith(("bit", "bp")):
        letter = unit[0].upper() if unit[0].casefold() in _LETTERS else ""
        meant = f"{number}{letter}{'iB' if letter and unit[1:2] in {'i', 'I'} else 'B'}"
        raise BadSizeError(f"{name}={value!r} reads as bits; write {name}='{meant}' if you mean bytes", nearest=[meant])
    if unit.casefold() not in _FACTORS:
        meant = f"{number}GB"
        raise BadSizeError(
            f"{name}={value!r} has the unit {unit!r}, which is not one of {_UNITS}; write '{meant}'", nearest=[meant]
        )
    return _FACTORS[unit.casefold()]


def _shown(value: str | float) -> str:
    """What was written, for a message: no more of it than a line holds."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


class Scale(NamedTuple):
    """How sizes of one magnitude are printed, so that two of them can be printed alike."""

    unit_bytes: int
    unit: str
    decimals: int

    @classmethod
    def of(cls, value_bytes: float) -> Scale:
        """Three digits at most. Units and decimals change where the printed figure would have a digit more.

        >>> Scale.of(99_994_000_000), Scale.of(99_997_000_000)
        (Scale(unit_bytes=1000000000, unit='GB', decimals=2), Scale(unit_bytes=1000000000, unit='GB', decimals=0))
        """
        count = abs(value_bytes)
        if count >= 0.9995 * GB:
            return cls(GB, "GB", 2 if count < 99.995 * GB else 0)
        if count >= 0.9995 * MB:
            return cls(MB, "MB", 0)
        return cls(1000, "KB", 0) if count >= 999.5 else cls(1, "B", 0)


def size(value_bytes: float) -> str:
    """A size in decimal units, three digits: ``'4.00 GB'``, ``'512 MB'``.

    >>> size(3_210_000_000), size(52_000_000)
    ('3.21 GB', '52 MB')
    """
    scale = Scale.of(value_bytes)
    return f"{value_bytes / scale.unit_bytes:.{scale.decimals}f} {scale.unit}"


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
