"""The recorder: watches every operator of a call and writes events.

What it does not know: kernel-internal temporaries (convolution workspaces, attention buffers), which `simulate` adds for
the device at hand, and tensors that a library allocates behind torch's back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autotune.records.trace import EventKind, OpClass
from autotune.trace.answers import Answer, Answers
from autotune.trace.metas import given
from autotune.trace.operators import dtype_code, op_kind
from autotune.trace.tape import Op, Tape

__all__ = ["Recorder"]

_GROUP_NORM, _CLONE = torch.ops.aten.native_group_norm.default, torch.ops.aten.clone.default
_DEVICE = torch.ops.prim.device.default
_WEIGHT = -1
_NO_CONVOLUTION = (0, 0, 0)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that records storages coming and going, operators, and module boundaries.

    `tape` is the segment being written. Storages of weights are known beforehand: a view of one is no new storage.

    Args:
        on_card: whether what runs on a card is recorded, where group norms want and make NCHW (native/group_norm.cpp), or on
            the CPU, where they keep the order that they are given.
    """

    def __init__(self, *, on_card: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on_card = on_card
        self._answers = Answers()
        self._weights_are_nhwc = False  # those of the last convolution
        self.tape = Tape()
        self.paused = False
        self._numbers: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._next = 0

    def know_weight(self, tensor: torch.Tensor) -> None:
        """Marks the tensor's storage as weights: not an activation."""
        self._adopt(tensor.untyped_storage(), _WEIGHT)

    def begin(self) -> None:
        """Starts a new recording: what is left over from earlier ones is no part of it, nor is its end."""
        self.tape = Tape()
        self._numbers = dict.fromkeys(self._numbers, _WEIGHT)

    def cut(self) -> Tape:
        """Ends the segment and starts the next."""
        tape, self.tape = self.tape, Tape()
        return tape

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Nothing inside is recorded; storages born inside are unknown until `alloc` names them."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def enter(self, path: str, size_bytes: int) -> None:
        """A module is called whose own weights are this large."""
        self._event(EventKind.ENTER, self.tape.modules.setdefault(path, len(self.tape.modules)), size_bytes)

    def leave(self, path: str, size_bytes: int) -> None:
        """The module returns."""
        self._event(EventKind.EXIT, self.tape.modules.setdefault(path, len(self.tape.modules)), size_bytes)

    def alloc(self, tensor: torch.Tensor) -> None:
        """A storage that is new to the recorder comes into being."""
        storage = tensor.untyped_storage()
        if storage._cdata in self._numbers:
            return
        number, self._next = self._next, self._next + 1
        self._sizes[number] = storage.nbytes()
        self._adopt(storage, number)
        self._event(EventKind.ALLOC, number, self._sizes[number])

    def fill(self, tensor: torch.Tensor, size_bytes: int) -> None:
        """A number is written into that many bytes of the tensor."""
        if not self.paused:
            moved_bytes = 2 * size_bytes  # as operators count what they write in place: read and written
            self._happened((OpClass.COPY, dtype_code(tensor.dtype), 0, moved_bytes, 1, _NO_CONVOLUTION))

    def is_known(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's storage is a weight or was recorded."""
        return tensor.untyped_storage()._cdata in self._numbers

    def number_of(self, tensor: torch.Tensor) -> int | None:
        """The number under which the tensor's storage was recorded; None for weights and strangers."""
        number = self._numbers.get(tensor.untyped_storage()._cdata, _WEIGHT)
        return None if number == _WEIGHT else number

    def mute(self, tensor: torch.Tensor) -> int:
        """The end of the tensor's storage is not told from now on; the key is for `has_ended`."""
        key: int = tensor.untyped_storage()._cdata
        self._numbers[key] = _WEIGHT
        return key

    def has_ended(self, key: int, number: int) -> bool:
        """Whether a muted storage is gone; if not, it has its number again, and its end will be told."""
        if key in self._numbers:
            self._numbers[key] = number
        return key not in self._numbers

    def new_numbers(self, count: int) -> int:
        """The first of so many numbers in a row, for storages that exist on paper only."""
        first, self._next = self._next, self._next + count
        return first

    def bind(self, tensor: torch.Tensor, number: int, size_bytes: int) -> None:
        """From now on the number lives and dies with this tensor's storage."""
        self._sizes[number] = size_bytes
        self._adopt(tensor.untyped_storage(), number)

    def _adopt(self, storage: torch.UntypedStorage, number: int) -> None:
        key = storage._cdata
        if key not in self._numbers:
            self._numbers[key] = number
            weakref.finalize(storage, self._gone, key).atexit = False

    def _gone(self, key: int) -> None:
        number = self._numbers.pop(key, _WEIGHT)
        if number != _WEIGHT:
            self._event(EventKind.FREE, number, self._sizes[number])

    def _event(self, kind: EventKind, ref: int, size_bytes: int) -> None:
        self.tape.events.append((kind, ref, size_bytes))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _DEVICE and type(args[0]) is FakeTensor:
            return args[0].fake_device
        if func is _GROUP_NORM and self._reaches(args[0]):
            copy = self.__torch_dispatch__(_CLONE, types, args[:1], {"memory_format": torch.contiguous_format})
            return self.__torch_dispatch__(func, types, (copy, *args[1:]), kwargs)
        with torch._C.DisableTorchFunction():  # nobody need answer for shapes
            fakes: list[FakeTensor] = []
            key = self._answers.key_of(func, args, kwargs, fakes)
            answer = self._answers.get(key)
            if answer is not None:
                return self._answered(answer, func, args, kwargs, fakes)
            out = given(func, args, kwargs, fakes) if key is not None else None
        if out is None:
            out = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            if key is not None:
                answer = self._answers.keep(key, fakes, out)
            return self._told(func, args, kwargs, out, answer)

    def _answered(self, answer: Answer, func: Any, args: Any, kwargs: Any, fakes: list[FakeTensor]) -> Any:
        """What the operator gives, from memory."""
        outputs = answer.again(fakes)
        out = answer.returned(outputs)
        if self.paused:
            return out
        if answer.told is None or not answer.is_new:
            return self._told(func, args, kwargs, out, answer)
        for tensor in outputs:
            self.alloc(tensor)
        self._happened(answer.told)
        return out

    def _told(self, func: Any, args: Any, kwargs: Any, out: Any, answer: Answer | None) -> Any:
        """Records what the operator has done."""
        if self.paused:
            return out
        outputs = (
            [out] if isinstance(out, torch.Tensor) else [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        )
        fresh = False
        for tensor in outputs:
            if not self.is_known(tensor) and (tensor.device.type != "meta" or isinstance(tensor, FakeTensor)):
                self.alloc(tensor)
                fresh = True
        kind = op_kind(func)
        if outputs and (fresh or kind.mutates):
            op = self._op(kind, args, kwargs, out, outputs)
            self._happened(op)
            if answer is not None and kind.op_class != OpClass.CONV:
                answer.told = op
        return out

    def _happened(self, op: Op) -> None:
        self.tape.ops.append(op)
        self._event(EventKind.OP, len(self.tape.ops) - 1, 0)

    def _reaches(self, image: torch.Tensor) -> bool:
        """Whether kernels of a card meet the image in channels-last order.

        A VAE's attention leaves one that is a view, and sums hand its order on. Of one sample the view has a first stride that
        belongs to no order, and the next upsampling makes it NCHW.
        """
        return self._on_card and _is_nhwc(image) and (self._weights_are_nhwc or image.shape[0] > 1)

    def _op(self, kind: Any, args: Any, kwargs: Any, out: Any, outputs: list[torch.Tensor]) -> Op:
        inputs = [t for t in args if isinstance(t, torch.Tensor)]
        for listed in args:
            if isinstance(listed, list | tuple):
                inputs += [t for t in listed if isinstance(t, torch.Tensor)]
        moved = [min(t.numel() * t.itemsize, t.untyped_storage().nbytes()) for t in (*inputs, *outputs)]
        flops = kind.flops(*args, **kwargs, out_val=out) if kind.flops else 0
        conv_bytes, op_class = _NO_CONVOLUTION, kind.op_class
        if op_class == OpClass.CONV:
            ordered, spread = _is_nhwc(args[1]), max(args[1].shape[2:], default=1) > 1
            self._weights_are_nhwc = ordered or (self._weights_are_nhwc and not spread)
            reached = self._reaches(args[0])
            if ordered or reached:
                op_class = OpClass.CONV_NHWC
                if spread and self._on_card:  # cuDNN's binding copies what is not in that order
                    conv_bytes = (0 if reached else _bytes(args[0]), 0, 0 if ordered else _bytes(args[1]))
            elif spread:
                op_class = OpClass.CONV_3D if args[1].dim() == 5 else OpClass.CONV
                conv_bytes = (_bytes(args[0]), sum(map(_bytes, outputs)), _bytes(args[1]))
        main = inputs[0] if inputs else outputs[0]
        dtype = dtype_code(main.dtype) if kind.format is None else kind.format
        return op_class, dtype, flops, sum(moved), 1, conv_bytes


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.itemsize


def _is_nhwc(tensor: torch.Tensor) -> bool:
    """Strictly channels-last: a 1x1 weight is in both orders at once."""
    return tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()
