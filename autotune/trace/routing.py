"""How a mixture of experts shares its tokens out: that stands in the gate's values, and a fake has none.

Memory wants the most that an expert can get, seconds want the sum. A token chooses each expert once at most, so the first
expert is given one choice of every token, which is the most there is, and the others share the rest equally: no prompt needs
more memory, the FLOPs are exact, and the weights of every expert are used.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Routing", "shared_out"]


class _Choices(NamedTuple):
    experts: int
    each: int
    """How many of them a token chooses."""


class Routing:
    """What is known of fakes that hold choices, and of those that count them; views of one are known too."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choices] = {}
        self._counts: dict[int, NDArray[np.int64]] = {}

    def choose(self, indices: torch.Tensor, *, among: torch.Tensor) -> None:
        """`indices` are the chosen of the scores `among`, both along the last axis."""
        if among.dim():
            _remember(self._choices, indices, _Choices(among.shape[-1], indices.shape[-1]))

    def knows(self, indices: torch.Tensor) -> bool:
        """Whether these are choices."""
        return _key(indices) in self._choices

    def counts(self, indices: torch.Tensor) -> torch.Tensor:
        """How often each was chosen, shape `(experts,)`: a fake whose values are known."""
        experts, each = self._choices[_key(indices)]
        counted = indices.new_empty((experts,))
        _remember(self._counts, counted, shared_out(indices.numel(), experts=experts, each=each))
        return counted

    def value_of(self, tensor: torch.Tensor) -> NDArray[np.int64] | None:
        """The values of counts; None for any other tensor."""
        return self._counts.get(_key(tensor))


def shared_out(choices: int, *, experts: int, each: int) -> NDArray[np.int64]:
    """How many choices each expert gets, shape `(experts,)`, where every token makes `each`.

    >>> shared_out(20, experts=4, each=2)
    array([10,  4,  3,  3])
    """
    most = choices // each if experts > 1 else choices
    others = np.array_split(np.arange(choices - most), max(1, experts - 1))
    return np.array([most, *map(len, others)][:experts], dtype=np.int64)


def _key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _remember(table: dict[int, Any], tensor: torch.Tensor, value: Any) -> None:
    """For as long as the storage lives: its address is given away again."""
    storage = tensor.untyped_storage()
    if storage._cdata not in table:
        weakref.finalize(storage, table.pop, storage._cdata, None).atexit = False
    table[storage._cdata] = value
