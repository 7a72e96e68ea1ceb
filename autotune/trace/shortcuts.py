"""Tracing each distinct block once: its events are copied wherever the same block meets the same shapes again.

A FLUX transformer is 57 blocks of two kinds; a 4k image in 256-pixel tiles is half a million operators, nearly all in one
decoder. A block is the same as another if class, parameter shapes and every plain attribute of it and of what it holds are
the same, and a call is the same as another if its arguments are: shapes, what shares memory, and all that lies in lists. A
blend over n rows is traced for one row and counted n times. What is kept alive between blocks and tiles comes out of the
model's own loops, which always run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import TreeSpec, tree_flatten

from autotune.trace.copies import PLAIN, Before, Recording, captured, holders_in, lengths, written_again
from autotune.trace.record import Recorder
from autotune.upstream.fakes import no_dispatch

__all__ = ["Shortcuts"]

# Of a module's own bookkeeping nothing decides what its call does but hooks, and those of a twin are functions.
_IGNORED = {"forward", "to", *(name for name in vars(torch.nn.Module()) if name.startswith("_")), "training"}


class Shortcuts:
    """The memory of calls that were traced, for one twin.

    Args:
        recorder: where calls are written.
        mode: of the twin's fakes.
        value_of: the values of a fake, where they are known: they may decide what a call does.
    """

    def __init__(
        self, recorder: Recorder, mode: FakeTensorMode, value_of: Callable[[torch.Tensor], torch.Tensor | None]
    ) -> None:
        self._recorder, self._mode, self._value_of = recorder, mode, value_of
        self._seen: dict[Any, Recording | None] = {}
        self._signatures: dict[int, Any] = {}

    def forget_signatures(self) -> None:
        """To be called when modules may have changed: another precision, other processors."""
        self._signatures.clear()

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Inside, each distinct block is traced once more, and what is remembered then is forgotten."""
        before, self._seen = self._seen, {}
        self.forget_signatures()
        try:
            yield
        finally:
            self._seen = before
            self.forget_signatures()

    def shorten(self, module: torch.nn.Module, path: str) -> None:
        """From now on the module's calls are traced once and copied after that."""
        forward, recorder = module.forward, self._recorder

        @functools.wraps(forward)
        def shortened(*args: Any, **kwargs: Any) -> Any:
            with torch._C.DisableTorchFunction():  # tens of thousands of shapes, none of which anybody need answer
                leaves, spec = tree_flatten((args, kwargs))
                lists = list(holders_in((args, kwargs), list))
                key = None if recorder.paused else self._key(module, leaves, spec, lists)
                recording = None if key is None else self._seen.get(key)
                if recording is not None:
                    return written_again(recording, path, leaves, lists, recorder, self._mode)
                unknown = key is not None and key not in self._seen
                before = Before.of(leaves, (args, kwargs), recorder) if unknown else None
            del leaves  # a call may drop what is in its lists
            tape, starts = recorder.tape, lengths(recorder.tape)
            output = forward(*args, **kwargs)
            if before is not None and tape is recorder.tape:
                with torch._C.DisableTorchFunction():
                    kept = captured(path, tape, starts, before, output, recorder)
                    unchanged = self._signatures.get(id(module)) == hash(_signature(module))
                self._seen[key] = kept if unchanged else None
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

    def _key(self, module: torch.nn.Module, leaves: Sequence[Any], spec: TreeSpec, lists: Sequence[list[Any]]) -> Any:
        """What decides the events of a call, and what it leaves behind; None where something in it is unknown."""
        if any(isinstance(item, list | tuple | dict) for items in lists for item in items):
            return None
        first: dict[int, tuple[int, int]] = {}
        described: list[Any] = []
        for leaf in leaves:
            if isinstance(leaf, torch.Tensor):
                storage, offset = leaf.untyped_storage()._cdata, int(leaf.storage_offset())
                place, start = first.setdefault(storage, (len(first), offset))
                is_recorded = self._recorder.number_of(leaf) is not None
                laid = tuple(leaf.shape), leaf.stride(), leaf.dtype, place, offset - start
                described.append((*laid, is_recorded, self._numbers_in(leaf)))
            elif isinstance(leaf, PLAIN):
                described.append((type(leaf), leaf))
            else:
                return None
        if id(module) not in self._signatures:
            self._signatures[id(module)] = hash(_signature(module))
        same = tuple(next(n for n, other in enumerate(lists) if other is one) for one in lists)
        return (type(module), self._signatures[id(module)], str(spec), same, tuple(described))

    def _numbers_in(self, leaf: torch.Tensor) -> tuple[int, ...] | None:
        known = self._value_of(leaf)
        if known is None:
            return None
        with no_dispatch():
            return tuple(known.flatten().tolist())


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
    """A plain value as itself, a holder of plain values as these; anything else as this very object with its plain values."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.stride(), value.dtype)
    if isinstance(value, list | tuple | set | frozenset):
        return (type(value), tuple(_described(item) for item in value))
    if isinstance(value, dict):
        return tuple((str(key), _described(item)) for key, item in value.items() if not callable(item))
    if type(value).__name__.endswith("Processor") or "AttnProcessor" in type(value).__name__:
        return (type(value), tuple((name, _described(item)) for name, item in sorted(vars(value).items())))
    state = getattr(value, "__dict__", None)
    if not isinstance(state, dict) or callable(value):
        return id(value)
    return (id(value), tuple((name, item) for name, item in sorted(state.items()) if isinstance(item, PLAIN)))
