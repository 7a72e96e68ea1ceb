"""Precision: fp32 weights lowered to a half type. Weights in half precision are the user's choice and stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary

from autotune.errors import PlanError
from autotune.levers import _upstream
from autotune.levers.adapters import Fused
from autotune.levers.base import Domain, Lever, Subject, Undo, nothing, release_cache

__all__ = ["Dtype"]

_HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Dtype(Lever):
    """Casts parameter by parameter, so that modules a model wants in fp32 are kept there.

    `Module.to(dtype)` would cast those too, and would lose the originals; here the original `Parameter` objects are put
    back on undo, bit for bit. That costs their size in RAM while the plan is applied.
    """

    name = "dtype"
    summary = (
        "fp32 weights to fp16 or bf16",
        "half the memory, tensor cores",
        "tiny differences; RAM for the originals",
    )

    def domain(self, subject: Subject) -> Domain:
        half = _half_type(subject)
        if not _has_fp32(subject.pipe):
            return Domain(
                ("as_is",), "the weights are in half precision or quantised already, which is the owner's choice"
            )
        return Domain(("as_is", half), f"fp32 weights are lowered to {half} on this device")

    def check(self, subject: Subject, value: Any) -> None:
        if value in _HALF and not _has_fp32(subject.pipe):
            raise PlanError(f"dtype={value!r} cannot be applied: most weights are not fp32; what works is 'as_is'")

    def read(self, pipe: Any) -> str:
        return "as_is"

    def apply(self, subject: Subject, value: Any, *, undo: bool) -> Undo:
        if value == "as_is":
            return nothing
        parts = list(_upstream.networks(subject.pipe).values())
        fused = Fused(subject.pipe)
        originals = _Originals(parts, _HALF[value]) if undo else None
        lowered = WeakIdKeyDictionary()  # ties stay ties; originals may go as we cast
        for part in parts:
            kept = _upstream.kept_in_fp32(part, _HALF[value])
            for path, module in part.named_modules():
                for table in (module._parameters, module._buffers):
                    for name, tensor in table.items():
                        if tensor is None or tensor.dtype != torch.float32 or _is_kept(f"{path}.{name}", kept):
                            continue
                        if table is module._buffers and name in module._non_persistent_buffers_set:
                            continue  # rotary frequencies: from_pretrained(dtype=...) leaves them in fp32 too
                        if tensor not in lowered:
                            lowered[tensor] = _cast(tensor, _HALF[value])
                        table[name] = lowered[tensor]
                        if originals is not None:
                            full = f"{path}.{name}" if path else name
                            originals.keep(_Place(part, full, table, name, tensor, lowered[tensor]))
        if originals is None:
            return nothing

        def put_back() -> None:
            fused.as_before()
            originals.put_back()
            fused.as_found()

        return put_back


class _Place(NamedTuple):
    """Where a tensor was lowered."""

    part: torch.nn.Module
    path: str
    table: dict[str, Any]
    name: str
    original: torch.Tensor
    lowered: torch.Tensor


class _Originals:
    """Tensor objects that were replaced, waiting in RAM wherever they came from.

    What somebody else put into a network meanwhile stays there and gets the precision of the originals: a LoRA's weights, an
    embedding with a row for a new token. Of such an embedding the rows that were only lowered are the original's again.
    """

    def __init__(self, parts: Sequence[torch.nn.Module], half: torch.dtype) -> None:
        self._parts, self._half = parts, half
        self._places: list[_Place] = []
        self._devices: list[tuple[torch.Tensor, torch.device]] = []
        self._owners = WeakIdKeyDictionary({tensor: None for _, _, tensor in self._halves()})

    def keep(self, place: _Place) -> None:
        """Remembers the object and frees what it takes of a card."""
        self._places.append(place)
        tensor = place.original
        if tensor.device.type not in {"cpu", "meta"}:
            self._devices.append((tensor, tensor.device))
            tensor.data = tensor.data.to("cpu")

    def put_back(self) -> None:
        """The same objects in the same places on the same devices."""
        at = {(place.part, place.path): place.original for place in self._places}
        self._exchange()  # the lowered ones go first: a card need not hold both
        for part, path, tensor in self._halves():
            if tensor not in self._owners:
                tensor.data = _raised(tensor.data, at.get((part, path)))
        for device in {device for _, device in self._devices}:
            release_cache(device)
        for tensor, device in self._devices:
            tensor.data = tensor.data.to(device)

    def _exchange(self) -> None:
        for place in self._places:
            resized = place.lowered.shape != place.original.shape  # transformers does so within the same parameter
            if place.table.get(place.name) is place.lowered and not resized:
                place.table[place.name] = place.original
        self._places = []

    def _halves(self) -> list[tuple[torch.nn.Module, str, torch.Tensor]]:
        return [
            (part, path, tensor)
            for part in self._parts
            for path, tensor in (*part.named_parameters(), *part.named_buffers())
            if tensor.dtype == self._half
        ]


def _raised(tensor: torch.Tensor, original: torch.Tensor | None) -> torch.Tensor:
    """A newcomer in fp32, with the rows of what was in its place where they differ in nothing but precision."""
    raised = tensor.to(torch.float32)
    if original is not None and tensor.dim() > 1 and tensor.shape[1:] == original.shape[1:] and not tensor.is_meta:
        rows = min(len(tensor), len(original))
        before = original.detach()[:rows].to(tensor.device)
        same = (before.to(tensor.dtype) == tensor[:rows]).flatten(1).all(dim=1).view(-1, *[1] * (tensor.dim() - 1))
        raised[:rows] = torch.where(same, before, raised[:rows])  # no indexing by a mask: a twin has no values
    return raised


def _has_fp32(pipe: Any) -> bool:
    """Whether most weights are fp32: a VAE that its owner left in fp32 beside a half denoiser stays so."""
    sizes = {True: 0, False: 0}
    for part in _upstream.networks(pipe).values():
        for parameter in part.parameters():
            sizes[parameter.dtype == torch.float32] += parameter.numel()
    return sizes[True] > sizes[False]


def _half_type(subject: Subject) -> str:
    """The half type that some networks have already; else fp16 for UNets, which were published in it, and bf16 for
    transformers, whose activations may overflow fp16, wherever the device computes it."""
    present = {p.dtype for part in _upstream.networks(subject.pipe).values() for p in part.parameters()}
    for name, dtype in _HALF.items():
        if dtype in present:
            return name
    convolutional = any("UNet" in type(part).__name__ for part in _upstream.networks(subject.pipe).values())
    if subject.device.kind == "cpu":
        return "bfloat16"
    return "float16" if convolutional or not subject.device.supports_bf16 else "bfloat16"


def _is_kept(path: str, patterns: tuple[str, ...]) -> bool:
    return any(f".{pattern}." in f".{path}." for pattern in patterns)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with torch.no_grad():
        lowered = tensor.detach().to(dtype)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(lowered, requires_grad=tensor.requires_grad)
    return lowered
