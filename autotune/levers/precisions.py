"""Which precisions a plan may choose for a pipeline on a device, and which only its caller may.

float16 where it is known to give right images, float32 always, bfloat16 where the card computes it. What is known of a model
comes from published facts; a UNet that nobody has described counts as safe in float16, in which UNets are published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from autotune.levers.base import Subject
from autotune.records.halves import HalfPrecision
from autotune.records.precision import DEFAULT, Precision, short
from autotune.upstream import port

__all__ = ["Precisions", "as_found", "precisions"]


class Precisions(NamedTuple):
    """What a search looks at, and what it only names."""

    offered: tuple[Precision | None, ...]
    """May be chosen; as found first, unless the card computes it wrongly, or not at all and nothing is loaded in it yet."""
    named: tuple[Precision, ...]
    """Not known to give right images here: taken only where the caller fixes it."""
    reason: str
    """Why these."""
    caution: str = ""
    """What is known about the named ones, in a clause."""


def precisions(subject: Subject) -> Precisions:
    """The precisions of a pipeline that is loaded, or is still to be loaded as planned."""
    device, found = subject.device, _found(subject.pipe)
    facts = subject.known or _by_class(subject.pipe)
    halves = {dtype for dtype in found.values() if dtype != "float32"}
    wrong = device.fp16_fails and "float16" in halves
    emulated = subject.unloaded and "bfloat16" in halves and not device.supports_bf16
    kept: tuple[None, ...] = () if wrong or emulated else (None,)
    if device.supports_bf16:
        free = subject.unloaded or _mostly_fp32(subject.pipe)
        if not free:
            return Precisions(
                kept, (), "the weights are in half precision or quantised already, which is the owner's choice"
            )
        half = _documented(subject, facts, found)
        return Precisions(
            (*kept, *_distinct((half,), found)), (), f"{short(half[DEFAULT])} is the half precision that it is used in"
        )
    fp16 = Precision({DEFAULT: "float16", **dict.fromkeys(_present(facts.fp16_kept_fp32, found), "float32")})
    fp32 = (Precision("float32"),) if halves else ()
    if device.fp16_fails:
        return Precisions((*kept, *_distinct(fp32, found)), (), f"{device.name} is known to give black images in fp16")
    if facts.fp16 == "safe":
        reason = f"{device.name} computes no bf16; fp16 is known to work for this model" if "bfloat16" in halves else ""
        reason = reason or "fp16 is known to work for this model"
        return Precisions((*kept, *_distinct((fp16, *fp32), found)), (), reason)
    named = _distinct((fp16,), found)
    return Precisions((*kept, *_distinct(fp32, found)), named, f"{device.name} computes no bf16", facts.why)


def as_found(pipe: Any) -> Precision:
    """The precision that each network has now; that of the denoiser, or of the largest network, is the default."""
    found = _found(pipe)
    parts = port.networks(pipe)
    main = max(found, key=lambda name: (parts[name] in port.denoisers(pipe).values(), _size(parts[name])), default=None)
    return Precision({**found, DEFAULT: found[main]}) if main is not None else Precision()


def _size(part: Any) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def _distinct(offered: tuple[Precision, ...], found: Mapping[str, str]) -> tuple[Precision, ...]:
    """Without those that change nothing."""
    return tuple(dict.fromkeys(one for one in offered if any(one.of(name) != has for name, has in found.items())))


def _found(pipe: Any) -> dict[str, str]:
    """The float type of most weights of each network; quantised networks are left out."""
    found = {}
    for name, part in port.networks(pipe).items():
        sizes: dict[str, int] = {}
        for tensor in part.parameters():
            dtype = str(tensor.dtype).removeprefix("torch.")
            sizes[dtype] = sizes.get(dtype, 0) + tensor.numel()
        main = max(sizes, key=lambda dtype: sizes[dtype], default="")
        if main in {"float32", "float16", "bfloat16"} and not getattr(part, "is_quantized", False):
            found[name] = main
    return found


def _mostly_fp32(pipe: Any) -> bool:
    """Whether most weights are fp32: a VAE that its owner left in fp32 beside a half denoiser stays so."""
    sizes = {True: 0, False: 0}
    for part in port.networks(pipe).values():
        for parameter in part.parameters():
            sizes["float32" in str(parameter.dtype)] += parameter.numel()
    return sizes[True] > sizes[False]


def _documented(subject: Subject, facts: HalfPrecision, found: Mapping[str, str]) -> Precision:
    """The half precision of documented use. Loaded beside a half that is there already, the rest follows that; on the CPU
    bfloat16, for which it has instructions."""
    if subject.device.kind == "cpu":
        return Precision("bfloat16")
    present = [half for half in ("float16", "bfloat16") if half in found.values()]
    if present and not subject.unloaded:
        return Precision(present[0])
    return Precision({name: dtype for name, dtype in facts.documented.items() if name == DEFAULT or name in found})


def _present(names: tuple[str, ...], found: Mapping[str, str]) -> list[str]:
    return [name for name in names if name in found]


def _by_class(pipe: Any) -> HalfPrecision:
    """What the classes tell of a model that nobody has described."""
    classes = [type(part).__name__ for part in port.networks(pipe).values()]
    if any("UNet" in name for name in classes):
        return HalfPrecision(half="float16", fp16="safe", why="UNets are published in float16", source="diffusers")
    why = "nobody has published whether this model gives right images in float16"
    return HalfPrecision(half="bfloat16", fp16="unknown", why=why, source="")
