"""One real call beside what was predicted for it, and what a card's calls have taught so far."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt

from autotune.records.base import Record
from autotune.records.plan import Plan
from autotune.records.workload import Workload

__all__ = ["Measurement", "Multipliers"]

_Name = Annotated[str, Field(max_length=200)]
_Key = Annotated[str, Field(max_length=64)]
# A call of more than eleven days is none; bounds keep what a file says within what logarithms take.
_Seconds = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
_Factor = Annotated[float, Field(gt=0, le=1e3, allow_inf_nan=False)]


class Measurement(Record):
    """A call that was timed. The prediction is that of the card's base speed: nothing that was learned is in it.

    >>> from autotune.records.plan import Plan
    >>> from autotune.records.workload import Workload
    >>> call = Measurement(
    ...     card="Tesla T4", total_bytes=16 * 10**9, torch_version="2.9.0", model="sd15", workload=Workload(), plan=Plan(),
    ...     compute_s=6.0, transfer_s=2.0, call_s=9.0, speed_key="1f0c", day="2026-01-31",
    ... )
    >>> call.predicted_s
    8.0
    """

    card: _Name
    """The device's name, as in `Device`."""
    total_bytes: PositiveInt
    """All of its memory, which tells cards of one name apart."""
    torch_version: _Key
    """What ran there."""
    model: _Name
    """The model's name: a label for people."""
    workload: Workload
    """The call in numbers, without its other arguments and inputs."""
    plan: Plan
    """What the pipeline was under, without reasons."""
    compute_s: _Seconds
    """Predicted for the whole call: computing."""
    transfer_s: _Seconds
    """Predicted for the whole call: moving weights."""
    call_s: Annotated[_Seconds, Field(gt=0)]
    """Measured: the whole call, from its arguments to its result."""
    peak_reserved_bytes: NonNegativeInt | None = None
    """What torch's allocator had reserved at most since the process began, so never less than in this call; None on the CPU."""
    speed_key: _Key
    """Hash of the base speed that the prediction was made with."""
    day: date
    """When, in UTC."""

    @property
    def predicted_s(self) -> float:
        """The whole call as the base speed has it."""
        return self.compute_s + self.transfer_s


class Multipliers(Record):
    """How many times longer than its base speed says a card takes.

    >>> Multipliers(compute=1.1).moves
    1.0
    """

    compute: _Factor = 1.0
    """Factor of the seconds spent computing."""
    moves: _Factor = 1.0
    """Factor of the seconds spent moving weights, hooks included."""
    calls: NonNegativeInt = 0
    """How many calls this was learned from."""
    speed_key: _Key = ""
    """Hash of the base speed that is multiplied."""
