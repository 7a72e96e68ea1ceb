"""The plans that no other plan beats, and the choice among them for a cap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from pydantic import Field

from autotune.errors import PlanError, one_of
from autotune.records.base import Record
from autotune.records.device import Device
from autotune.records.estimate import Estimate
from autotune.records.model import DenoiserFacts
from autotune.records.plan import LANES, PLAIN, Plan, Quality
from autotune.records.workload import Workload
from autotune.units import parse_bytes

__all__ = ["OBJECTIVES", "TRACED_NOW", "Candidate", "Front", "Objective"]

Objective = Literal["latency", "memory"]
TRACED_NOW = "traced for this question"
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


class Candidate(Record):
    """A plan and what it is expected to cost."""

    plan: Plan
    estimate: Estimate

    def fits(self, max_vram_bytes: int | None, max_ram_bytes: int | None, *, one_memory: bool = False) -> bool:
        """Whether it stays under both budgets, its error bar included; `one_memory` where card and host share theirs."""
        estimate = self.estimate
        needed_bytes = estimate.one_memory_bytes if one_memory else estimate.needed_bytes
        vram_ok = max_vram_bytes is None or needed_bytes <= max_vram_bytes
        return vram_ok and (max_ram_bytes is None or estimate.host_ram_bytes <= max_ram_bytes)

    def without_originals(self) -> Candidate:
        """The same plan for who keeps no originals in RAM."""
        ram_bytes = self.estimate.host_ram_bytes - self.estimate.undo_bytes
        estimate = self.estimate.model_copy(update={"host_ram_bytes": ram_bytes, "undo_bytes": 0})
        return self.model_copy(update={"estimate": estimate})


class Front(Record):
    """The Pareto front of one model and workload on one device: process peak, host RAM, latency, quality.

    `front["p17"]` is a candidate, iteration goes from fast to small, `best` answers any cap.
    """

    model: str
    """Name of the model, for people."""
    device: Device
    """What was planned for."""
    workload: Workload
    """The call that was planned."""
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    """From the fastest to the smallest."""
    searched: int
    """How many plans were estimated."""
    denoisers: dict[str, DenoiserFacts] = {}
    """What the trace showed of each denoiser: what a split batch must know, and nobody need trace again."""
    usual: tuple[Candidate, ...] = ()
    """What a careful user would type without autotune, in each lane: half precision and one of diffusers' documented modes."""
    named: tuple[Candidate, ...] = ()
    """Plans in a precision that is not known to give right images here: named in answers, taken only where it is fixed."""
    found: Plan = PLAIN
    """The pipeline without a plan, its precisions included: what plans leave as found."""
    caution: str = ""
    """What is known about that precision, in a clause."""
    parameters: int = 0
    """Of the whole model: what quantised weights would take."""
    planned_s: float | None = Field(default=None, exclude=True)
    """How long it took to make, wherever that was; None where nobody has said."""
    origin: str = Field(default=TRACED_NOW, exclude=True)
    """What it was made from, in words."""

    def __getitem__(self, plan_id: str) -> Candidate:
        for candidate in self.candidates:
            if candidate.plan.id == plan_id:
                return candidate
        known = ", ".join(candidate.plan.id for candidate in self.candidates)
        raise PlanError(f"no plan {plan_id!r} in this front; it holds {known}")

    def __len__(self) -> int:
        return len(self.candidates)

    def plans(self) -> Iterator[Plan]:
        """The plans, from the fastest to the smallest."""
        return (candidate.plan for candidate in self.candidates)

    def best(
        self,
        *,
        max_vram: str | int | None = None,
        max_ram: str | int | None = None,
        quality: Quality = "near",
        objective: Objective = "latency",
        calls: int | None = None,
    ) -> Candidate | None:
        """The best candidate under the caps (sizes such as ``"4GB"`` or bytes), or None where none fits.

        A VAE in tiles or runs of frames changes the image, so it is taken only where nothing else fits. `calls` is how many are
        to come (the workload's, if None): what the first takes longer is spread over them.
        """
        one_of("objective", objective, OBJECTIVES)
        lane = _rank(quality)
        mine = [candidate for candidate in self.candidates if _rank(candidate.plan.lane) <= lane]
        return self._choice(mine, max_vram, max_ram, objective, calls)

    def best_named(self, *, max_vram: str | int | None = None, max_ram: str | int | None = None) -> Candidate | None:
        """The fastest under the caps of the plans whose precision is not known to give right images here."""
        return self._choice(self.named, max_vram, max_ram, "latency", None)

    def against(
        self, *, max_vram: str | int | None = None, max_ram: str | int | None = None, quality: Quality = "near"
    ) -> Candidate | None:
        """What a careful user would type in that lane: model offload if it fits, else the fastest documented mode that does,
        else the smallest."""
        lane = _rank(quality)
        ranks = [_rank(candidate.plan.lane) for candidate in self.usual]
        best = max((rank for rank in ranks if rank <= lane), default=-1)
        mine = [candidate for candidate, rank in zip(self.usual, ranks, strict=True) if rank == best]
        vram_bytes, ram_bytes = _bytes("max_vram", max_vram), _bytes("max_ram", max_ram)
        fitting = [c for c in mine if c.fits(vram_bytes, ram_bytes, one_memory=self.device.shares_ram)]
        usual = [c for c in fitting if c.plan.offload == "model" and not c.plan.vae_tiling]
        if fitting:
            return min(usual or fitting, key=lambda candidate: candidate.estimate.latency_s)
        return min(mine, key=lambda candidate: candidate.estimate.needed_bytes, default=None)

    def _choice(
        self,
        pool: Sequence[Candidate],
        max_vram: str | int | None,
        max_ram: str | int | None,
        objective: Objective,
        calls: int | None,
    ) -> Candidate | None:
        vram_bytes, ram_bytes = _bytes("max_vram", max_vram), _bytes("max_ram", max_ram)
        fitting = [c for c in pool if c.fits(vram_bytes, ram_bytes, one_memory=self.device.shares_ram)]
        chosen = [candidate for candidate in fitting if candidate.plan.quality_rank < 2] or fitting
        if not chosen:
            return None
        if objective == "memory":
            return min(chosen, key=lambda candidate: (candidate.estimate.process_bytes, candidate.estimate.latency_s))
        return preferred(chosen, calls or self.workload.calls)

    def without_originals(self) -> Front:
        """The same front for who keeps no originals in RAM."""
        return self.model_copy(update={"candidates": tuple(c.without_originals() for c in self.candidates)})

    def ladder(self, *, quality: Quality = "near", calls: int | None = None) -> tuple[Candidate, ...]:
        """The candidates that `best` answers with as the cap falls, from the fastest to the smallest."""
        caps = sorted({candidate.estimate.needed_bytes for candidate in self.candidates}, reverse=True)
        steps = [self.best(max_vram=cap, quality=quality, calls=calls) for cap in caps]
        return tuple({step.plan.id: step for step in steps if step is not None}.values())

    def smallest(self, *, quality: Quality = "near", max_ram: str | int | None = None) -> Candidate:
        """The candidate of that lane that needs the least of the device; where none keeps `max_ram`, whatever its RAM."""
        ram_bytes = _bytes("max_ram", max_ram)
        lane = [c for c in self.candidates if _rank(c.plan.lane) <= _rank(quality)] or list(self.candidates)
        kept = [candidate for candidate in lane if candidate.fits(None, ram_bytes)] or lane
        return min(kept, key=lambda candidate: candidate.estimate.needed_bytes)

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a candidate: id, levers with what is left as found, bytes and seconds."""
        return [
            {
                "id": candidate.plan.id,
                **candidate.plan.over(self.found).values,
                "dtype": candidate.plan.over(self.found).precision.written,
                "lane": candidate.plan.lane,
                "process_bytes": candidate.estimate.process_bytes,
                "needed_bytes": candidate.estimate.needed_bytes,
                "host_ram_bytes": candidate.estimate.host_ram_bytes,
                "latency_s": candidate.estimate.latency_s,
                "setup_s": candidate.estimate.setup_s,
                "step_s": candidate.estimate.step_s,
                "peak_phase": candidate.estimate.peak_phase.name,
            }
            for candidate in self.candidates
        ]

    def to_frame(self) -> Any:
        """The rows as a `pandas.DataFrame` (the `report` extra)."""
        import pandas

        return pandas.DataFrame(self.rows())

    def to_json(self) -> str:
        """The whole front as JSON; `Front.model_validate_json` reads it back."""
        return self.model_dump_json()

    def _repr_html_(self) -> str:
        from autotune.records.html import front_html

        return front_html(self)


def _bytes(name: str, size: str | int | None) -> int | None:
    return None if size is None else parse_bytes(size, name=name)


def _rank(quality: Quality) -> int:
    """The lane's place, the most exact first."""
    one_of("quality", quality, LANES)
    return LANES.index(quality)


def preferred(pool: list[Candidate], calls: int) -> Candidate:
    """The fastest; among plans within max(1 %, 50 ms) of it the least RAM, then the least VRAM, then the simplest."""
    fastest_s = min(candidate.estimate.per_call_s(calls) for candidate in pool)
    equal = [c for c in pool if c.estimate.per_call_s(calls) - fastest_s <= max(0.01 * fastest_s, 0.05)]
    return min(
        equal,
        key=lambda c: (
            c.plan.quality_rank,
            c.estimate.host_ram_bytes,
            c.estimate.process_bytes,
            len(c.plan.changes),
        ),
    )
