"""Tracing each distinct block once: its events are copied wherever the same block meets the same shapes again.

A FLUX transformer is 57 blocks of two kinds; a 4k image in 256-pixel tiles is half a million operators, nearly all in one
decoder. A block is the same as another if class, parameter shapes and every plain attribute of it and of what it holds are
the same. A blend over n rows is traced for one row and counted n times. What is kept alive between blocks and tiles comes
out of the model's own loops, which always run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from autotune.records.trace import EventKind
from autotune.trace.record import Op, Recorder, Tape

__all__ = ["Shortcuts"]

_PLAIN = (int, float, str, bool, type(None), torch.dtype)
_IGNORED = {"forward", "to", "_parameters", "_buffers", "_modules", "training"}


class _Output(NamedTuple):
    """How one returned tensor is made again: an argument, or a view of a storage that the call left alive."""

    argument: int | None
    number: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype


class _Recording(NamedTuple):
    """What one call wrote, and what it returned."""

    path: str
    events: list[tuple[int, int, int]]
    ops: list[Op]
    attentions: list[Any]
    modules: list[str]
    starts: tuple[int, int, int]
    kept: dict[int, int]
    outputs: list[Any]
    spec: TreeSpec


class Shortcuts:
    """The memory of calls that were traced, for one twin."""

    def __init__(self, recorder: Recorder, mode: FakeTensorMode) -> None:
        self._recorder, self._mode = recorder, mode
        self._seen: dict[Any, _Recording | None] = {}
        self._signatures: dict[int, Any] = {}

    def forget_signatures(self) -> None:
        """To be called when modules may have changed: another precision, other processors."""
        self._signatures.clear()

    def shorten(self, module: torch.nn.Module, path: str) -> None:
        """From now on the module's calls are traced once and copied after that."""
        forward = module.forward

        @functools.wraps(forward)
        def shortened(*args: Any, **kwargs: Any) -> Any:
            leaves, spec = tree_flatten((args, kwargs))
            key = self._key(module, leaves, spec)
            if key is None or self._recorder.paused:
                del leaves  # a cache in a list may drop its tensors during the call
                return forward(*args, **kwargs)
            recording = self._seen.get(key)
            if recording is not None:
                return self._replay(recording, path, leaves)
            tape, starts = self._recorder.tape, _lengths(self._recorder.tape)
            output = forward(*args, **kwargs)
            if key not in self._seen and tape is self._recorder.tape:
                self._seen[key] = self._capture(path, tape, starts, leaves, output)
            return output

        module.__dict__["forward"] = shortened

    def shorten_blend(self, blend: Callable[..., Any]) -> Callable[..., Any]:
        """A VAE's `blend_v`, `blend_h` or `blend_t`, run for one row and counted for all."""
        recorder = self._recorder

        def shortened(above: torch.Tensor, below: torch.Tensor, extent: int) -> Any:
            tape, start = recorder.tape, len(recorder.tape.ops)
            blended = blend(above, below, min(extent, 1))
            for index in range(start, len(tape.ops)):
                op_class, dtype, flops, moved, kernels, conv = tape.ops[index]
                tape.ops[index] = (op_class, dtype, flops * extent, moved * extent, kernels * extent, conv)
            return blended

        return shortened

    def _key(self, module: torch.nn.Module, leaves: Sequence[Any], spec: TreeSpec) -> Any:
        """What decides the events of a call; None where something in it could be changed by the call or is unknown."""
        if "list" in str(spec):
            return None  # caches travel in lists and are written to
        described: list[Any] = []
        places: dict[int, int] = {}
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                place = places.setdefault(leaf.untyped_storage()._cdata, len(places))
                described.append((tuple(leaf.shape), leaf.stride(), leaf.dtype, place, leaf.storage_offset()))
            elif isinstance(leaf, _PLAIN):
                described.append((type(leaf), leaf))
            else:
                return None
        if id(module) not in self._signatures:
            self._signatures[id(module)] = hash(_signature(module))
        return (type(module), self._signatures[id(module)], str(spec), tuple(described))

    def _capture(
        self, path: str, tape: Tape, starts: tuple[int, int, int], leaves: Sequence[Any], output: Any
    ) -> _Recording | None:
        """What the call wrote, if it can be repeated: all it leaves alive, and nothing else, it returns."""
        events = tape.events[starts[0] :]
        alive: dict[int, int] = {}
        for kind, ref, size in events:
            if kind == EventKind.ALLOC:
                alive[ref] = size
            elif kind == EventKind.FREE and alive.pop(ref, None) is None:
                return None
        arguments = {id(leaf): place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)}
        returned, spec = tree_flatten(output)
        outputs: list[Any] = []
        for leaf in returned:
            if not isinstance(leaf, torch.Tensor):
                if not isinstance(leaf, _PLAIN):
                    return None
                outputs.append(leaf)
                continue
            number = self._recorder.number_of(leaf)
            argument = arguments.get(id(leaf))
            if argument is None and number not in alive:
                return None
            outputs.append(
                _Output(
                    argument,
                    -1 if number is None else number,
                    tuple(leaf.shape),
                    tuple(leaf.stride()),
                    int(leaf.storage_offset()),
                    leaf.dtype,
                )
            )
        if {made.number for made in outputs if isinstance(made, _Output) and made.argument is None} != set(alive):
            return None
        modules = list(tape.modules)
        ops, attentions = tape.ops[starts[1] :], tape.attentions[starts[2] :]
        return _Recording(path, events, ops, attentions, modules, starts, alive, outputs, spec)

    def _replay(self, recording: _Recording, path: str, leaves: Sequence[Any]) -> Any:
        tape, recorder = self._recorder.tape, self._recorder
        op_shift = len(tape.ops) - recording.starts[1]
        attention_shift = len(tape.attentions) - recording.starts[2]
        numbers: dict[int, int] = {}
        modules: dict[int, int] = {}
        for kind, ref, size in recording.events:
            if kind == EventKind.ALLOC:
                numbers[ref] = recorder.new_number(size)
                ref = numbers[ref]
            elif kind == EventKind.FREE:
                ref = numbers[ref]
            elif kind == EventKind.OP:
                ref += op_shift
            elif kind in {EventKind.ENTER, EventKind.EXIT}:
                if ref not in modules:
                    here = path + recording.modules[ref].removeprefix(recording.path)
                    modules[ref] = tape.modules.setdefault(here, len(tape.modules))
                ref = modules[ref]
            else:
                ref += attention_shift
            tape.events.append((kind, ref, size))
        tape.ops += recording.ops
        tape.attentions += recording.attentions
        return tree_unflatten(self._outputs(recording, numbers, leaves), recording.spec)

    def _outputs(self, recording: _Recording, numbers: dict[int, int], leaves: Sequence[Any]) -> list[Any]:
        made: list[Any] = []
        same: dict[_Output, torch.Tensor] = {}
        with self._recorder.pause(), self._mode:
            whole: dict[int, torch.Tensor] = {}
            for output in recording.outputs:
                if not isinstance(output, _Output):
                    made.append(output)
                elif output.argument is not None:
                    made.append(leaves[output.argument])
                else:
                    if output.number not in whole:
                        elements = recording.kept[output.number] // output.dtype.itemsize
                        whole[output.number] = torch.empty(elements, dtype=output.dtype, device="cpu")
                        self._recorder.bind(whole[output.number], numbers[output.number])
                    if output not in same:
                        base = whole[output.number].view(output.dtype)
                        same[output] = base.as_strided(output.shape, output.stride, output.offset)
                    made.append(same[output])
        return made


def _lengths(tape: Tape) -> tuple[int, int, int]:
    return len(tape.events), len(tape.ops), len(tape.attentions)


def _signature(module: torch.nn.Module) -> Any:
    """Everything about a module that could change what its call does: of what it is made, not which weights it has."""
    own = [
        (name, tuple(t.shape), t.stride(), t.dtype)
        for table in (module._parameters, module._buffers)
        for name, t in table.items()
        if t is not None
    ]
    plain = [(name, _described(value)) for name, value in sorted(vars(module).items()) if name not in _IGNORED]
    children = [(name, _signature(child)) for name, child in module._modules.items() if child is not None]
    wrapped = getattr(vars(module).get("forward"), "autotune_mark", None)  # levers/forwarding.py
    return (type(module), wrapped, tuple(own), tuple(plain), tuple(children))


def _described(value: Any) -> Any:
    """A plain value as itself, a holder of plain values as these; anything else as this very object."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, list | tuple | set | frozenset):
        return (type(value), tuple(_described(item) for item in value))
    if isinstance(value, dict):
        return tuple((str(key), _described(item)) for key, item in value.items() if not callable(item))
    if type(value).__name__.endswith("Processor") or "AttnProcessor" in type(value).__name__:
        return (type(value), tuple((name, _described(item)) for name, item in sorted(vars(value).items())))
    return id(value)
