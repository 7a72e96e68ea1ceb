"""One call of one model, traced and put away: all that plans for other cards need. The arrays of its traces lie beside it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from autotune.records.base import Record
from autotune.records.estimate import PhaseName
from autotune.records.model import DenoiserFacts, Model
from autotune.records.trace import Attention
from autotune.records.workload import Workload

__all__ = ["KEPT_VERSION", "Frame", "KeptCall", "KeptSegment", "KeptTrace", "Offer", "Refused"]

KEPT_VERSION = 2
Values = dict[str, Any]
"""Values of levers as a plan's JSON has them."""


class Offer(Record):
    """What the levers offer on cards of one kind. Texts have `{card}` where a card's name belongs."""

    values: dict[str, tuple[Any, ...]]
    reasons: dict[str, str]
    denoisers: dict[str, DenoiserFacts]
    named: tuple[Any, ...] = ()
    """Precisions that are not known to give right images there."""
    caution: str = ""


class Refused(Record):
    """Why a value has no trace."""

    lever: str
    value: Any
    why: str


class KeptSegment(Record):
    """A segment but for its arrays."""

    component: str
    method: str
    phase: PhaseName
    turn: int
    events: int = Field(ge=0)
    """How many of the arrays' rows are its own."""
    ops: int = Field(ge=0)
    attentions: tuple[Attention, ...]
    modules: int = Field(ge=0)
    """Place among the lists of module paths."""
    weights: dict[str, int]


class Frame(Record):
    """What traces of one precision have in common."""

    weights: dict[str, int]
    resident_buffers: dict[str, int]
    blocks: dict[str, int]
    tensors: dict[str, tuple[int, ...]]
    denoiser_calls: int
    untraced: dict[str, str]


class KeptTrace(Record):
    """One way in which the call runs."""

    execution: Values
    frame: int = Field(ge=0)
    segments: tuple[int, ...]
    """Places among the segments."""


class KeptCall(Record):
    """The call."""

    kept_version: Literal[2] = 2
    key: str
    """Under which it was put away: a file that was renamed is another's."""
    versions: dict[str, str] = Field(min_length=1)
    """Of the libraries whose code was traced."""
    model: Model
    workload: Workload
    """With the size that is really computed."""
    found: Values
    precise: Values
    """The same with the precision of each network."""
    refused: tuple[Refused, ...]
    tried: tuple[Values, ...]
    """Executions that were tried, those that do not run included."""
    offers: dict[str, Offer]
    """By kind of card."""
    frames: tuple[Frame, ...]
    modules: tuple[tuple[str, ...], ...]
    segments: tuple[KeptSegment, ...]
    traces: tuple[KeptTrace, ...]
