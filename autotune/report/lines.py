"""How a line of the answer is laid out: whole where there is room, else wrapped once at a word, least needed parts first gone.

It knows nothing of plans. Text, notebook and command line share it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

__all__ = ["Line", "Part", "columns_of", "laid_out", "refusal_rows", "wrapped"]

INDENT = 9
"""Columns of a label; what is wrapped goes on under it."""
ONE_ROW_FROM = 100
"""Columns from which a line takes one row; narrower ones may take two."""
MOST_ROWS = 6
"""Of a refusal."""
_NARROWEST = 40  # below this nobody reads tables of words

_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[KMGT]B|B|ms|s|min|h|%|x|steps|calls|images)\b|%)|(?<=\d\smin) (?=\d)")
_IN_BRACKETS = re.compile(r" \([^()]*\)")
_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z]|keep=)")
_NEVER_BROKEN = "\N{NO-BREAK SPACE}"


class Part(NamedTuple):
    """Some words of a line, with the separator before them."""

    text: str
    rank: int = 0
    """0 stays; of the others the highest goes first."""
    short: str = ""
    """What takes its place where it goes."""


class Line(NamedTuple):
    """A labelled line of parts."""

    label: str
    """Empty for a headline."""
    parts: Sequence[Part]
    right: str = ""
    """Words at the right edge of the first row."""


def laid_out(line: Line, width: int | None) -> list[str]:
    """The rows of a line: one at 100 columns and more, at most two below, no number parted from its unit.

    Args:
        line: what to lay out.
        width: columns there are; None where nobody cuts, as in a file: then all of it is one row.

    >>> line = Line("expect", [Part("7.1 GB"), Part(", 61 s"), Part(" = 2 + 28 x 1.9 + 4", rank=1), Part(" (+-20 %)")])
    >>> laid_out(line, None)
    ['expect   7.1 GB, 61 s = 2 + 28 x 1.9 + 4 (+-20 %)']
    >>> laid_out(line, 24)
    ['expect   7.1 GB, 61 s', '         (+-20 %)']
    """
    if width is None:
        return [_joined(line, max((part.rank for part in line.parts), default=0)) + f"    {line.right}".rstrip()]
    most = 1 if width >= ONE_ROW_FROM else 2
    rows: list[str] = []
    for rank in sorted({0, *(part.rank for part in line.parts)}, reverse=True):
        rows = wrapped(_joined(line, rank), width, right=line.right)
        if len(rows) <= most:
            break
    return rows


def wrapped(text: str, width: int, *, right: str = "", indent: int = INDENT) -> list[str]:
    """The text in rows of that width, broken at words; rows after the first are indented."""
    rows, free = [""], width - (len(right) + 2 if right else 0)
    for word in _BEFORE_UNIT.sub(_NEVER_BROKEN, text).split(" "):
        begun = rows[-1].strip()
        if begun and len(rows[-1]) + 1 + len(word) > free:
            rows.append(" " * indent + word)
            free = width
        else:
            rows[-1] += f" {word}" if rows[-1] else word
    rows = [row.rstrip().replace(_NEVER_BROKEN, " ") for row in rows]
    return [rows[0].ljust(width - len(right)) + right, *rows[1:]] if right else rows


def refusal_rows(message: str, width: int | None) -> list[str]:
    """What was refused and what to type instead, in at most six rows: where it is longer, what stands in brackets goes first,
    then the last sentences.

    >>> refusal_rows("no lever 'x'; nearest: tf32", None)
    ["error: no lever 'x'; nearest: tf32"]
    """
    text = f"error: {message}"
    if width is None:
        return [text]
    sentences = _SENTENCE.split(_IN_BRACKETS.sub("", text))
    shorter = (" ".join(sentences[:count]) for count in range(len(sentences), 0, -1))
    rows: list[str] = []
    for said in (text, *shorter):
        rows = wrapped(said, width, indent=len("error: "))
        if len(rows) <= MOST_ROWS:
            break
    return rows


def columns_of(environment: Mapping[str, str], terminal_columns: int | None) -> int | None:
    """Columns to write for: COLUMNS where it is set, else the terminal's; None for a file or a pipe.

    >>> columns_of({"COLUMNS": "72"}, None), columns_of({}, 120), columns_of({"COLUMNS": "?"}, None)
    (72, 120, None)
    """
    said = environment.get("COLUMNS", "")
    columns = int(said) if re.fullmatch(r"[0-9]{1,5}", said) and int(said) else terminal_columns
    return None if columns is None else max(columns, _NARROWEST)


def _joined(line: Line, rank: int) -> str:
    text = "".join(part.text if part.rank <= rank else part.short for part in line.parts)
    return f"{line.label:<{INDENT}}{text}" if line.label else text
