"""From a published record to what is predicted: a zoo pipeline with the record's settings, a call, a plan and a card."""

from __future__ import annotations

import re
from typing import NamedTuple

from autotune.errors import AutotuneError
from autotune.flow.job import Job, job_for
from autotune.probe import catalog
from autotune.records.device import Device
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from autotune.simulate.latency import Code
from autotune.zoo.recipe import Recipe
from autotune.zoo.recipes import recipes
from benchmarks.eras import version_at
from benchmarks.measured import Measurement, Skip, SkippedError
from benchmarks.pipelines import prepared
from benchmarks.wordings import code_of, offload_of, quantization_of

__all__ = ["Case", "Run", "card_of", "case_of", "job_of", "plan_of", "run_of"]

_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
# A record of 2022 says "3060 RTX", when the card with 12 GB was the one that people had.
_MEANT = {"NVIDIA GeForce RTX 3060": "NVIDIA GeForce RTX 3060 12GB"}
_ATTENTION = {"sdpa", "vanilla", "xformers"}
_FAMILIES = {"SD 1.x": "sd15", "SD1.5": "sd15"}
"""Names for models of one architecture, and a zoo model that has it."""


class Case(NamedTuple):
    """One thing to predict; records of several cards may share it. Hashable: the key of its trace."""

    recipe: str
    vae: str
    """A zoo model whose VAE is put in, or empty."""
    pipeline: str
    denoiser_only: bool
    dtype: str
    batch: int
    height: int | None
    width: int | None
    frames: int | None
    guidance: bool | None
    attention: str
    offload: str
    vae_slicing: bool
    vae_tiling: bool
    channels_last: str
    quantization: tuple[tuple[str, str], ...]
    """Pairs of what is quantised ("denoiser", "T5", "TE" for every text encoder or "TE2" for the second) and a scheme."""
    fused_qkv: bool
    safety_checker: bool
    graphed: bool
    """Whether the denoiser is replayed as a CUDA graph, whose memory is its own."""
    resident_gib: float | None
    """Weights after loading, to a tenth: tells whether T5's output projections were kept in fp32."""
    diffusers: tuple[int, int]
    """The minor version that was installed."""
    autocast: bool = False
    """Whether the call ran under `torch.autocast`."""


class Run(NamedTuple):
    """How and where a case was timed; runs of one case share its trace. Hashable."""

    device: Device
    steps: int | None
    """Denoising steps of the call; None is the pipeline's default."""
    code: Code
    """The denoiser's code: as it is, a `torch.jit` trace, its repeated blocks or the whole of it by `torch.compile`, that with
    CUDA graphs ("graphs"), and with autotuned kernels beside ("tuned")."""
    vae_compiled: bool
    """Whether the VAE's decode is compiled as well."""
    tf32: bool
    """Whether fp32 matrix products use TF32."""
    call_a_step: bool
    """Whether the scheduler, another than the model's own, calls the denoiser once in each step."""


def case_of(record: Measurement) -> Case:
    """What the record ran.

    Raises:
        SkippedError: it does not say, or the zoo has no such model.
    """
    recipe, vae = _recipes(record)
    dtype = _DTYPES.get(record.dtype or "")
    offload = offload_of(record.offload or "none")
    if dtype is None:
        raise SkippedError(Skip.NOT_STATED, f"dtype {record.dtype}")
    if record.attention is not None and record.attention not in _ATTENTION:
        raise SkippedError(Skip.NOT_STATED, f"attention {record.attention}")
    if record.layerwise_casting not in {None, "none"}:
        raise SkippedError(Skip.NOT_STATED, f"layerwise casting {record.layerwise_casting}")
    other = record.other or ""
    if re.search("lora|deepcache|tome|text encoders not loaded", other, re.IGNORECASE):
        raise SkippedError(Skip.NOT_STATED, other)
    tiny = re.search(r"AutoencoderTiny \S*/(\w+)", other)
    said = f"{record.components or ''}; {record.caveats or ''}".lower()
    version = version_at(record.diffusers, record.date)
    unchecked = re.search(r"safety checker (removed|off|disabled)|no safety checker", said)
    return Case(
        recipe=recipe.name,
        vae=tiny.group(1) if tiny else vae,
        pipeline=_pipeline_class(record, recipe),
        denoiser_only=record.scope.startswith("denoiser"),
        dtype=dtype,
        batch=record.batch or 1,
        height=record.height,
        width=record.width,
        frames=record.frames,
        guidance=record.cfg if record.cfg is not None else _guided(record.guidance_scale),
        attention=record.attention or "sdpa",
        offload=offload,
        vae_slicing=bool(record.vae_slicing),
        vae_tiling=bool(record.vae_tiling),
        channels_last=str(record.channels_last or ""),
        quantization=quantization_of(record.quantization or "none"),
        fused_qkv=re.search("fuse_?qkv", f"{other} {record.quantization}", re.IGNORECASE) is not None,
        safety_checker=unchecked is None,
        graphed=(record.compile or "").startswith("reduce-overhead"),
        resident_gib=None
        if record.resident_value is None or record.peak_gib is None
        else round(record.resident_value, 1),
        diffusers=version,
        # The README of 0.3, which was current in September 2022, put autocast around calls in half precision. A cumulative
        # table says of each row what it sets, and has autocast as one of them.
        autocast=version < (0, 8) and dtype == "float16" and "cumulative" not in other,
    )


def run_of(record: Measurement, device: Device) -> Run:
    """How the record's call was timed.

    Raises:
        SkippedError: its compiler is none that is known.
    """
    said, other, caveats = record.compile or "none", record.other or "", record.caveats or ""
    code = code_of(said)
    return Run(
        device=device,
        steps=record.steps,
        code=code,
        vae_compiled=code != "none" and "vae" in said.lower(),
        # NVIDIA's NGC images allow it for matrix products (TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1); torch since 1.12 does not.
        tf32=re.search("tf32|NGC", f"{other} {caveats} {record.torch}", re.IGNORECASE) is not None,
        call_a_step=re.search("DDIM|DPMSolver|Euler", caveats) is not None,
    )


def card_of(record: Measurement) -> Device:
    """The record's card.

    Raises:
        SkippedError: it names none, or none that is known.
    """
    if record.gpu is None:
        raise SkippedError(Skip.UNKNOWN_CARD, "none named")
    try:
        return catalog.card(_MEANT.get(record.gpu, record.gpu))
    except AutotuneError as error:
        raise SkippedError(Skip.UNKNOWN_CARD, record.gpu) from error


def job_of(case: Case, device: Device) -> Job:
    """The pipeline as the record had it, and its call, to be planned for that card.

    Raises:
        AutotuneError: the pipeline cannot be built or refuses the call.
    """
    pipe = prepared(case)
    wanted = Workload(
        batch=case.batch, height=case.height, width=case.width, frames=case.frames, guidance=case.guidance
    )
    return job_for(pipe, device=device, workload=wanted, example=None, calls=1, undo=False)


def plan_of(case: Case) -> Plan:
    """Where weights lie and which kernel attention takes. The rest is set on the pipeline."""
    return Plan(offload=case.offload, attention="xformers" if case.attention == "xformers" else "sdpa")


def _recipes(record: Measurement) -> tuple[Recipe, str]:
    """The zoo's pipeline of that name, and a VAE named beside it. Of several pipelines the last: it is made of the others."""
    names = [piece.strip(" +()") for piece in re.split(r"\s\+\s|\(\+|[()]", record.model)]
    found = [recipe for name in names for recipe in [_known(name)] if recipe is not None]
    pipelines = [recipe for recipe in found if recipe.pipeline_class is not None]
    vaes = [recipe.name for recipe in found if [part.name for part in recipe.components] == ["vae"]]
    if not pipelines:
        raise SkippedError(Skip.NO_ARCHITECTURE, record.model)
    return pipelines[-1], vaes[0] if vaes else ""


def _known(name: str) -> Recipe | None:
    """The recipe of that hub id, with or without its owner, or of that zoo name."""
    wanted = _spellings(_FAMILIES.get(name, name))
    for recipe in recipes().values():
        if wanted & {spelt for known in (recipe.name, recipe.hub_id, *recipe.aliases) for spelt in _spellings(known)}:
            return recipe
    return None


def _spellings(name: str) -> set[str]:
    """A name whole and without its owner, however its words are joined."""
    return {re.sub(r"[ _]", "-", known).casefold() for known in (name, name.split("/")[-1])} - {""}


def _pipeline_class(record: Measurement, recipe: Recipe) -> str:
    import diffusers

    named = record.pipeline or recipe.pipeline_class or ""
    if record.scope.startswith("denoiser"):
        return recipe.pipeline_class or ""
    if not hasattr(diffusers, named):  # nor one with an IP-Adapter, which the zoo does not have
        raise SkippedError(Skip.NO_ARCHITECTURE, named)
    return named


def _guided(scale: float | None) -> bool | None:
    return None if scale is None else scale > 1
