"""The public calls. Each is a few steps; the rooms do the work."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from autotune.errors import PlanError, WorkloadError
from autotune.flow.applying import apply_plan, plan_taken_off
from autotune.flow.ask import Question, answer, front_for, job_of, place_of
from autotune.flow.budget import budget_for, held_by
from autotune.flow.job import WorkloadLike
from autotune.flow.learning import watch_for
from autotune.flow.planning import as_it_is, estimates
from autotune.flow.recall import Profiles
from autotune.levers import engine
from autotune.probe.gpu import local_device
from autotune.probe.pipeline import present_device, require_pipeline
from autotune.probe.workload import resolve_workload
from autotune.records.front import Candidate, Front, Objective
from autotune.records.plan import Plan, Quality
from autotune.records.workload import Workload
from autotune.report.explanation import Explanation
from autotune.report.text import five_lines

__all__ = ["apply", "explain", "explore", "optimize", "plan", "restore"]

log = logging.getLogger("autotune")


def optimize(
    pipe: Any,
    *,
    max_vram: str | int | None = None,
    max_ram: str | int | None = None,
    workload: WorkloadLike = None,
    example: Mapping[str, Any] | None = None,
    calls: int = 1,
    quality: Quality = "near",
    allow: str | Sequence[str] = (),
    keep: Mapping[str, Any] | None = None,
    forbid: str | Sequence[str] = (),
    objective: Objective = "latency",
    plan: Plan | None = None,
    device: str | None = None,
    profiles: Profiles = None,
    effort: Literal["predict"] = "predict",
    undo: bool = True,
) -> Any:
    """Makes a diffusers pipeline run as fast as it can without using more than `max_vram`, and gives it back.

    Args:
        pipe: a `DiffusionPipeline`, in any state of offload.
        max_vram: ceiling of what the process takes of the device, such as ``"4GB"`` (10^9), ``"3.7GiB"`` or bytes; what is
            free now if None. A ceiling above the card is clamped.
        max_ram: ceiling of weights kept in RAM; what is available if None.
        workload: the call to plan for: a `Workload`, a dict of the pipeline's own call arguments, or a list of them, of
            which the worst counts. The pipeline's defaults if None.
        example: real inputs, such as an image, where they cannot be made up; only shapes are read.
        calls: how many calls are to come.
        quality: the lane that may be used: "exact", "near", "int8" or "int4".
        allow: approximations to allow by name.
        keep: levers to fix, for example ``{"vae_tiling": False}``.
        forbid: levers to leave alone.
        objective: "latency" for the fastest plan under the cap, "memory" for the smallest.
        plan: apply this plan and search none.
        device: a torch device such as "cuda:1" or "cpu"; the current CUDA device, or the CPU, if None.
        profiles: folder of profiles; the usual ones if None, none at all if False.
        effort: "predict" chooses by simulation.
        undo: whether originals of lowered weights are kept in RAM, so that `restore` is exact.

    Returns:
        The same object.

    Raises:
        AutotuneError: one of its subclasses; the pipeline is then as it was.

    >>> import autotune
    >>> pipe = autotune.optimize(demo_pipeline(), workload={"height": 64, "width": 64}, profiles=False)
    >>> autotune.explain(pipe).state
    'optimised'
    """
    _only("effort", effort, "predict")
    if plan is not None:
        if max_vram is not None or max_ram is not None or keep or forbid:
            raise PlanError(
                "plan= is applied as it stands; ask autotune.plan(...) for one under caps or with levers fixed"
            )
        return apply(pipe, plan, device=device, workload=workload, undo=undo)
    question = Question(
        pipe, max_vram=max_vram, max_ram=max_ram, workload=workload, example=example, calls=calls, quality=quality,
        allow=allow, keep=keep, forbid=forbid, objective=objective, profiles=profiles, undo=undo, device=device,
    )  # fmt: skip
    with plan_taken_off(pipe, put_back="on error"):
        explained, front = answer(question)
        handle = apply_plan(
            pipe, explained.chosen.plan, device=explained.device, workload=explained.workload,
            denoisers=front.denoisers, undo=undo, watch=watch_for(question, explained),
        )  # fmt: skip
    handle.story = explained.model_copy(update={"state": "optimised"})
    _say(handle.story)
    return pipe


def apply(pipe: Any, plan: Plan, *, device: str | None = None, workload: WorkloadLike = None, undo: bool = True) -> Any:
    """Applies a plan as it stands, all of it or nothing, and gives the pipeline back.

    Raises:
        PlanError: a value that this pipeline or device cannot take.

    >>> import autotune
    >>> pipe = autotune.apply(demo_pipeline(), autotune.Plan(vae_tiling=32), workload={"height": 64, "width": 64})
    >>> pipe.vae.use_tiling
    True
    """
    require_pipeline(pipe)
    if not isinstance(plan, Plan):
        raise PlanError(
            f"expected a Plan, got {type(plan).__name__}; autotune.plan(pipe) makes one, front['p3'].plan is one"
        )
    first = workload[0] if isinstance(workload, list | tuple) and workload else workload
    if not isinstance(first, Workload | Mapping | None):
        raise WorkloadError(f"workload={workload!r} names no call; give a Workload or a dict of call arguments")
    call = resolve_workload(pipe, first)
    place = local_device(device or present_device(pipe))
    example = first if isinstance(first, Mapping) else {}
    apply_plan(pipe, plan, device=place, workload=call, example=example, undo=undo)
    return pipe


def plan(
    pipe_or_model: Any,
    *,
    gpu: str | None = None,
    max_vram: str | int | None = None,
    max_ram: str | int | None = None,
    workload: WorkloadLike = None,
    example: Mapping[str, Any] | None = None,
    calls: int = 1,
    quality: Quality = "near",
    allow: str | Sequence[str] = (),
    keep: Mapping[str, Any] | None = None,
    forbid: str | Sequence[str] = (),
    objective: Objective = "latency",
    device: str | None = None,
    profiles: Profiles = None,
    undo: bool = True,
    loaded_as: str | Mapping[str, str] | None = None,
    controlnets: str | Sequence[str] = (),
    lora_rank: int | None = None,
    ip_adapter: str | None = None,
    torch_version: str | None = None,
    allocator: str | None = None,
) -> Plan:
    """The plan that `optimize` would apply, for this machine or for a card that is not here.

    A pipeline that is optimised already is restored for the time of planning.

    Args:
        pipe_or_model: a pipeline, a zoo name such as "sd15", a folder of configuration files, or a hub id.
        gpu: a catalogue name such as "NVIDIA GeForce RTX 3060 12GB"; this machine's device if None.
        loaded_as: the precision in which a named model is loaded, such as "fp16", or by component with a "default":
            ``{"default": "fp16", "vae": "fp32"}``; the published one if None.
        controlnets: ControlNets to add to a named model, by zoo name or folder.
        lora_rank: rank of a LoRA to add to a named model's denoiser.
        ip_adapter: an IP-Adapter to add to a named model, by zoo name.
        torch_version: version of torch on a machine that is not here, such as "2.9.0".
        allocator: PYTORCH_CUDA_ALLOC_CONF of a machine that is not here.

    The other arguments are those of `optimize`.

    Raises:
        AutotuneError: one of its subclasses, `DoesNotFitError` if nothing stays under the cap.

    >>> import autotune
    >>> autotune.plan("sd15", gpu="NVIDIA GeForce RTX 3060 12GB", max_vram="4GB").dtype
    'float16'
    """
    question = Question(
        pipe_or_model, gpu=gpu, max_vram=max_vram, max_ram=max_ram, workload=workload, example=example, calls=calls,
        quality=quality, allow=allow, keep=keep, forbid=forbid, objective=objective, device=device,
        profiles=profiles, undo=undo,
        loaded_as=loaded_as, controlnets=controlnets, lora_rank=lora_rank, ip_adapter=ip_adapter,
        torch_version=torch_version, allocator=allocator,
    )  # fmt: skip
    with plan_taken_off(pipe_or_model, put_back="always"):
        return answer(question)[0].chosen.plan


def explore(
    pipe_or_model: Any,
    *,
    gpu: str | None = None,
    workload: WorkloadLike = None,
    example: Mapping[str, Any] | None = None,
    calls: int = 1,
    allow: str | Sequence[str] = (),
    keep: Mapping[str, Any] | None = None,
    forbid: str | Sequence[str] = (),
    device: str | None = None,
    profiles: Profiles = None,
    undo: bool = True,
    loaded_as: str | Mapping[str, str] | None = None,
    controlnets: str | Sequence[str] = (),
    lora_rank: int | None = None,
    ip_adapter: str | None = None,
    torch_version: str | None = None,
    allocator: str | None = None,
) -> Front:
    """The Pareto front over VRAM, RAM, seconds and quality: every plan that no other beats.

    The arguments are those of `plan`; caps are asked of the front: ``front.best(max_vram="4GB")``.

    >>> import autotune
    >>> front = autotune.explore("sd15", gpu="NVIDIA GeForce RTX 3060 12GB")
    >>> front.best(max_vram="2GB").plan.offload
    'group:leaf+stream'
    """
    question = Question(
        pipe_or_model, gpu=gpu, workload=workload, example=example, calls=calls, allow=allow, keep=keep,
        forbid=forbid, device=device, profiles=profiles, undo=undo,
        loaded_as=loaded_as, controlnets=controlnets, lora_rank=lora_rank, ip_adapter=ip_adapter,
        torch_version=torch_version, allocator=allocator,
    )  # fmt: skip
    with plan_taken_off(pipe_or_model, put_back="always"):
        return front_for(question)


def explain(
    pipe_or_model: Any,
    *,
    gpu: str | None = None,
    max_vram: str | int | None = None,
    workload: WorkloadLike = None,
    example: Mapping[str, Any] | None = None,
    device: str | None = None,
    loaded_as: str | Mapping[str, str] | None = None,
    controlnets: str | Sequence[str] = (),
    lora_rank: int | None = None,
    ip_adapter: str | None = None,
    torch_version: str | None = None,
    allocator: str | None = None,
) -> Explanation:
    """What was chosen for an optimised pipeline and why; for any other, what it costs as it is.

    >>> import autotune
    >>> autotune.explain("sd15", gpu="NVIDIA GeForce RTX 3060 12GB").fits
    True
    """
    handle = engine.handle_of(pipe_or_model)
    asked = (gpu, max_vram, workload, example, device, loaded_as, controlnets or None, lora_rank, ip_adapter, torch_version,
             allocator)  # fmt: skip
    if handle is not None and handle.story is not None and all(argument is None for argument in asked):
        story: Explanation = handle.story
        return story
    question = Question(
        pipe_or_model, gpu=gpu, device=device, max_vram=max_vram, workload=workload, example=example,
        loaded_as=loaded_as, controlnets=controlnets, lora_rank=lora_rank, ip_adapter=ip_adapter,
        torch_version=torch_version, allocator=allocator,
    )  # fmt: skip
    place, host = place_of(question)
    with plan_taken_off(pipe_or_model, put_back="always"):
        job = job_of(question, place)
        budget = budget_for(place, host, max_vram=max_vram, max_ram=None, held=held_by(job.pipe, place))
        plan = None if handle is None else handle.plan
        chosen = as_it_is(job) if plan is None else Candidate(plan=plan, estimate=estimates(job, [plan])[0])
    return Explanation(
        state="as it is" if handle is None else "optimised",
        model=job.model.name,
        workload=job.largest,
        device=place,
        host=host,
        cap_bytes=budget.vram_bytes,
        cap_note=budget.note,
        chosen=chosen,
    )


def restore(pipe: Any) -> Any:
    """Takes back what `optimize` or `apply` did: weights bit for bit, hooks, switches and process-wide settings.

    A pipeline that was not optimised is left alone.

    >>> import autotune
    >>> pipe = autotune.restore(autotune.apply(demo_pipeline(), autotune.Plan(dtype="bfloat16")))
    >>> str(pipe.unet.dtype)
    'torch.float32'
    """
    engine.restore(pipe)
    return pipe


def _say(explained: Explanation) -> None:
    """The tool's words, through the `autotune` logger; shown also where nobody set up logging but somebody watches."""
    watched = sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)
    handler = logging.StreamHandler() if watched and not log.hasHandlers() else logging.NullHandler()
    level = log.level
    log.addHandler(handler)
    try:
        if isinstance(handler, logging.StreamHandler):
            log.setLevel(logging.INFO)
        for line in (*five_lines(explained), *([explained.cap_note] if explained.cap_note else [])):
            log.info("%s", line)
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _only(name: str, value: str, known: str) -> None:
    if value != known:
        raise PlanError(f"{name}={value!r} is not known; what there is: {name}={known!r}")
