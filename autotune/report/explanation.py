"""What was chosen, why, and what it is expected to cost: one record, for a terminal, a notebook or a program."""

from __future__ import annotations

from typing import Any, Literal

from autotune.records.base import Record
from autotune.records.device import Device
from autotune.records.front import TRACED_NOW, Candidate
from autotune.records.host import Host
from autotune.records.plan import PLAIN, Plan
from autotune.records.workload import Workload

__all__ = ["Explanation"]


class Explanation(Record):
    """A plan in its circumstances. `str()` is text, notebooks show a table, `model_dump_json()` is for programs."""

    state: Literal["as it is", "planned", "written out", "optimised"]
    """Left alone, with a plan that was found for it, with one that the caller wrote out, or with its plan applied."""
    model: str
    """Name of the model."""
    workload: Workload
    """The call."""
    device: Device
    """Where it runs."""
    host: Host | None = None
    """The machine around the device; stated or assumed where the card is not here."""
    cap_bytes: int
    """What the process may take of the device."""
    cap_note: str = ""
    """How the cap came about, where that needs saying."""
    chosen: Candidate
    """The plan and its estimate."""
    compared: Candidate | None = None
    """What one would do without autotune."""
    advice: tuple[str, ...] = ()
    """What would buy more."""
    notes: tuple[str, ...] = ()
    """What one must know before one trusts the answer."""
    ram_cap_bytes: int | None = None
    """What may be kept in RAM; None where nothing bounds it."""
    found: Plan = PLAIN
    """The pipeline without the plan, its precisions included: what the plan leaves as found."""
    unloaded: bool = False
    """Whether the model is only named, and still to be loaded as planned."""
    reload: bool = False
    """Whether `restore` reads originals again from the files they came from, for RAM has no room for them."""
    answered_from: str = TRACED_NOW
    """Where the sizes and seconds come from."""
    asked: dict[str, Any] = {}
    """The arguments of the question that are not the usual ones: those to repeat."""

    @property
    def runs(self) -> Plan:
        """How the pipeline runs under the plan, with what the plan leaves as found."""
        return self.chosen.plan.over(self.found)

    @property
    def fits(self) -> bool:
        """Whether the plan stays under both caps, its error bar included."""
        return self.chosen.fits(self.cap_bytes, self.ram_cap_bytes)

    def __str__(self) -> str:
        from autotune.report.text import explanation_text

        return explanation_text(self)

    def _repr_html_(self) -> str:
        from autotune.report.html import explanation_html

        return explanation_html(self)
