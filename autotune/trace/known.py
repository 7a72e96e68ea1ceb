"""Small whole numbers that code writes into tensors and reads back: sizes of images, counts of tokens. A fake forgets them.

They are worked out beside the fakes for as long as every operand is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Known"]

_MOST_ELEMENTS = 64  # sizes and counts are a few numbers; what is more is data


class Known:
    """The fakes whose values are known."""

    def __init__(self) -> None:
        self._values = WeakTensorKeyDictionary()

    def __bool__(self) -> bool:
        return len(self._values) > 0

    def remember(self, fake: Any, value: Any) -> None:
        """`value` is what the fake would hold."""
        if not isinstance(fake, FakeTensor) or not isinstance(value, torch.Tensor) or value.shape != fake.shape:
            return
        if value.dtype in {torch.int32, torch.int64} and value.numel() <= _MOST_ELEMENTS:
            self._values[fake] = value

    def value_of(self, fake: Any) -> torch.Tensor | None:
        """What the fake would hold; None if that is not known."""
        return self._values[fake] if isinstance(fake, torch.Tensor) and fake in self._values else None

    def made(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What `function` makes of numbers: `torch.tensor`."""
        out = function(*args, **kwargs)
        if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves((args, kwargs))):
            self._work_out(function, args, kwargs, out)
        return out

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        """The function of these arguments, the first of them a known fake."""
        if function is torch.Tensor.__iter__:
            return self._iterated(args[0])
        name = getattr(function, "__name__", "")
        if name == "__setitem__" or (name.endswith("_") and not name.endswith("__")) or "out" in kwargs:
            self._values = WeakTensorKeyDictionary()  # its views hold the same numbers
            return function(*args, **kwargs)
        out = function(*args, **kwargs)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if all(self.value_of(leaf) is not None for leaf in leaves):
            real_args, real_kwargs = tree_map(self._real, (args, kwargs))
            self._work_out(function, real_args, real_kwargs, out)
        return out

    def numbers_for(self, arguments: Any) -> Any:
        """The arguments with a plain number for each fake that is known to be one; slices are looked into."""
        return tree_map(self._number, arguments)

    def _iterated(self, fake: torch.Tensor) -> Iterator[torch.Tensor]:
        rows, values = fake.unbind(0), self._values[fake].unbind(0)
        for row, value in zip(rows, values, strict=True):
            self.remember(row, value)
        return iter(rows)

    def _work_out(self, function: Any, args: Any, kwargs: Any, out: Any) -> None:
        with unset_fake_temporarily():
            for fake, value in zip(tree_leaves(out), tree_leaves(function(*args, **kwargs)), strict=True):
                self.remember(fake, value)

    def _real(self, leaf: Any) -> Any:
        return leaf if self.value_of(leaf) is None else self._values[leaf]

    def _number(self, leaf: Any) -> Any:
        if isinstance(leaf, slice):
            return slice(*map(self._number, (leaf.start, leaf.stop, leaf.step)))
        value = self.value_of(leaf)
        if value is None or value.dim():
            return leaf
        with unset_fake_temporarily():
            return int(value)
