"""Where fakes meet code that wants numbers, and where attention is one event whatever the CPU makes of it.

`.numpy()`, `.item()` and truth values of a fake are made up: enough for post-processing and for safety checkers, which look at
values only to blank an image. Numbers that the code itself wrote into a tensor are `known.py`'s to tell, and the few that the
pipeline gave a component (the grid of an image's patches); what masks select is
`masks.py`'s, how tokens are routed `routing.py`'s.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.overrides import TorchFunctionMode

from autotune.records.trace import DTYPES, Attention, EventKind
from autotune.trace.fills import part_bytes
from autotune.trace.known import Known
from autotune.trace.masks import masks_of, nonzero, without_masks
from autotune.trace.operators import dtype_code
from autotune.trace.record import Recorder
from autotune.trace.routing import Routing

__all__ = ["Borders", "Refused"]


class Refused(NamedTuple):
    """A torch function that raised, with what it was called with."""

    error: Exception
    function: Any
    args: Any
    kwargs: Any


class Borders(TorchFunctionMode):
    """Answers what only values could tell, and remembers that it did.

    Args:
        recorder: what attention is told to.
        number: the value that every element of a fake has, 0 or 1; masks leave out as many.
        routing: how a mixture of experts shares its tokens out.
    """

    def __init__(self, recorder: Recorder, number: int = 0, routing: Routing | None = None) -> None:
        super().__init__()
        self.recorder, self.number = recorder, number
        self.made_up = False
        """Whether a number was given out that a real tensor might have answered otherwise."""
        self.refused: Refused | None = None
        """The last function that raised."""
        self._known, self._routing = Known(recorder.pause), routing or Routing()

    def tell(self, fake: torch.Tensor, value: torch.Tensor | None) -> None:
        """The fake stands for this tensor, whose values matter if they are a few whole numbers."""
        self._known.tell(fake, value)

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """The values of a tensor of the pipeline, where they matter and are known."""
        return self._known.value_of(tensor) if isinstance(tensor, FakeTensor) else self._known.few(tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            return self._answer(func, args, kwargs or {})
        except Exception as error:  # whatever it is: who is to blame is found out later (blame.py)
            self.refused = Refused(error, func, args, kwargs or {})
            raise

    def _answer(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is F.scaled_dot_product_attention:
            return self._attention(func, args, kwargs)
        if func in _MAKERS:
            return self._known.made(func, args, kwargs)
        if self._known and func not in _VALUES:
            if self._known.knows(args, kwargs):
                return self._known.called(func, args, kwargs)
            self._known.changed(func, args, kwargs)
        if self._known and func in _SIZED:
            args = (args[0], *self._known.numbers_for(args[1:]))
        if not args or not isinstance(args[0], FakeTensor):
            return func(*args, **kwargs)
        if func in _VALUES:
            return _VALUES[func](self._value(args[0]))
        if func is torch.Tensor.__setitem__ and type(args[2]) in _NUMBERS:
            with torch._C.DisableTorchFunction():
                size_bytes = part_bytes(args[0], args[1])
                if size_bytes is not None:
                    return self.recorder.fill(args[0], size_bytes)
        if func is torch.Tensor.__getitem__:
            self.made_up |= any(isinstance(mask, FakeTensor) for mask in masks_of(args[1]))
            with self.recorder.pause():
                index = without_masks(args[1], left_out=self.number)
            return func(args[0], index)
        if func in _NONZERO and not kwargs.get("as_tuple"):
            self.made_up = True
            return nonzero(args[0], left_out=self.number)
        if func in _COUNTS and (counts := self._routing.counts(args[0])) is not None:
            return self._known.made(torch.tensor, (counts,), {})
        out = func(*args, **kwargs)
        if func in _CHOICES:
            self._routing.choose(out.indices, among=args[0])
        return out

    def _value(self, tensor: FakeTensor) -> Any:
        known = self._known.value_of(tensor)
        if known is not None:
            with unset_fake_temporarily():
                return known.numpy()
        self.made_up = True
        dtype = {torch.bfloat16: torch.float32}.get(tensor.dtype, tensor.dtype)
        name = str(dtype).removeprefix("torch.")
        if not self.number:  # memory that nobody writes is none: a video is a gigabyte
            return np.zeros(tuple(tensor.shape), dtype=name)
        return np.full(tuple(tensor.shape), self.number, dtype=name)

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        query, key, value = args[:3] if len(args) >= 3 else (kwargs[name] for name in ("query", "key", "value"))
        tape = self.recorder.tape
        masked = (args[3] if len(args) > 3 else kwargs.get("attn_mask")) is not None
        attention = Attention(
            batch=query.shape[0] if query.dim() == 4 else 1,
            heads=query.shape[-3] if query.dim() >= 3 else 1,
            query_length=query.shape[-2],
            key_length=key.shape[-2],
            head_dim=query.shape[-1],
            value_dim=value.shape[-1],
            masked=masked,
            dtype=DTYPES[dtype_code(query.dtype)],
        )
        tape.attentions.append(attention)
        number = len(tape.attentions) - 1
        tape.events.append((EventKind.ATTENTION, number, 0))
        out = func(*args, **kwargs)
        tape.events.append((EventKind.ATTENTION_END, number, 0))
        return out


_NUMBERS = {int, float, bool}
_MAKERS = (torch.tensor, torch.arange)
# Functions that take sizes or places, which may come as tensors of one number.
_SIZED = {getattr(torch.Tensor, name) for name in ("__getitem__", "reshape", "view", "expand", "repeat", "narrow")}
_NONZERO = (torch.nonzero, torch.Tensor.nonzero)
_CHOICES = (torch.topk, torch.Tensor.topk)
_COUNTS = (torch.bincount, torch.Tensor.bincount)


def _first(array: Any) -> Any:
    return array.flat[0].item() if array.size else 0


_VALUES: dict[Any, Any] = {
    torch.Tensor.numpy: lambda array: array,
    torch.Tensor.__array__: lambda array: array,
    torch.Tensor.item: _first,
    torch.Tensor.tolist: lambda array: array.tolist(),
    torch.Tensor.__bool__: lambda array: bool(_first(array)),
    torch.Tensor.__int__: lambda array: int(_first(array)),
    torch.Tensor.__float__: lambda array: float(_first(array)),
}
