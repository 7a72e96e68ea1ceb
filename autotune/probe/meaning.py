"""Which card of the table a name means: one, one of several, which is never guessed, or none, with what is near."""

from __future__ import annotations

from dataclasses import replace

from autotune.errors import AutotuneError, UnknownGpuError
from autotune.probe.described import EXAMPLE
from autotune.probe.names import LONGEST, NOISE, Written, read, shown
from autotune.probe.nearby import nearby
from autotune.probe.table import Row, rows, vocabulary
from autotune.probe.unsupported import refusal

__all__ = ["full_name", "meant", "named_by_driver", "of_size", "one", "sized"]

# What older drivers leave out of a name, or put into it.
_LEFT_OUT = {"geforce", "tesla"}
# Turing and older laptops have the desktop's chip under its name, at less power.
_LAST_OF_ONE_NAME = (7, 5)


def one(written: Written, name: str) -> Row:
    """The card that a name means, where it means one."""
    known = meant(written)
    if len(name) > LONGEST or not known:
        raise _unknown(written, name)
    chosen = of_size(known, written)
    if not chosen:
        sizes = " and ".join(f"{gib} GB" for gib in sorted(written.sizes))
        there = " or ".join(repr(sized(row)) for row in known)
        raise UnknownGpuError(
            f"gpu={shown(name)} does not come with {sizes}; there is {there}, or describe it, as in {EXAMPLE}"
        )
    if len(chosen) > 1:
        sizes_only = len({row.driver_words for row in chosen}) == 1
        raise _choice(f"gpu={shown(name)} {'comes in several sizes' if sizes_only else 'names several cards'}", chosen)
    return chosen[0]


def meant(written: Written) -> list[Row]:
    """The cards of any size that a name may mean: those named wholly, else those of which it tells a part."""
    if written.unknown:
        return []
    fitting = [row for row in rows() if written.words <= row.words and written.words & row.models]
    wholly = [row for row in fitting if row.core <= written.words] or fitting
    return [row for row in wholly if written.words - NOISE <= row.driver_words] or wholly


def of_size(known: list[Row], written: Written) -> list[Row]:
    """Those that come with the sizes that were written; a rare size only where it was."""
    chosen = [row for row in known if written.sizes <= row.sizes]
    return [row for row in chosen if not row.rare] or chosen


def named_by_driver(name: str) -> tuple[list[Row], Written]:
    """The cards of any size with this NVML name; older drivers leave out the maker."""
    written = read(name, vocabulary())
    words = written.words - _LEFT_OUT
    found = [] if written.unknown else [row for row in rows() if row.driver_words - _LEFT_OUT == words - NOISE]
    return found, written


def full_name(row: Row) -> str:
    """The name that means this card and no other."""
    written = read(row.typed, vocabulary())
    return row.typed if of_size(meant(written), written) == [row] else sized(row)


def sized(row: Row) -> str:
    return row.typed if row.gib in read(row.typed, vocabulary()).sizes else f"{row.typed} {row.gib}GB"


def _choice(said: str, among: list[Row]) -> UnknownGpuError:
    choices = tuple(full_name(row) for row in among)
    *others, last = (repr(choice) for choice in choices)
    return UnknownGpuError(f"{said}; write {', '.join(others)}{' or ' if others else ''}{last}", choices=choices)


def _unknown(written: Written, name: str) -> AutotuneError:
    """Why a name means no card: not planned for, a desktop's card at less power, or not known."""
    if why := refusal(name):
        return why
    if weaker := _at_less_power(written):
        there, part = weaker
        said = f"the {part} part is an {there[0].facts.name} with less power, which takes longer"
        return _choice(f"gpu={shown(name)} is not in the catalogue: {said}", there)
    close = ", ".join(full_name(row) for row in nearby(written))
    known = f"gpu={shown(name)} is not among the {len(rows())} known cards"
    if not close:
        return UnknownGpuError(
            f"{known}; write a name such as 'NVIDIA GeForce RTX 4060', or describe it, as in {EXAMPLE}"
        )
    return UnknownGpuError(f"{known}, but may be described, as in {EXAMPLE}; nearest: {close}")


def _at_less_power(written: Written) -> tuple[list[Row], str] | None:
    """The card, in its sizes, whose chip a Max-Q or laptop part has, and how that part is called."""
    part = "Max-Q" if "maxq" in written.words else "laptop"
    rest = written.words - {"maxq", "laptop"}
    if rest == written.words:
        return None
    for words in (rest | {"laptop"}, rest):
        found = [row for row in of_size(meant(replace(written, words=words)), written) if row.core <= words]
        if len({row.driver_words for row in found}) == 1 and (
            "laptop" in words or (found[0].facts.compute_capability or (0, 0)) <= _LAST_OF_ONE_NAME
        ):
            return found, part
    return None
