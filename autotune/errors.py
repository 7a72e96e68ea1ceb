"""What can go wrong, as eight classes. Every message says what was asked, what was found, and the nearest thing that works.

AutotuneError
├── BadSizeError          a size that cannot be read ("4Gb", "-1GB")
├── DoesNotFitError       no plan stays under the cap
├── UnknownGpuError       a card the catalogue does not hold, or holds several times
├── NoAcceleratorError    a device was asked for that is not here
├── PipelineError         an object we cannot plan for, or a model that cannot be found or read
├── WorkloadError         call arguments the pipeline does not take, or inputs that cannot be made up
└── PlanError             a plan or option that this pipeline, card or version cannot take
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "AutotuneError",
    "BadSizeError",
    "DoesNotFitError",
    "NoAcceleratorError",
    "PipelineError",
    "PlanError",
    "UnknownGpuError",
    "WorkloadError",
    "nearest",
    "one_of",
]


class AutotuneError(Exception):
    """Base of every error that autotune raises on purpose. `nearest` holds what could be written instead, for programs."""

    def __init__(self, *words: object, nearest: Iterable[str] = ()) -> None:
        super().__init__(*words)
        self.nearest = tuple(nearest) or _named_in(str(self))


class BadSizeError(AutotuneError, ValueError):
    """A size such as `max_vram` that cannot be read as a positive number of bytes."""


class DoesNotFitError(AutotuneError):
    """No plan stays under the cap.

    `smallest_bytes` is the smallest cap under which some plan works, `phase` the phase that needs it.
    """

    def __init__(self, message: str, *, smallest_bytes: int, phase: str, nearest: Iterable[str] = ()) -> None:
        super().__init__(message, nearest=nearest)
        self.smallest_bytes = smallest_bytes
        self.phase = phase


class UnknownGpuError(AutotuneError, LookupError):
    """A GPU name that the catalogue does not hold, or that several cards have, which are then its `choices`."""

    def __init__(self, message: str, *, choices: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.choices = choices


class NoAcceleratorError(AutotuneError, RuntimeError):
    """A device was asked for that this machine does not have or that is not supported yet."""


class PipelineError(AutotuneError, TypeError):
    """An object that cannot be planned for: no DiffusionPipeline, components missing, a model not found."""


class WorkloadError(AutotuneError, ValueError):
    """Call arguments that the pipeline does not take, or inputs that only an `example` can supply."""


class PlanError(AutotuneError, ValueError):
    """A plan, lever value or option that this pipeline, card or library version cannot take."""


def nearest(name: str, known: list[str], count: int = 3) -> str:
    """The known names closest to `name`, for the last part of a message.

    >>> nearest("hieght", ["height", "width"])
    'height'
    """
    from difflib import get_close_matches

    folded = {candidate.casefold(): candidate for candidate in known}
    matches = get_close_matches(name.casefold(), list(folded), n=count, cutoff=0.4)
    return ", ".join(folded[match] for match in matches) or ", ".join(sorted(known)[:count])


def one_of(what: str, value: object, known: tuple[str, ...]) -> None:
    """Refuses a value that is none of the known ones.

    Raises:
        PlanError: says which there are, and the nearest.

    >>> one_of("quality", "near", ("exact", "near"))
    """
    if value not in known:
        close = nearest(str(value), list(known), 1)
        raise PlanError(f"no {what} {value!r}; it is one of {', '.join(known)}; nearest: {close}", nearest=[close])


_NEAREST = re.compile(r"nearest: ([^;]+)")
_QUOTED = re.compile(r"'([^']+)'")


def _named_in(message: str) -> tuple[str, ...]:
    """The names that a message ends with, as the messages of this package are written: `nearest: a, b` or `write 'a' or 'b'`.

    >>> _named_in("no lever 'dtyp'; nearest: dtype, tf32"), _named_in("comes in two sizes; write 'A 8GB' or 'A 12GB'")
    (('dtype', 'tf32'), ('A 8GB', 'A 12GB'))
    """
    if found := _NEAREST.search(message):
        return tuple(name.strip() for name in found[1].rstrip(".").split(", "))
    return tuple(_QUOTED.findall(message.rpartition("; write ")[2])) if "; write " in message else ()
