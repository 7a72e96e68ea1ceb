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
]


class AutotuneError(Exception):
    """Base of every error that autotune raises on purpose."""


class BadSizeError(AutotuneError, ValueError):
    """A size such as `max_vram` that cannot be read as a positive number of bytes."""


class DoesNotFitError(AutotuneError):
    """No plan stays under the cap.

    `smallest_bytes` is the smallest cap under which some plan works, `phase` the phase that needs it.
    """

    def __init__(self, message: str, *, smallest_bytes: int, phase: str) -> None:
        super().__init__(message)
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
