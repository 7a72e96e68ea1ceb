"""Writes the generated parts of README.md and docs/: `python -m benchmarks.readme`, or `--check` to fail where they are stale.

A part stands between `<!-- name:start -->` and `<!-- name:end -->` in the document that `PARTS` names. `parts.py` makes most of
them: from the levers' own summaries, the options of the command line, what commands print, and the newest results.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from benchmarks import parts
from benchmarks.claims import claims_table
from benchmarks.guide import guide_tables

__all__ = ["PARTS", "ROOT", "Part", "documents", "filled", "made", "stale", "text_of"]

ROOT = parts.ROOT


class Part(NamedTuple):
    """A generated part: where it stands, and what makes it."""

    document: str
    """Its path from the root of the checkout."""
    make: Callable[[], str]


PARTS: dict[str, Part] = {
    "plan": Part("README.md", parts.first_result),
    "known": Part("README.md", parts.known_in_short),
    "cards": Part("docs/my-card-and-my-model.md", parts.cards_listed),
    "models": Part("docs/my-card-and-my-model.md", parts.models_listed),
    "options": Part("docs/command-line.md", parts.option_tables),
    "refusal": Part("docs/command-line.md", parts.refusal),
    "levers": Part("docs/levers.md", parts.lever_table),
    "values": Part("docs/levers.md", parts.value_table),
    "bytes": Part("docs/how-good.md", parts.bytes_known),
    "claims": Part("docs/how-good.md", claims_table),
    "times": Part("docs/how-good.md", parts.times_known),
    "seconds": Part("docs/how-good.md", guide_tables),
    "cpu": Part("docs/how-good.md", parts.this_cpu),
    "card": Part("docs/how-good.md", parts.on_a_card),
}
"""Each part by its name in the markers."""


def documents() -> list[str]:
    """The documents that have generated parts, each once."""
    return list(dict.fromkeys(part.document for part in PARTS.values()))


def text_of(document: str) -> str:
    """A document as it is on disk."""
    return (ROOT / document).read_text(encoding="utf-8")


@cache
def made(name: str) -> str:
    """What that part should say, made once in a process."""
    return PARTS[name].make()


def filled(text: str, name: str) -> str:
    """The text with that part made anew.

    Raises:
        ValueError: the part is not there once and only once.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    text, found = pattern.subn(lambda _: f"{start}\n{made(name)}\n{end}", text)
    if found != 1:
        raise ValueError(f"{PARTS[name].document} has {found} parts {start} ... {end}; it should have one")
    return text


def stale(document: str, text: str) -> list[str]:
    """The names of that document's parts that would come out otherwise now."""
    return [name for name, part in PARTS.items() if part.document == document and filled(text, name) != text]


def main() -> int:
    """Writes or checks the documents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a part is stale")
    check = parser.parse_args().check
    found = {document: old for document in documents() if (old := stale(document, text_of(document)))}
    for document, old in found.items():
        if check:
            print(f"{document} is stale in {', '.join(old)}; run `python -m benchmarks.readme`")
            continue
        text = text_of(document)
        for name in old:
            text = filled(text, name)
        (ROOT / document).write_text(text, encoding="utf-8")
        print(f"wrote {', '.join(old)} in {document}")
    return int(check and bool(found))


if __name__ == "__main__":
    sys.exit(main())
