"""The cards nearest to a name that means none: of the same model, then of the nearest number and generation."""

from __future__ import annotations

import re

from autotune.probe.names import Written
from autotune.probe.table import Row, rows

__all__ = ["nearby"]

_MODEL = re.compile(r"([a-z]*)(\d{1,4})")
_FAMILY = re.compile("geforce|nvidia|quadro|tesla|rtx|gtx")

_Model = tuple[str, int]


def nearby(written: Written, count: int = 3) -> list[Row]:
    """At most `count` cards; none for a name without a model, or of a series that the table lacks.

    >>> from autotune.probe.names import read
    >>> from autotune.probe.table import vocabulary
    >>> [row.facts.name for row in nearby(read("RTX 9090", vocabulary()), 1)]
    ['NVIDIA GeForce RTX 5090']
    """
    holding = [row for row in rows() if row.models & written.words]
    asked = _models(written.unknown) or _models(written.words)
    series = {_series(model) for model in asked}
    among = holding or [row for row in rows() if series & {_series(model) for model in _models(row.models)}]
    return sorted(among, key=lambda row: (_distance(row, asked), len(row.core ^ written.words)))[:count]


def _models(words: tuple[str, ...] | frozenset[str]) -> list[_Model]:
    """Letters and number of each word that has any: ("a", 100), ("", 3060); no GeForce has a number below 100."""
    found = [_MODEL.search(_FAMILY.sub("", word)) for word in words]
    models = [(match[1], int(match[2])) for match in found if match]
    return [(letters, number) for letters, number in models if letters or number >= 100]


def _series(model: _Model) -> tuple[str, bool]:
    """The letters, and whether the number is a GeForce's ("5090", "980") or a workstation card's ("5000", "5880")."""
    letters, number = model
    return letters, number < 1000 or number // 100 == 16 or 0 < number % 1000 < 100


def _distance(row: Row, asked: list[_Model]) -> tuple[int, int]:
    """Generations apart, then classes apart: "3060" is generation 30, class 60."""
    there = [model for model in _models(row.models) if _series(model) in {_series(other) for other in asked}]
    return min(
        (
            (abs(number // 100 - other // 100), abs(number % 100 - other % 100))
            for _, number in asked
            for _, other in there
        ),
        default=(0, 0),
    )
