"""One plan that somebody has written out: what it costs to the byte, and the smallest cap under which it gets through."""

from __future__ import annotations

from typing import NamedTuple

from autotune.errors import PlanError
from autotune.flow.ask import job_of, place_of
from autotune.flow.asked import asked
from autotune.flow.budget import budget_for
from autotune.flow.job import Job
from autotune.flow.planning import collecting_no_garbage, found_in
from autotune.flow.question import Question
from autotune.flow.recordings import Recordings
from autotune.levers.base import Subject
from autotune.levers.engine import EXECUTED, check
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from autotune.report.explanation import Explanation
from autotune.search.space import Space
from autotune.simulate.replay import Replayer

__all__ = ["Estimated", "estimate_of", "largest_tile_px", "written_out"]


class Estimated(NamedTuple):
    """What a plan costs."""

    plan: Plan
    workload: Workload
    """The call, with the size that is really computed."""
    estimate: Estimate
    smallest_cap_bytes: int
    """With less the call runs out of memory, however often the allocator empties its cache."""


def estimate_of(job: Job, plan: Plan, *, finds_its_tile: bool = False) -> Estimated:
    """What the plan costs, by an allocator that every tensor of the largest call goes through. With `finds_its_tile` the VAE's
    tiles are the largest there are.

    Raises:
        PlanError: a value, or a pair of values, that this pipeline or device cannot take.
        WorkloadError: a call that the pipeline refuses.
    """
    workload, call = job.largest, job.calls[job.workloads.index(job.largest)]
    subject = Subject(job.pipe, job.device, workload, plan)
    check(subject, plan)
    with collecting_no_garbage():
        recordings = Recordings(job, workload, call)
        if finds_its_tile:
            recordings.whole(plan.dtype)  # which shows how large the image is
            tile_px = largest_tile_px(subject._replace(workload=recordings.made))
            plan = plan.model_copy(update={"vae_tiling": tile_px})
        if plan.batch_split:  # what may be split, only the call itself shows
            check(subject._replace(denoisers=recordings.facts(prove=True)), plan)
        traces = recordings.traces(Space(values={name: (value,) for name, value in plan.values.items()}))
    replayer = Replayer(
        traces,
        model=job.model,
        device=job.device,
        steps=workload.steps or 1,
        undo=job.undo,
        found=job.found,
        settings=job.allocator,
        torch_version=job.torch_version,
    )
    estimate = replayer.estimate(plan)
    return Estimated(plan, recordings.made, estimate, _smallest_cap_bytes(replayer, plan, estimate, job.device.kind))


def written_out(question: Question, plan: Plan, *, finds_its_tile: bool = False) -> tuple[Explanation, int]:
    """The plan in its circumstances, and its smallest cap. With `finds_its_tile` the VAE's tiles are the largest there are.

    Raises:
        AutotuneError: one of its subclasses.
    """
    device, host = place_of(question)
    job = job_of(question, device)
    budget = budget_for(device, host, max_vram=question.max_vram, max_ram=question.max_ram)
    found = estimate_of(job, plan, finds_its_tile=finds_its_tile)
    explained = Explanation(
        state="written out",
        model=job.model.name,
        workload=found.workload,
        device=device,
        host=host,
        cap_bytes=budget.vram_bytes,
        cap_note=budget.note,
        ram_cap_bytes=budget.ram_bytes,
        chosen=Candidate(plan=found.plan, estimate=found.estimate),
        found=found_in(job),
        unloaded=question.is_named,
        asked=asked(question),
    )
    return explained, found.smallest_cap_bytes


def largest_tile_px(subject: Subject) -> int:
    """The edge of the largest tile that is smaller than the image that the subject's call computes.

    Raises:
        PlanError: the VAE cannot tile, or the image is too small for it.
    """
    edges_px, why_not = EXECUTED["vae_tiling"].domain(subject)
    tiling = [edge_px for edge_px in edges_px if edge_px]
    if not tiling:
        raise PlanError(f"vae_tiling cannot be applied: {why_not}; what works is False")
    return int(max(tiling))


def _smallest_cap_bytes(replayer: Replayer, plan: Plan, estimate: Estimate, kind: str) -> int:
    """What is not the allocator's, and the least that it gets through with. The CPU has no cache to empty."""
    if kind == "cpu":
        return estimate.process_bytes
    return estimate.process_bytes - estimate.reserved_bytes + replayer.timeline(plan).smallest_limit()
