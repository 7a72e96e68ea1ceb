"""Tiled and sliced decodes without tracing each tile: the geometry is the VAE's own code, repeated parts are replayed.

A 4k image in 256-pixel tiles is half a million operators. The decoder is traced once per tile shape and its events are
copied for the other tiles; a blend over n rows is traced for one row and counted n times. What is kept alive between tiles
comes out of the VAE's own loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from autotune.records.trace import EventKind
from autotune.trace.record import Recorder, Tape

__all__ = ["shorten_blend", "shorten_module"]


class _Recording(NamedTuple):
    """What one call wrote, from where its lists stood, and the tensor it returned."""

    tape: Tape
    starts: tuple[int, int, int]
    first_number: int
    kept_number: int
    output: torch.Tensor


def shorten_module(module: torch.nn.Module, recorder: Recorder, mode: FakeTensorMode) -> None:
    """Calls of the twin's module with shapes seen before are replayed instead of traced."""
    forward = module.forward
    seen: dict[Any, _Recording | None] = {}

    def shortened(*args: Any, **kwargs: Any) -> Any:
        plain = not kwargs and all(isinstance(arg, torch.Tensor) or arg is None for arg in args)
        if not plain:
            return forward(*args, **kwargs)
        weight = next(module.parameters(), None)
        key = (weight.dtype if weight is not None else None, *(_signature(arg) for arg in args))
        if seen.get(key) is not None:
            return _replay(seen[key], recorder, mode)  # type: ignore[arg-type]
        tape, starts, first = recorder.tape, _lengths(recorder.tape), recorder.new_number(0)
        output = forward(*args)
        seen.setdefault(key, _capture(tape, starts, first, output, recorder, mode))
        return output

    module.__dict__["forward"] = shortened


def shorten_blend(blend: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    """A VAE's `blend_v`, `blend_h` or `blend_t`, run for one row and counted for all."""

    def shortened(above: torch.Tensor, below: torch.Tensor, extent: int) -> Any:
        tape, start = recorder.tape, len(recorder.tape.ops)
        blended = blend(above, below, min(extent, 1))
        for index in range(start, len(tape.ops)):
            op_class, dtype, flops, moved, kernels, conv = tape.ops[index]
            tape.ops[index] = (op_class, dtype, flops * extent, moved * extent, kernels * extent, conv)
        return blended

    return shortened


def _signature(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else (tuple(tensor.shape), tensor.stride(), tensor.dtype)


def _lengths(tape: Tape) -> tuple[int, int, int]:
    return len(tape.events), len(tape.ops), len(tape.attentions)


def _capture(
    tape: Tape, starts: tuple[int, int, int], first: int, output: Any, recorder: Recorder, mode: FakeTensorMode
) -> _Recording | None:
    """What the call wrote, if it can be repeated: it frees all it allocates but the one tensor it returns."""
    if not isinstance(output, torch.Tensor) or recorder.tape is not tape:
        return None
    kept = recorder.number_of(output)
    alive: set[int] = set()
    for kind, ref, _ in tape.events[starts[0] :]:
        if kind == EventKind.ALLOC:
            alive.add(ref)
        elif kind == EventKind.FREE:
            if ref not in alive:
                return None
            alive.discard(ref)
    if kept is None or alive != {kept} or output.storage_offset() != 0:
        return None
    frozen = Tape()
    frozen.events, frozen.ops = tape.events[starts[0] :], tape.ops[starts[1] :]
    frozen.attentions, frozen.modules = tape.attentions[starts[2] :], dict(tape.modules)
    with recorder.pause(), mode:
        likeness = torch.empty_strided(output.shape, output.stride(), dtype=output.dtype)
    return _Recording(frozen, starts, first, kept, likeness)


def _replay(recording: _Recording, recorder: Recorder, mode: FakeTensorMode) -> torch.Tensor:
    tape = recorder.tape
    _, op_start, attention_start = recording.starts
    op_shift, attention_shift = len(tape.ops) - op_start, len(tape.attentions) - attention_start
    paths = {number: path for path, number in recording.tape.modules.items()}
    numbers: dict[int, int] = {}
    for kind, ref, size in recording.tape.events:
        if kind == EventKind.ALLOC:
            numbers[ref] = recorder.new_number(size)
        if kind in {EventKind.ALLOC, EventKind.FREE}:
            ref = numbers[ref]
        elif kind == EventKind.OP:
            ref += op_shift
        elif kind in {EventKind.ENTER, EventKind.EXIT}:
            ref = tape.modules.setdefault(paths[ref], len(tape.modules))
        else:
            ref += attention_shift
        tape.events.append((kind, ref, size))
    tape.ops += recording.tape.ops
    tape.attentions += recording.tape.attentions
    like = recording.output
    with recorder.pause(), mode:
        output = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
    recorder.bind(output, numbers[recording.kept_number])
    return output
