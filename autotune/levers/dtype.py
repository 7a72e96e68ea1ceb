"""Precision: the weights of each network cast to fp32, fp16 or bf16, and the originals put back.

Weights that are in half precision already are the owner's choice: they are cast only where the caller says so, or where the
device cannot compute them (bf16 below compute capability 8.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.utils.weak import WeakIdKeyDictionary

from autotune.errors import PlanError, nearest
from autotune.levers.adapters import Fused
from autotune.levers.base import Domain, Lever, Subject, release_cache
from autotune.levers.files import Files
from autotune.levers.journal import Journal, Slot
from autotune.levers.precisions import precisions
from autotune.records.precision import AS_IS, Precision
from autotune.upstream import fakes, internals, port

__all__ = ["Dtype"]

_FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Dtype(Lever):
    """Casts parameter by parameter, so that modules a model wants in fp32 are kept there.

    `Module.to(dtype)` would cast those too, and would lose the originals; here the original `Parameter` objects are put
    back on undo, bit for bit. That costs their size in RAM while the plan is applied; those that files hold are read again
    instead.
    """

    name = "dtype"
    summary = (
        "weights to fp16, bf16 or fp32, by component",
        "half the memory, tensor cores",
        "tiny differences; RAM for the originals",
    )

    def domain(self, subject: Subject) -> Domain:
        found = precisions(subject)
        return Domain(found.offered, found.reason)

    def check(self, subject: Subject, value: Any) -> None:
        value = Precision(value)
        parts = port.networks(subject.pipe)
        for name in value.components:
            if name not in parts:
                raise PlanError(
                    f"dtype={value.written!r} names {name}, which {type(subject.pipe).__name__} has not; it has "
                    f"{', '.join(parts)}; nearest: {nearest(name, list(parts), 1)}"
                )
        quantised = [
            name
            for name, part in parts.items()
            if _is_quantised(part) and name in value.components and value.of(name) != AS_IS
        ]
        if quantised:
            raise PlanError(
                f"dtype={value.written!r} cannot be applied: the weights of {', '.join(quantised)} are quantised; "
                f"what works is {quantised[0]}=as_is"
            )

    def read(self, pipe: Any) -> None:
        return None

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        targets = _targets(subject.pipe, Precision(value))
        if not targets:
            return
        if not subject.keeps_originals:
            _lower(targets)
            return
        fused, originals = Fused(subject.pipe), _Originals(targets, subject.files)
        journal.push(fused.as_found)
        journal.push(originals.come_home)
        for place, cast in _casts(targets):
            shape = place.original.shape
            journal.change(
                partial(place.put, cast), partial(place.put_back, cast, shape), partial(place.was, cast, shape)
            )
            originals.leave(place, cast)
        journal.push(fused.as_before)


class _Place(NamedTuple):
    """Where a tensor stands that is not in the precision it is to have."""

    part: torch.nn.Module
    path: str
    table: dict[str, Any]
    name: str
    original: torch.Tensor
    wanted: torch.dtype

    def put(self, cast: torch.Tensor) -> None:
        """The cast tensor takes the original's place."""
        self.table[self.name] = cast

    def put_back(self, cast: torch.Tensor, shape: torch.Size) -> None:
        """The original takes its place again, unless somebody has put another there, or resized the cast one as transformers
        does it."""
        if self.table.get(self.name) is cast and cast.shape == shape:
            self.table[self.name] = self.original

    @property
    def is_back(self) -> bool:
        """Whether the original is in its place."""
        return self.table.get(self.name) is self.original

    def was(self, cast: torch.Tensor, shape: torch.Size) -> tuple[Slot, ...]:
        """The original, or one like it without numbers while its own are in a file."""
        original = self.original
        if self.table.get(self.name) is not cast or cast.shape != shape:
            return ()
        if original.shape == shape:
            return (Slot(self.table, self.name, original),)
        alike = torch.empty(shape, dtype=original.dtype, device="meta")
        return (
            Slot(
                self.table, self.name, torch.nn.Parameter(alike) if isinstance(original, torch.nn.Parameter) else alike
            ),
        )


def _targets(pipe: Any, precision: Precision) -> dict[torch.nn.Module, torch.dtype]:
    """The networks that are to be cast. Quantised ones stay: what they hold is no float."""
    parts = port.networks(pipe).items()
    named = {part: precision.of(name) for name, part in parts if not _is_quantised(part)}
    return {part: _FLOATS[dtype] for part, dtype in named.items() if dtype != AS_IS}


def _places(targets: Mapping[torch.nn.Module, torch.dtype]) -> Iterator[_Place]:
    """Every tensor to cast, in the order of modules; a tied one in each of its places."""
    for part, dtype in targets.items():
        kept = () if dtype is torch.float32 else internals.kept_in_fp32(part, dtype)
        for module_path, module in part.named_modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in list(table.items()):
                    path = f"{module_path}.{name}" if module_path else name
                    if tensor is None or tensor.dtype not in _FLOATS.values():
                        continue
                    wanted = torch.float32 if _is_kept(path, kept) else dtype
                    if name in module._non_persistent_buffers_set and tensor.dtype is torch.float32:
                        continue  # rotary frequencies: from_pretrained(dtype=...) leaves them in fp32 too
                    if tensor.dtype is not wanted:
                        yield _Place(part, path, table, name, tensor, wanted)


def _casts(targets: Mapping[torch.nn.Module, torch.dtype]) -> Iterator[tuple[_Place, torch.Tensor]]:
    """Each place with what goes there: one cast tensor for an original, however many places it is tied to."""
    cast = WeakIdKeyDictionary()  # originals may go as we cast
    for place in _places(targets):
        if place.original not in cast:
            cast[place.original] = _cast(place.original, place.wanted)
        yield place, cast[place.original]


def _lower(targets: Mapping[torch.nn.Module, torch.dtype]) -> None:
    """Casts for good. Interrupted, what was cast is cast back: of one precision again, though its last bits are gone."""
    rollback, again = Journal(), WeakIdKeyDictionary()
    try:
        for place, cast in _casts(targets):
            back = partial(_raise_again, place.table, place.name, place.original.dtype, again)
            rollback.change(partial(place.put, cast), back)
            del place
    except BaseException:
        rollback.roll_back()
        raise


def _raise_again(table: dict[str, Any], name: str, dtype: torch.dtype, again: WeakIdKeyDictionary) -> None:
    """Casts back; what is tied stays tied."""
    cast = table[name]
    if cast.dtype is not dtype:
        if cast not in again:
            again[cast] = _cast(cast, dtype)
        table[name] = again[cast]


class _Originals:
    """Tensor objects that were replaced, waiting in RAM wherever they came from.

    What somebody else put into a network meanwhile stays there and gets the precision of the originals: a LoRA's weights, an
    embedding with a row for a new token. Of such an embedding the rows that were only cast are the original's again.
    """

    def __init__(self, targets: Mapping[torch.nn.Module, torch.dtype], files: Files | None) -> None:
        self._targets, self._files = targets, files
        self._found = {part: _main_dtype(part) for part in targets}
        self._places: list[tuple[_Place, torch.Tensor, int]] = []
        self._devices: list[tuple[torch.Tensor, torch.device]] = []
        self._on_disk = WeakIdKeyDictionary()
        self._owners = WeakIdKeyDictionary({tensor: None for _, _, tensor in self._cast_now()})

    def leave(self, place: _Place, cast: torch.Tensor) -> None:
        """Remembers the object, and frees what it takes of a card, or of RAM too where a file has it."""
        self._places.append((place, cast, internals.writes(cast)))
        tensor = place.original
        if tensor in self._on_disk:  # tied, and away already
            return
        if tensor.device.type not in {"cpu", "meta"}:
            self._devices.append((tensor, tensor.device))
        if self._files is not None and not tensor.is_meta and self._files.hold(place.part, place.path, tensor):
            self._on_disk[tensor] = (place.part, place.path)
            tensor.data = torch.empty(0, dtype=tensor.dtype)
        elif tensor.device.type not in {"cpu", "meta"}:
            tensor.data = tensor.data.to("cpu")

    def come_home(self) -> None:
        """Those that are in their places again have their data again, on the device where it lay."""
        for tensor, (part, path) in list(self._on_disk.items()):  # type: ignore[no-untyped-call]
            tensor.data = self._files.read(part, path)  # type: ignore[union-attr] # they were found there
            del self._on_disk[tensor]
        for place, cast, writes in self._places:
            is_written = internals.writes(cast) != writes  # by somebody who has loaded numbers, which stay
            if place.is_back and is_written:
                place.original.data = cast.detach().to(place.original.dtype)
        at = {(place.part, place.path): place.original for place, _, _ in self._places}
        for part, path, tensor in self._cast_now():
            if tensor not in self._owners:
                tensor.data = _as_found(tensor.data, at.get((part, path)), self._found[part])
        for device in {device for _, device in self._devices}:
            release_cache(device)
        for tensor, device in self._devices:
            tensor.data = tensor.data.to(device)

    def _cast_now(self) -> Iterator[tuple[torch.nn.Module, str, torch.Tensor]]:
        """What has the precision that its network was cast to."""
        for part, dtype in self._targets.items():
            for path, tensor in (*part.named_parameters(), *part.named_buffers()):
                if tensor.dtype is dtype:
                    yield part, path, tensor


def _main_dtype(part: torch.nn.Module) -> torch.dtype:
    """The float type of most of its weights."""
    sizes = dict.fromkeys(_FLOATS.values(), 0)
    for tensor in part.parameters():
        if tensor.dtype in sizes:
            sizes[tensor.dtype] += tensor.numel()
    return max(sizes, key=lambda dtype: sizes[dtype])


def _as_found(tensor: torch.Tensor, original: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """A newcomer in the precision of the originals, with the rows of what was in its place where they differ in nothing but
    precision."""
    fitting = tensor.to(dtype if original is None else original.dtype)
    if original is not None and tensor.dim() > 1 and tensor.shape[1:] == original.shape[1:] and not tensor.is_meta:
        rows = min(len(tensor), len(original))
        before = original.detach()[:rows].to(tensor.device)
        same = (before.to(tensor.dtype) == tensor[:rows]).flatten(1).all(dim=1).view(-1, *[1] * (tensor.dim() - 1))
        fitting[:rows] = torch.where(same, before, fitting[:rows])  # no indexing by a mask: a twin has no values
    return fitting


def _is_quantised(part: torch.nn.Module) -> bool:
    return bool(getattr(part, "is_quantized", False))


def _is_kept(path: str, patterns: Sequence[str]) -> bool:
    return any(f".{pattern}." in f".{path}." for pattern in patterns)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    fake = fakes.cast(tensor, dtype)
    if fake is not None:
        return fake
    with torch.no_grad():
        cast = tensor.to(dtype)
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(cast, requires_grad=tensor.requires_grad)
    return cast
