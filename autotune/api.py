"""The public calls. Each is a few steps; the rooms do the work. What imports torch is imported once a question makes sense."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.errors import PipelineError, PlanError
from autotune.flow.ask import answer, as_it_stands, front_for
from autotune.flow.checks import check_stands_alone
from autotune.flow.job import largest_call
from autotune.flow.question import Profiles, Question, WorkloadLike
from autotune.probe.gpu import local_device
from autotune.probe.pipeline import present_device
from autotune.records.front import Candidate, Front, Objective
from autotune.records.plan import OnChange, Plan, Quality
from autotune.report.explanation import Explanation
from autotune.report.lines import columns_of
from autotune.report.progress import watched
from autotune.report.text import six_lines

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
    plan: Plan | Candidate | None = None,
    device: str | None = None,
    profiles: Profiles = None,
    undo: bool = True,
    on_change: OnChange = "replan",
    verbose: bool = True,
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
        plan: apply this plan and search none; options that choose a plan are refused beside it.
        device: a torch device such as "cuda:1" or "cpu"; the current CUDA device, or the CPU, if None.
        profiles: folder of profiles; the usual ones if None, none at all if False.
        undo: whether originals of lowered weights are kept in RAM, so that `restore` is exact.
        on_change: what to do at a call where the pipeline is no longer as the plan left it (a component exchanged, weights
            cast, a LoRA or a cache added, a bigger call): "replan" plans anew under the same caps for an exchanged component
            and for a bigger call, where planning took seconds, and tells it like everything else in one line of the
            `autotune` logger; "tell" plans nothing; "refuse" or "ignore". Beside `plan` nothing is planned.
        verbose: whether progress and the answer are told: on standard error, or to the `autotune` logger where that has a
            handler.

    Returns:
        The same object.

    Raises:
        AutotuneError: one of its subclasses; the pipeline is then as it was.

    >>> import autotune
    >>> pipe = autotune.optimize(demo_pipeline(), workload={"height": 64, "width": 64}, profiles=False)
    >>> autotune.explain(pipe).state
    'optimised'
    """
    _refuse_name(pipe, "optimize")
    question = Question(
        pipe, max_vram=max_vram, max_ram=max_ram, workload=workload, example=example, calls=calls, quality=quality,
        allow=allow, keep=keep, forbid=forbid, objective=objective, profiles=profiles, undo=undo, device=device,
        on_change=on_change,
    )  # fmt: skip
    if plan is not None:
        check_stands_alone(question)
        return _apply_given(question, plan)
    from autotune.flow.applying import optimize as choose_and_apply

    with watched("autotune", silent=not verbose or bool(log.handlers)) as report:
        optimized = choose_and_apply(replace(question, progress=report))
    if verbose:
        _say(optimized.story)
    return pipe


def apply(
    pipe: Any,
    plan: Plan | Candidate,
    *,
    device: str | None = None,
    workload: WorkloadLike = None,
    undo: bool = True,
    on_change: OnChange = "tell",
) -> Any:
    """Applies a plan, or a candidate's, as it stands, all of it or nothing, and gives the pipeline back.

    The arguments are those of `optimize`.

    Raises:
        PlanError: a value that this pipeline or device cannot take.

    >>> import autotune
    >>> pipe = autotune.apply(demo_pipeline(), autotune.Plan(vae_tiling=32), workload={"height": 64, "width": 64})
    >>> pipe.vae.use_tiling
    True
    """
    _refuse_name(pipe, "apply")
    if on_change == "replan":
        raise PlanError(
            "apply knows no caps to plan under, so on_change='replan' is for optimize; apply takes tell, refuse or ignore"
        )
    return _apply_given(Question(pipe, device=device, workload=workload, undo=undo, on_change=on_change), plan)


def plan(
    pipe_or_model: Any,
    *,
    gpu: str | Mapping[str, Any] | None = None,
    ram: str | int | None = None,
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

    A pipeline that is optimised already is read as its owner made it; its plan stays on.

    Args:
        pipe_or_model: a pipeline, a zoo name such as "sd15", a folder of configuration files, or a hub id.
        gpu: a card that need not be here: a name such as "RTX 3060 12GB", or its description such as "8.9,16GB,RTX 4000 Ada"
            or ``{"compute_capability": "8.9", "memory": "16GB"}``; this machine's device if None.
        ram: RAM of a machine that is not here; what is usual beside such a card if None.
        loaded_as: the precision in which a named model is loaded, such as "fp16", or precisions by component.
        controlnets: ControlNets to add to a named model, by zoo name or folder.
        lora_rank: rank of a LoRA on its denoiser.
        ip_adapter: an IP-Adapter to add to it, by zoo name.
        torch_version: version of torch on a machine that is not here.
        allocator: PYTORCH_CUDA_ALLOC_CONF there.

    The other arguments are those of `optimize`.

    Raises:
        AutotuneError: one of its subclasses, `DoesNotFitError` if nothing stays under the cap.

    >>> import autotune
    >>> print(autotune.plan("sd15", gpu="NVIDIA GeForce RTX 3060 12GB", max_vram="4GB").dtype)
    fp16
    """
    question = Question(
        pipe_or_model, gpu=gpu, max_vram=max_vram, max_ram=max_ram, workload=workload, example=example, calls=calls,
        quality=quality, allow=allow, keep=keep, forbid=forbid, objective=objective, device=device, profiles=profiles,
        undo=undo, ram=ram, loaded_as=loaded_as, controlnets=controlnets, lora_rank=lora_rank, ip_adapter=ip_adapter,
        torch_version=torch_version, allocator=allocator,
    )  # fmt: skip
    return answer(question)[0].chosen.plan


def explore(
    pipe_or_model: Any,
    *,
    gpu: str | Mapping[str, Any] | None = None,
    ram: str | int | None = None,
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
        forbid=forbid, device=device, profiles=profiles, undo=undo, ram=ram, loaded_as=loaded_as, controlnets=controlnets,
        lora_rank=lora_rank, ip_adapter=ip_adapter, torch_version=torch_version, allocator=allocator,
    )  # fmt: skip
    return front_for(question)


def explain(
    pipe_or_model: Any,
    *,
    gpu: str | Mapping[str, Any] | None = None,
    ram: str | int | None = None,
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

    The arguments are those of `plan`.

    >>> import autotune
    >>> autotune.explain("sd15", gpu="NVIDIA GeForce RTX 3060 12GB").fits
    True
    """
    question = Question(
        pipe_or_model, gpu=gpu, device=device, max_vram=max_vram, workload=workload, example=example, ram=ram,
        loaded_as=loaded_as, controlnets=controlnets, lora_rank=lora_rank, ip_adapter=ip_adapter,
        torch_version=torch_version, allocator=allocator,
    )  # fmt: skip
    from autotune.guard.optimized import optimized_of

    optimized = optimized_of(pipe_or_model)
    if optimized is None:
        return as_it_stands(question)
    optimized.refuse_half(pipe_or_model)
    changes = optimized.changes(pipe_or_model)
    asked = (gpu, max_vram, workload, example, device)
    if optimized.story is not None and not changes and all(argument is None for argument in asked):
        story: Explanation = optimized.story
        return story
    return as_it_stands(question, optimized.plan, changes)


def restore(pipe: Any) -> Any:
    """Takes back what `optimize` or `apply` did: weights bit for bit, hooks, switches and process-wide settings.

    A pipeline that was not optimised is left alone.

    >>> import autotune
    >>> pipe = autotune.restore(autotune.apply(demo_pipeline(), autotune.Plan(dtype="bfloat16")))
    >>> str(pipe.unet.dtype)
    'torch.float32'
    """
    from autotune.guard.applying import restore as take_back

    take_back(pipe)
    return pipe


def _refuse_name(pipe: Any, call: str) -> None:
    if isinstance(pipe, str | Path):
        raise PipelineError(
            f"{call} changes a pipeline that is loaded, and {str(pipe)!r} is a name; load it with "
            f"DiffusionPipeline.from_pretrained(...), or ask autotune.plan({str(pipe)!r}) for a plan"
        )


def _apply_given(question: Question, plan: Plan | Candidate) -> Any:
    """The question's pipeline under this plan, which is not a choice."""
    plan = plan.plan if isinstance(plan, Candidate) else plan
    if not isinstance(plan, Plan):
        raise PlanError(
            f"expected a Plan, got {type(plan).__name__}; autotune.plan(pipe) makes one, front['p3'].plan is one"
        )
    from autotune.flow.applying import apply_plan

    pipe = question.model
    call, given = largest_call(pipe, question.workload, question.example)
    place = local_device(question.device or present_device(pipe))
    apply_plan(pipe, plan, device=place, workload=call, example=given, undo=question.undo, on_change=question.on_change)
    return pipe


def _say(explained: Explanation) -> None:
    """The answer: to the `autotune` logger where that has a handler, else on standard error."""
    if not log.handlers:
        if sys.stderr is not None and log.level <= logging.INFO:
            print("\n".join(six_lines(explained, _columns())), file=sys.stderr)  # noqa: T201 - the tool's words
        return
    level = log.level
    try:
        if level == logging.NOTSET:  # who adds a handler and says no more wants to hear this
            log.setLevel(logging.INFO)
        for line in six_lines(explained):
            log.info("%s", line)
    finally:
        log.setLevel(level)


def _columns() -> int | None:
    try:
        return columns_of(os.environ, os.get_terminal_size(sys.stderr.fileno()).columns)
    except (OSError, ValueError):  # no terminal, or no file at all, as in a notebook
        return columns_of(os.environ, None)
