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
from autotune.zoo.recipes import Recipe, recipes
from benchmarks.eras import version_at
from benchmarks.measured import Measurement, Skip
from benchmarks.pipelines import prepared

__all__ = ["Case", "SkippedError", "card_of", "case_of", "job_of", "plan_of"]

_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
_OFFLOADS = {"none": "none", "model_cpu_offload": "model", "sequential_cpu_offload": "sequential"}
_ATTENTION = {"sdpa", "vanilla", "xformers"}
_QUANTISERS = r"bitsandbytes|torchao|quanto|gguf"


class SkippedError(Exception):
    """A record that is not compared, with the reason."""

    def __init__(self, reason: Skip, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


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
    """Pairs of what is quantised ("denoiser", "T5", or "TE" for every text encoder) and a scheme."""
    fused_qkv: bool
    safety_checker: bool
    graphed: bool
    """Whether the denoiser is replayed as a CUDA graph, whose memory is its own."""
    resident_gib: float | None
    """Weights after loading, to a tenth: tells whether T5's output projections were kept in fp32."""
    diffusers: tuple[int, int]
    """The minor version that was installed."""


def case_of(record: Measurement) -> Case:
    """What the record ran.

    Raises:
        SkippedError: it does not say, or the zoo has no such model.
    """
    recipe, vae = _recipes(record)
    dtype = _DTYPES.get(record.dtype or "")
    offload = _offload(record.offload or "none")
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
        quantization=_quantization(record.quantization or "none"),
        fused_qkv="fuse_qkv" in other,
        safety_checker=unchecked is None,
        graphed=(record.compile or "").startswith("reduce-overhead"),
        resident_gib=None
        if record.resident_value is None or record.peak_gib is None
        else round(record.resident_value, 1),
        diffusers=version_at(record.diffusers, record.date),
    )


def card_of(record: Measurement) -> Device:
    """The record's card.

    Raises:
        SkippedError: it names none, or none that is known.
    """
    if record.gpu is None:
        raise SkippedError(Skip.UNKNOWN_CARD, "none named")
    try:
        return catalog.card(record.gpu)
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
    vaes = [recipe.name for recipe in found if recipe.pipeline_class is None]
    if not pipelines:
        raise SkippedError(Skip.NO_ARCHITECTURE, record.model)
    return pipelines[-1], vaes[0] if vaes else ""


def _known(name: str) -> Recipe | None:
    """The recipe of that hub id, with or without its owner, or of that zoo name."""
    wanted = _spellings(name)
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


def _offload(said: str) -> str:
    if said in _OFFLOADS:
        return _OFFLOADS[said]
    group = re.match(r"group_offload (leaf|block)_level( use_stream)?", said)
    if group:
        return f"group:{group.group(1)}" + ("+stream" if group.group(2) else "")
    raise SkippedError(Skip.NOT_STATED, f"offload {said}")


def _quantization(said: str) -> tuple[tuple[str, str], ...]:
    """For example "torchao int8wo transformer+T5" and "GGUF Q4_1 transformer only"."""
    if said == "none":
        return ()
    match = re.match(rf"({_QUANTISERS})[ -](\S+)\s*(.*)", said, re.IGNORECASE)
    if match is None:
        raise SkippedError(Skip.NOT_STATED, f"quantization {said}")
    from autotune.trace.schemes import SCHEMES

    kind, scheme, where = match.group(1).lower(), match.group(2).lower(), match.group(3).lower()
    name = f"{kind}-{'float8' if (kind, scheme) == ('quanto', 'fp8') else scheme}"
    if name not in SCHEMES:
        raise SkippedError(Skip.NOT_STATED, f"quantization {said}")
    parts = [("T5", "t5"), ("TE", "te"), ("TE", "text encoder")]
    named = {part for part, word in parts if re.search(rf"\b{word}\b", where)}
    if re.search(r"te\d", where):
        raise SkippedError(Skip.NOT_STATED, f"quantization {said}")
    return tuple((part, name) for part in ("denoiser", *sorted(named)))


def _guided(scale: float | None) -> bool | None:
    return None if scale is None else scale > 1
