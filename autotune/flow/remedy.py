"""What a caller can do about an error of the call: by the types, the shapes and what is missing."""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from autotune.probe.workload import missing_inputs
from autotune.records.model import role_named

__all__ = ["remedy_for"]

_OF_TYPES = re.compile(r"dtype|scalar type|Input type|Half|BFloat16", re.IGNORECASE)
_OF_SHAPES = re.compile(r"shape|size|channels|dimension", re.IGNORECASE)
_OF_ATTRIBUTES = re.compile(r"\bself\.(\w+)")
_OF_VARIABLES = re.compile(r"(?<![.\w])[a-z]\w*")
_PER_PROMPT = ("num_images_per_prompt", "num_videos_per_prompt")
_WORDLESS = "prompt_embeds in the place of words"
_INSTEAD = {"text_encoder": _WORDLESS, "tokenizer": _WORDLESS, "image_encoder": "ip_adapter_image_embeds"}


def remedy_for(pipe: Any, call: Mapping[str, Any], component: str, error: BaseException | None) -> str:
    """A clause for the end of the message; empty where the pipeline's own words are all there is to say.

    Args:
        pipe: the pipeline in the precision in which it was called.
        call: the arguments.
        component: which raised the error; empty for the pipeline's own code.
        error: what it raised.
    """
    said = str(error)
    found = _absent(pipe, error) or _adapter_without_image(pipe, call)
    if not found and _OF_TYPES.search(said):
        found = _mixed(pipe, call, component)
    if not found and _OF_SHAPES.search(said):
        found = _misshapen(call)
    if not found and not component:
        found = _missing(pipe, call, said)
    return found or ("the pipeline as it is raises this error too" if component else "")


def _absent(pipe: Any, error: BaseException | None) -> str:
    """A component that is None, and that the line that failed asks for."""
    absent = [name for name, part in pipe.components.items() if part is None]
    asking = set().union(*_asking(pipe, error)) if isinstance(error, AttributeError | TypeError) else set()
    asked = next((name for name in absent if name in asking), None)
    asked = asked or next((name for name in absent if any(name.startswith(f"{each}_") for each in asking)), None)
    if asked is None:
        return ""
    kind = next((kind for kind in _INSTEAD if asked.startswith(kind)), "")
    instead = f"pass {_INSTEAD[kind]}, or " if kind else ""
    return f"pipe.{asked} is None: {instead}load the pipeline with it"


def _asking(pipe: Any, error: BaseException | None) -> Iterator[set[str]]:
    """What the lines of the pipeline's own methods that the error came through ask for: attributes, and variables that are
    None (`tokenizer`, of the tokenizers that are gone through)."""
    place = error.__traceback__ if error else None
    while place is not None:
        variables = place.tb_frame.f_locals
        if isinstance(variables.get("self"), type(pipe)):
            line = linecache.getline(place.tb_frame.f_code.co_filename, place.tb_lineno)
            empty = {name for name in _OF_VARIABLES.findall(line) if variables.get(name, line) is None}
            yield {*_OF_ATTRIBUTES.findall(line), *empty}
        place = place.tb_next


def _adapter_without_image(pipe: Any, call: Mapping[str, Any]) -> str:
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    given = any(call.get(name) is not None for name in ("ip_adapter_image", "ip_adapter_image_embeds"))
    if given or type(getattr(denoiser, "encoder_hid_proj", None)).__name__ != "MultiIPAdapterImageProjection":
        return ""
    return "an IP-Adapter is loaded: pass ip_adapter_image, or take it off with pipe.unload_ip_adapter()"


def _mixed(pipe: Any, call: Mapping[str, Any], component: str) -> str:
    """A tensor of the call, or a component, whose type is not the denoiser's."""
    types = {name: kind for name, part in pipe.components.items() if (kind := _type_of(part)) is not None}
    roles = {name: role_named(name) for name in types}
    denoiser = next((name for name, role in roles.items() if role == "denoiser" and name != component), component)
    wanted = types.get(denoiser, types.get(component))
    for name, value in call.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != wanted and wanted:
            return f"{name} is {_short(value.dtype)} beside a {_short(wanted)} {denoiser}: pass {name}.to({wanted})"
    order = sorted(types, key=lambda name: (name != component, roles[name] == "denoiser"))
    odd = next((name for name in order if types[name] != wanted), None)
    if odd is None or wanted is None:
        return ""
    return (
        f"{odd} is {_short(types[odd])} beside a {_short(wanted)} {denoiser}: pass it in the pipeline's precision, "
        f"pipe.{odd}.to({wanted}), or load both in one"
    )


def _type_of(part: Any) -> torch.dtype | None:
    """The type in which a network computes: that of most of its weights."""
    if not isinstance(part, torch.nn.Module):
        return None
    counts: dict[torch.dtype, int] = {}
    for parameter in part.parameters():
        if parameter.is_floating_point():
            counts[parameter.dtype] = counts.get(parameter.dtype, 0) + parameter.numel()
    return max(counts, key=lambda dtype: counts[dtype], default=None)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _misshapen(call: Mapping[str, Any]) -> str:
    given = [f"{name} of {'x'.join(map(str, v.shape))}" for name, v in call.items() if isinstance(v, torch.Tensor)]
    if given:
        return f"the call brings {', '.join(given)}: give the shape that this pipeline makes, or leave it out"
    several = next((name for name in _PER_PROMPT if (call.get(name) or 1) > 1), None)
    return f"{several}={call[several]} does not run here: call once for each, {several}=1" if several else ""


def _missing(pipe: Any, call: Mapping[str, Any], said: str) -> str:
    missing = missing_inputs(pipe, call)
    named = [name for name in missing if re.search(rf"\b{name}\b", said)] or missing
    return f"pass example={{...}} with real inputs, for example {named[0]!r}" if named else ""
