"""Cards' names as people write them, read as words: glued or spaced, with or without the maker, a size anywhere.

It knows the vocabulary it is given and a few habits of writing. Which card a set of words means is the catalogue's business.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

__all__ = ["LONGEST", "NOISE", "Written", "read", "shown", "words_of"]

LONGEST = 200  # characters; no card's name has a third of that
_SHOWN = 60

# Words that tell no card from another: the maker, the form of words, who built the board.
NOISE = frozenset(
    {"nvidia", "gpu", "gpus", "graphics", "card", "edition", "generation", "with", "design", "founders", "fe", "oc"}
    | {"vram", "memory", "asus", "evga", "gigabyte", "msi", "palit", "pny", "zotac", "google"}
)
_MEANT = {"mobile": "laptop", "notebook": "laptop", "m": "laptop", "s": "super", "gen": "generation"}
_LETTERS = re.compile(r"\((?:r|tm|c)\)|[®™]")
_BREAKS = re.compile(r"[\s_\-()\[\]/,'\"]+")
_MAX_Q = re.compile(r"\bmax q\b")
_SPACED_SIZE = re.compile(r"(?<!\S)(\d{1,6}) (gib|gb|g|mib|mb)\b")
_BARE_SIZE = re.compile(r"\d{1,2}")
_SIZE = re.compile(r"(\d{1,3})(?:gib|gb|g(?![a-z]))|(\d{4,6})(?:mib|mb)")
_COUNT = re.compile(r"([2-9]|1[0-6])x|x([2-9]|1[0-6])|(dual)")


@dataclass(frozen=True)
class Written:
    """A name in its parts."""

    words: frozenset[str]
    """Those of the vocabulary."""
    sizes: frozenset[int] = frozenset()
    """Nominal GiB."""
    count: int = 1
    """How many cards: 2 of "T4 x2"."""
    unknown: tuple[str, ...] = ()
    """What is in no vocabulary."""


def read(text: str, vocabulary: Set[str]) -> Written:
    """The words, sizes and count of a name; words may be glued, and a word may be broken in two.

    >>> sorted(read("RTX-4070TiSuper 16GB", {"rtx", "4070", "ti", "super"}).words)
    ['4070', 'rtx', 'super', 'ti']
    """
    plain = _plain(text[:LONGEST])
    spaced = _tokens(_rejoined(plain.split(), vocabulary), vocabulary)
    if not spaced.unknown:
        return spaced
    glued = _tokens([plain.replace(" ", "")], vocabulary)
    return spaced if glued.unknown else glued


def words_of(text: str) -> Written:
    """The same for a name of the table, whose words stand apart and make the vocabulary.

    >>> sorted(words_of("NVIDIA A100-SXM4-40GB").words)
    ['a100', 'nvidia', 'sxm4']
    """
    words = frozenset(_plain(text).split())
    sizes = frozenset(word for word in words if _SIZE.fullmatch(word))
    return Written(words - sizes, frozenset(_gib(word) for word in sizes))


def shown(text: object) -> str:
    """What was asked, for a message: quoted, control characters escaped, shortened.

    >>> shown("RTX 3060" * 100)
    "'RTX 3060RTX 3060RTX 3060RTX 3060RTX 3060RTX 3060RTX 3060RTX ...'"
    """
    written = text if isinstance(text, str) else repr(text)
    return repr(written if len(written) <= _SHOWN else f"{written[:_SHOWN]}...")


def _plain(text: str) -> str:
    """Lower case, one space between words, sizes in one word."""
    text = _BREAKS.sub(" ", _LETTERS.sub(" ", text.casefold())).strip()
    return _SPACED_SIZE.sub(r"\1\2", _MAX_Q.sub("maxq", text))


def _rejoined(chunks: list[str], vocabulary: Set[str]) -> list[str]:
    """A name that is broken in two, in one: "l40 s", "a 2000"; a number that is left at its end is a size: "3060 12"."""
    joined: list[str] = []
    for chunk in chunks:
        if joined and joined[-1] + chunk in vocabulary:
            joined[-1] += chunk
        else:
            joined.append(chunk)
    if len(joined) > 1 and _BARE_SIZE.fullmatch(joined[-1]) and joined[-1] not in vocabulary:
        joined[-1] += "gb"
    return joined


def _tokens(chunks: list[str], vocabulary: Set[str]) -> Written:
    words: set[str] = set()
    sizes: set[int] = set()
    unknown: list[str] = []
    count = 1
    for chunk in chunks:
        tokens = _split(chunk, vocabulary)
        if tokens is None:
            unknown.append(chunk)
            continue
        for token in tokens:
            if _known(token, vocabulary):
                words.add(_MEANT.get(token, token))
            elif _SIZE.fullmatch(token):
                sizes.add(_gib(token))
            elif many := _COUNT.fullmatch(token):
                count = int(many[1] or many[2] or 2)
    return Written(frozenset(words), frozenset(sizes), count, tuple(unknown))


def _split(chunk: str, vocabulary: Set[str]) -> list[str] | None:
    """A run of letters and digits as words, sizes and counts, the longest first; None where a rest is none of them."""
    longest = max(map(len, vocabulary | NOISE))
    tokens: list[str] = []
    place = 0
    while place < len(chunk):
        ends = range(min(len(chunk), place + longest), place, -1)
        word = next((chunk[place:end] for end in ends if _known(chunk[place:end], vocabulary)), "")
        others = [found[0] for pattern in (_SIZE, _COUNT) if (found := pattern.match(chunk, place))]
        token = max(word, *others, key=len) if others else word
        if not token:
            return None
        tokens.append(token)
        place += len(token)
    return tokens


def _known(word: str, vocabulary: Set[str]) -> bool:
    return word in vocabulary or word in NOISE or word in _MEANT


def _gib(word: str) -> int:
    found = _SIZE.fullmatch(word)
    if found is None:
        raise ValueError(f"{word!r} is not a size")
    return int(found[1]) if found[1] else round(int(found[2]) / 1024)
