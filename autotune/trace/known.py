"""Small whole numbers that code writes into tensors and reads back: sizes of images, counts of tokens, windows of attention and
the masks over them. A fake forgets them.

They are worked out beside the fakes for as long as every operand is known, what is written into them included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    unset_fake_temporarily,
)
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Known"]

_MOST_GIVEN = 64  # elements: sizes and counts are a few numbers; what is more is data (the ids of a prompt)
# What is made of these: a language model that sees pictures numbers their patches, 74x74 in a megapixel (Qwen2.5-VL, 14 pixels
# a patch), by row and column. Masks of attention over all of them, which no code reads, are larger.
_MOST_ELEMENTS = 2**14
_WHOLE = {torch.int32, torch.int64, torch.bool}


class Known:
    """The fakes whose values are known.

    Args:
        pause: keeps what is worked out beside the fakes out of the recording.
    """

    def __init__(self, pause: Callable[[], AbstractContextManager[None]]) -> None:
        self._values = WeakTensorKeyDictionary()
        self._pause = pause

    def __bool__(self) -> bool:
        return len(self._values) > 0

    def few(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """A copy of a real tensor that holds a few whole numbers; None of any other."""
        if tensor.device.type == "meta" or tensor.dtype not in _WHOLE or tensor.numel() > _MOST_GIVEN:
            return None
        with self._pause(), unset_fake_temporarily():
            return tensor.detach().cpu().clone()

    def tell(self, fake: torch.Tensor, value: torch.Tensor | None) -> None:
        """The fake stands for these values, if there are any."""
        if value is not None:
            self._remember(fake, value)

    def value_of(self, fake: Any) -> torch.Tensor | None:
        """What the fake would hold; None if that is not known."""
        return self._values[fake] if isinstance(fake, torch.Tensor) and fake in self._values else None

    def made(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What `function` makes of numbers: `torch.tensor`, `torch.arange`."""
        args = self.numbers_for(args)
        out = function(*args, **kwargs)
        if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            self._work_out(function, args, kwargs, out)
        return out

    def knows(self, args: Any, kwargs: Any) -> bool:
        """Whether there are tensors among the arguments, and all of them are known."""
        first = args[0] if args else None
        if self.value_of(first[0] if isinstance(first, list | tuple) and first else first) is None:
            return False
        leaves = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor))
        return all(self.value_of(leaf) is not None for leaf in leaves)

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        """The function of arguments that are all known, where a shape may stand in the values too."""
        if function is torch.Tensor.__iter__:
            return self._iterated(args[0])
        try:
            out = function(*args, **kwargs)
        except (DataDependentOutputException, DynamicOutputShapeException):
            out = self._shaped(self._really(function, args, kwargs), args)
        self._work_out(function, args, kwargs, out)
        return out

    def changed(self, function: Any, args: Any, kwargs: Any) -> None:
        """Forgets what may have been written over with numbers that nobody knows."""
        name = getattr(function, "__name__", "")
        writes = name in _WRITES or (name.endswith("_") and not name.endswith("__")) or "out" in kwargs
        if writes and any(self.value_of(leaf) is not None for leaf in (*args[:1], kwargs.get("out"))):
            self._values = WeakTensorKeyDictionary()  # its views hold the same numbers

    def numbers_for(self, arguments: Any) -> Any:
        """The arguments with a plain number for each fake that is known to be one, and known masks with their values; slices
        are looked into."""
        return tree_map(self._number, arguments)

    def _iterated(self, fake: torch.Tensor) -> Iterator[torch.Tensor]:
        rows, values = fake.unbind(0), self._values[fake].unbind(0)
        for row, value in zip(rows, values, strict=True):
            self._remember(row, value)
        return iter(rows)

    def _remember(self, fake: Any, value: Any) -> None:
        if isinstance(fake, FakeTensor) and isinstance(value, torch.Tensor) and value.shape == fake.shape:
            self._values[fake] = value

    def _work_out(self, function: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Does to the values what was done to the fakes, unless that makes nothing small and whole."""
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if made and not any(leaf.dtype in _WHOLE and leaf.numel() <= _MOST_ELEMENTS for leaf in made):
            return
        values = tree_leaves(self._really(function, args, kwargs))
        for fake, value in zip(tree_leaves(out), values, strict=True):
            if isinstance(value, torch.Tensor) and value.dtype in _WHOLE and value.numel() <= _MOST_ELEMENTS:
                self._remember(fake, value)

    def _really(self, function: Any, args: Any, kwargs: Any) -> Any:
        args, kwargs = tree_map(self._real, (args, kwargs))
        with self._pause(), unset_fake_temporarily():
            return function(*args, **kwargs)

    @staticmethod
    def _shaped(values: Any, args: Any) -> Any:
        """Fakes of the values' shapes."""
        mode = next(leaf.fake_mode for leaf in tree_leaves(args) if isinstance(leaf, FakeTensor))
        with mode:
            return tree_map_only(torch.Tensor, lambda value: torch.empty(value.shape, dtype=value.dtype), values)

    def _real(self, leaf: Any) -> Any:
        if isinstance(leaf, slice):
            return slice(*map(self._real, (leaf.start, leaf.stop, leaf.step)))
        value = self.value_of(leaf)
        return leaf if value is None else value

    def _number(self, leaf: Any) -> Any:
        if isinstance(leaf, slice):
            return slice(*map(self._number, (leaf.start, leaf.stop, leaf.step)))
        value = self.value_of(leaf)
        if value is None or value.dtype == torch.bool:
            return leaf if value is None else value
        with unset_fake_temporarily():
            return leaf if value.dim() else int(value)


_WRITES = {
    "__setitem__",
    *(f"__i{operator}__" for operator in ("add", "sub", "mul", "floordiv", "mod", "and", "or", "xor")),
}
