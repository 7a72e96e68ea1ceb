"""What is wrong with a question, found before anything is read, built or imported: half a second from the words to the answer.

It knows names and numbers. Whether a pipeline takes a value that is well formed, only the pipeline can say, and does later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from autotune.errors import PipelineError, PlanError, WorkloadError, one_of
from autotune.probe import catalog
from autotune.probe.pipeline import require_pipeline
from autotune.records.described import MAX_EDGE_PX
from autotune.records.front import OBJECTIVES
from autotune.records.plan import LANES, LEVERS, OnChange, Plan
from autotune.records.workload import MAX_COUNT, MAX_MANY, Workload
from autotune.units import parse_bytes
from autotune.zoo.added import adapter_named, controlnet_named
from autotune.zoo.recipes import find

if TYPE_CHECKING:
    from autotune.flow.question import Question

__all__ = ["calls_in", "check_question", "check_stands_alone", "check_values", "names_of"]

_APPROXIMATIONS = ("sage",)
_OF_A_CHOICE = ("max_vram", "max_ram", "calls", "quality", "allow", "keep", "forbid", "objective")
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}(\.\d{1,3})?([a-z.+][\w.+]{0,30})?")
_MOST_RANK = 4096  # a LoRA of full rank is as large as its layer
_FRAMES = ("num_frames", "frames", "video_length")
_MOST = {
    "height": MAX_EDGE_PX,
    "width": MAX_EDGE_PX,
    "num_inference_steps": MAX_COUNT,
    **dict.fromkeys(_FRAMES, MAX_MANY),
}
"""By argument of a call, as the fields of a `Workload` are bounded."""

# Pipelines that refuse edges which are no multiple of this, by the `check_inputs` of diffusers 0.42. Those that only round them
# (Flux, Qwen-Image, Chroma) are not among them.
_REFUSE_PX = {
    8: (
        *(
            "AllegroPipeline",
            "AnimateDiffPipeline",
            "CogVideoXImageToVideoPipeline",
            "CogVideoXPipeline",
            "HunyuanDiTPipeline",
        ),
        *("KolorsPipeline", "LattePipeline", "MochiPipeline", "PixArtAlphaPipeline", "PixArtSigmaPipeline"),
        *("StableDiffusionAdapterPipeline", "StableDiffusionPipeline", "StableDiffusionXLAdapterPipeline"),
        *("StableDiffusionXLPipeline", "StableVideoDiffusionPipeline"),
    ),
    16: ("CogView4Pipeline", "HunyuanVideoPipeline", "WanImageToVideoPipeline", "WanPipeline"),
    32: ("LTXConditionPipeline", "LTXPipeline", "SanaPipeline"),
}
EDGES_PX = {name: edge_px for edge_px, names in _REFUSE_PX.items() for name in names}


def check_question(question: Question) -> None:
    """Refuses a question that nothing could answer.

    Raises:
        AutotuneError: one sentence with what was asked, what was found and the nearest thing that works.
    """
    for cap in ("max_vram", "max_ram", "ram"):
        if (size := getattr(question, cap)) is not None:
            parse_bytes(size, name=cap)
    _is_a("keep", question.keep, Mapping | None, "a dict such as {'vae_tiling': False}")
    _is_a("example", question.example, Mapping | None, "a dict of call arguments")
    _is_a("profiles", question.profiles, str | Path | bool | None, "a folder, None or False")
    _is_a("undo", question.undo, bool, "True or False")
    for option in ("forbid", "allow"):
        _is_a(option, getattr(question, option), str | Sequence | set | frozenset, "a list of names")
    one_of("quality", question.quality, LANES)
    one_of("objective", question.objective, OBJECTIVES)
    one_of("on_change", question.on_change, get_args(OnChange))
    for name in (*(question.keep or {}), *names_of(question.forbid)):
        one_of("lever", name, LEVERS)
    check_values(question.keep or {})
    for name in names_of(question.allow):
        one_of("approximation", name, _APPROXIMATIONS)
    if isinstance(question.calls, bool) or not isinstance(question.calls, int) or question.calls < 1:
        raise PlanError(f"calls={question.calls!r} is not a number of calls; write for example calls=20")
    _check_place(question.gpu, question.device)
    _check_model(question.model)
    _check_setup(question)
    for call in calls_in(question.workload):
        _check_call(question.model, call)


def check_stands_alone(question: Question) -> None:
    """Refuses what only a choice among plans could heed, where the plan is given.

    Raises:
        PlanError: names the first such option.
    """
    usual = {option.name: option.default for option in fields(question)}
    for name in _OF_A_CHOICE:
        value = getattr(question, name)
        if value and value != usual[name]:
            raise PlanError(
                f"plan= is applied as it stands, and {name}={value!r} is for choosing one; "
                f"leave {name} out, or ask autotune.plan(...) with it for a plan"
            )


def calls_in(workload: Any) -> list[Any]:
    """The calls that are asked about, one or several.

    Raises:
        WorkloadError: something that is no call.

    >>> calls_in({"height": 512}), calls_in(None)
    ([{'height': 512}], [None])
    """
    if workload is None or isinstance(workload, Workload | Mapping):
        return [workload]
    if not isinstance(workload, list | tuple) or not workload:
        raise WorkloadError(
            f"workload={workload!r} names no call; give a Workload, a dict of call arguments, or a list of those"
        )
    for given in workload:
        if not isinstance(given, Workload | Mapping):
            raise WorkloadError(f"workload=[{given!r}] names no call; give a Workload or a dict of call arguments")
    return list(workload)


def _check_setup(question: Question) -> None:
    """What is said of the model as it is loaded, and of a machine that is not here."""
    _is_a("loaded_as", question.loaded_as, str | Mapping | None, "a precision such as 'fp16' or a dict by component")
    _is_a("controlnets", question.controlnets, str | Sequence, "a zoo name or folder, or a list of them")
    _is_a("ip_adapter", question.ip_adapter, str | None, "a zoo name such as 'ip-adapter-sdxl'")
    _is_a("torch_version", question.torch_version, str | None, "a version such as '2.9.0'")
    _is_a("allocator", question.allocator, str | None, "settings such as 'expandable_segments:True'")
    rank = 1 if question.lora_rank is None else question.lora_rank
    if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= _MOST_RANK:
        raise PlanError(f"lora_rank={rank!r} is not a rank from 1 to {_MOST_RANK}; write for example lora_rank=16")
    if question.torch_version is not None and not _VERSION.fullmatch(question.torch_version):
        raise PlanError(f"torch_version={question.torch_version!r} is not a version; write for example 2.9.0")
    for option in ("ram", "torch_version", "allocator"):
        if getattr(question, option) is not None and question.gpu is None:
            raise PlanError(f"{option} is of a machine that is not here; name its card with gpu=, or leave it out")
    if not question.is_named and (question.loaded_as is not None or question.added):
        raise PlanError(
            "loaded_as, controlnets, lora_rank and ip_adapter are for a model that is named; load this pipeline with them"
        )
    for name in names_of(question.controlnets):
        controlnet_named(name)
    if question.ip_adapter is not None:
        adapter_named(question.ip_adapter)
    try:
        _ = question.settings, question.precision
    except ValueError as error:
        raise (
            error if isinstance(error, PlanError) else PlanError(f"loaded_as={question.loaded_as!r}: {error}")
        ) from error


def names_of(given: str | Iterable[str]) -> tuple[str, ...]:
    """One name or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def check_values(levers: Mapping[str, Any]) -> None:
    """Refuses a value that its lever does not have.

    Raises:
        PlanError: says which there are.

    >>> check_values({"vae_tiling": 512, "offload": "model"})
    """
    for name, value in levers.items():
        Plan(**{name: value})


def _check_model(model: Any) -> None:
    if not isinstance(model, str | Path):
        require_pipeline(model)
        return
    text = str(model).strip()
    if not text:
        raise PipelineError(
            f"model={model!r} is empty; write a name such as 'sd15', a folder, or a hub id (owner/name)"
        )
    if find(text) is None and not _is_folder(text) and not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", text):
        from autotune.zoo.locate import locate

        locate(model)  # which refuses it, or knows another spelling


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long for a name, or with a null byte in it
        return False


def _check_place(gpu: Any, device: Any) -> None:
    _is_a("gpu", gpu, str | Mapping | None, "a name such as 'NVIDIA GeForce RTX 3060 12GB'")
    _is_a("device", device, str | None, "a torch device such as 'cuda:0'")
    if gpu is not None and device is not None:
        raise PlanError(f"gpu={gpu!r} plans for a card that is not here, device={device!r} for one that is; give one")
    if gpu is not None:
        catalog.card(gpu)
    if device is not None:
        from autotune.probe.gpu import device_kind

        device_kind(device)


def _check_call(model: Any, call: Any) -> None:
    """The numbers of one call, and its edges where the model's class is known and refuses some."""
    if isinstance(call, Workload):
        numbers = {"height": call.height, "width": call.width}
    elif isinstance(call, Mapping):
        numbers = {argument: call.get(argument) for argument in _MOST}
    else:
        return
    for name, number in numbers.items():
        if number is None:
            continue
        if type(number) is not int or number < 1:
            raise WorkloadError(f"{name}={number!r} is not a positive whole number; write for example {name}=512")
        if number > _MOST[name]:
            raise WorkloadError(f"{name}={number} is too large; nearest: {_MOST[name]}")
    recipe = find(model) if isinstance(model, str) else None
    edge_px = EDGES_PX.get((recipe and recipe.pipeline_class) or "", 1)
    for name in ("height", "width"):
        number = numbers[name]
        if number is not None and number % edge_px:
            close = max(round(number / edge_px), 1) * edge_px
            takes = f"takes edges that are multiples of {edge_px} pixels"
            raise WorkloadError(f"{model} {takes}, and {name}={number} is not; nearest: {close}")


def _is_a(option: str, value: Any, kind: Any, wanted: str) -> None:
    if not isinstance(value, kind):
        raise PlanError(f"{option}={value!r} is not {wanted}")
