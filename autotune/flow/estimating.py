"""One plan that somebody has written out: what it costs to the byte, and the smallest cap under which it gets through."""

from __future__ import annotations

from typing import NamedTuple

from autotune.errors import PlanError
from autotune.flow.job import Job
from autotune.flow.planning import collecting_no_garbage
from autotune.flow.recordings import Recordings
from autotune.levers.base import Subject
from autotune.levers.engine import EXECUTED, check
from autotune.records.estimate import Estimate
from autotune.records.plan import Plan
from autotune.search.space import Space
from autotune.simulate.replay import Replayer

__all__ = ["Estimated", "estimate_of", "largest_tile_px"]


class Estimated(NamedTuple):
    """What a plan costs."""

    estimate: Estimate
    smallest_cap_bytes: int
    """With less the call runs out of memory, however often the allocator empties its cache."""


def estimate_of(job: Job, plan: Plan) -> Estimated:
    """What the plan costs, by an allocator that every tensor of the largest call goes through.

    Raises:
        PlanError: a value, or a pair of values, that this pipeline or device cannot take.
        WorkloadError: a call that the pipeline refuses.
    """
    workload, call = job.largest, job.calls[job.workloads.index(job.largest)]
    subject = Subject(job.pipe, job.device, workload, plan)
    check(subject, plan)
    with collecting_no_garbage():
        recordings = Recordings(job, workload, call)
        if plan.batch_split is not False:  # what may be split, only the call itself shows
            check(subject._replace(denoisers=recordings.facts(prove=True)), plan)
        traces = recordings.traces(Space(values={name: (value,) for name, value in plan.values.items()}))
    replayer = Replayer(
        traces,
        model=job.model,
        device=job.device,
        steps=workload.steps or 1,
        undo=job.undo,
        settings=job.allocator,
        torch_version=job.torch_version,
    )
    estimate = replayer.exact(plan)
    return Estimated(estimate, _smallest_cap_bytes(replayer, plan, estimate, job.device.kind))


def largest_tile_px(job: Job) -> int:
    """The edge of the largest tile that is smaller than the image.

    Raises:
        PlanError: the VAE cannot tile, or the image is too small for it.
    """
    edges_px, why_not = EXECUTED["vae_tiling"].domain(Subject(job.pipe, job.device, job.largest))
    tiling = [edge_px for edge_px in edges_px if edge_px is not False]
    if not tiling:
        raise PlanError(f"vae_tiling cannot be applied: {why_not}; what works is False")
    return int(max(tiling))


def _smallest_cap_bytes(replayer: Replayer, plan: Plan, estimate: Estimate, kind: str) -> int:
    """What is not the allocator's, and the least that it gets through with. The CPU has no cache to empty."""
    if kind == "cpu":
        return estimate.process_bytes
    return estimate.process_bytes - estimate.reserved_bytes + replayer.timeline(plan).smallest_limit()
