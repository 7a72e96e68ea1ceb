"""From traces to a front: every plan of a space judged for one device. Needs neither torch nor the pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.errors import PlanError
from autotune.records.costs import Costs
from autotune.records.device import Device
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate, Front
from autotune.records.model import DenoiserFacts, Model
from autotune.records.plan import Plan
from autotune.records.precision import Precision
from autotune.records.trace import Trace
from autotune.records.values import typed
from autotune.records.workload import Workload
from autotune.search.space import Space
from autotune.search.study import Pricing, estimated, search
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.replay import Replayer

__all__ = [
    "Findings",
    "Place",
    "Refusals",
    "Traced",
    "Traces",
    "front_from",
    "largest",
    "named_space",
    "replayer_of",
    "replayers_of",
    "running",
    "worst",
]

Traces = Mapping[tuple[Any, ...], Trace]
Refusals = Mapping[tuple[str, Any], str]

# Modes of offload that diffusers' guide to memory documents as one call each.
_DOCUMENTED = ("model", "none", "group:leaf+stream", "sequential")


class Traced(NamedTuple):
    """One call of a pipeline in every way that runs."""

    workload: Workload
    """With the size that is really computed."""
    traces: Traces
    refused: Refusals
    """Why some values have none, by lever and value."""

    @property
    def steps(self) -> int:
        """Denoising steps of the call."""
        return self.workload.steps or 1


class Place(NamedTuple):
    """Where plans are to run."""

    device: Device
    settings: Settings | None = None
    """Of torch's allocator there; torch's defaults if None."""
    torch_version: str | None = None


@dataclass(frozen=True)
class Findings:
    """All that a search needs of a pipeline and its calls."""

    model: Model
    found: Plan
    """The pipeline without a plan."""
    precise: Plan
    """The same with the precision of each network."""
    undo: bool
    calls: tuple[Traced, ...]
    largest: Workload
    """Of the calls' workloads the one with the most pixels."""
    space: Space
    denoisers: dict[str, DenoiserFacts]
    named: Space | None = None
    """Plans in precisions that are not known to give right images: they are only told."""
    caution: str = ""
    """What is known of those."""


def front_from(findings: Findings, place: Place, *, progress: Callable[[int, int], None] | None = None) -> Front:
    """The front of a space on that device.

    Raises:
        PlanError: nothing in the space runs.
    """
    space = running(findings.space, findings.calls)
    replayers = replayers_of(findings, space, place)
    found = search(space, worst(replayers), _least(replayers), progress=progress)
    return Front(
        model=findings.model.name,
        device=place.device,
        workload=findings.largest,
        candidates=tuple(map(_with_kernels, found.front)),
        searched=found.searched,
        denoisers=findings.denoisers,
        usual=tuple(estimated(_usual_plans(space), worst(replayers))),
        named=_named(findings, place),
        found=findings.precise,
        caution=findings.caution,
        parameters=sum(part.parameters for part in findings.model.components),
    )


def running(space: Space, calls: Sequence[Traced]) -> Space:
    """The plans that every call can run.

    Raises:
        PlanError: there is none.
    """
    refused = {value: why for call in calls for value, why in call.refused.items()}
    executions = space.wanted.intersection(*(call.traces for call in calls))
    found = space.running(executions, refused)
    if next(found.plans(), None) is None:
        why = "; ".join(f"{name}={typed(value)} does not run: {reason}" for (name, value), reason in refused.items())
        raise PlanError(why or "no combination of these levers runs; fix fewer of them")
    return found


def named_space(space: Space, dtypes: Sequence[Precision]) -> Space | None:
    """Precisions that are not known to give right images here, by placement and tiling alone; None where there are none."""
    if not dtypes:
        return None
    free = ("offload", "text_encoders", "vae_tiling")
    values = {name: values if name in free else values[:1] for name, values in space.values.items()}
    return space.model_copy(update={"values": {**values, "dtype": tuple(dtypes)}, "executions": None})


def replayers_of(findings: Findings, space: Space, place: Place) -> list[Replayer]:
    """One for each call, with what the space executes."""
    wanted = space.wanted
    calls = (call._replace(traces={e: t for e, t in call.traces.items() if e in wanted}) for call in findings.calls)
    return [replayer_of(call, findings.model, place, undo=findings.undo, found=findings.found) for call in calls]


def replayer_of(call: Traced, model: Model, place: Place, *, undo: bool, found: Plan) -> Replayer:
    """What replays one call there."""
    return Replayer(
        call.traces,
        model=model,
        device=place.device,
        steps=call.steps,
        undo=undo,
        found=found,
        settings=place.settings,
        torch_version=place.torch_version,
    )


def worst(replayers: Sequence[Replayer]) -> Callable[[Sequence[Plan]], list[Estimate]]:
    """An estimate for each plan; of several calls the one that needs most counts."""

    def of(plans: Sequence[Plan]) -> list[Estimate]:
        return [largest(several) for several in zip(*(replayer(plans) for replayer in replayers), strict=True)]

    return of


def largest(estimates: Iterable[Estimate]) -> Estimate:
    """The one that needs most."""
    return max(estimates, key=lambda estimate: estimate.needed_bytes)


def _least(replayers: Sequence[Replayer]) -> Pricing:
    """What plans cost at least."""

    def least(values: Mapping[str, Sequence[Any]], codes: NDArray[np.int64]) -> Costs:
        return Costs.least([replayer.costs(values, codes) for replayer in replayers])

    return least


def _named(findings: Findings, place: Place) -> tuple[Candidate, ...]:
    """By placement and tiling alone."""
    if findings.named is None or not all(set(call.traces) & findings.named.wanted for call in findings.calls):
        return ()
    space = running(findings.named, findings.calls)
    replayers = replayers_of(findings, space, place)
    return tuple(map(_with_kernels, search(space, worst(replayers), _least(replayers)).front))


def _usual_plans(space: Space) -> list[Plan]:
    """What a careful user would type: the half precision that is safe here, and the one without loss, by documented modes."""
    plain = {name: values[0] for name, values in space.values.items()}
    by_lane = {Plan(dtype=dtype).lane: dtype for dtype in reversed(space.values["dtype"])}
    modes = [mode for mode in _DOCUMENTED if mode in (*space.values["offload"], space.found.offload, "none")]
    plain |= {"text_encoders": None, "compile": None}
    tiles = [edge for edge in space.values["vae_tiling"] if edge][:1]
    settings = [{"offload": mode} for mode in modes]
    settings += [{"offload": mode, "vae_tiling": edge} for mode in modes[:1] for edge in tiles]
    plans = [
        Plan(**plain | {"dtype": dtype} | chosen, id=f"usual-{lane}-{number}")
        for lane, dtype in by_lane.items()
        for number, chosen in enumerate(settings)
    ]
    return [plan for plan in plans if space.allows(plan)]


def _with_kernels(candidate: Candidate) -> Candidate:
    """The candidate with the kernels of attention that it takes among its reasons."""
    estimate, plan = candidate.estimate, candidate.plan
    if estimate.attention is None or "attention" not in plan.reasons:
        return candidate
    reasons = plan.reasons | {"attention": f"{estimate.attention.words}; {plan.reasons['attention']}"}
    return candidate.model_copy(update={"plan": plan.model_copy(update={"reasons": reasons})})
