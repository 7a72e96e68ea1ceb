"""How a mixture of experts shares its tokens out: that stands in the gate's values, and a fake has none.

Memory wants the most that an expert can get, seconds want the sum. A token chooses each expert once at most, so the first
expert is given one choice of every token, which is the most there is, and the others share the rest equally: no prompt needs
more memory, the FLOPs are exact, and the weights of every expert are used.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch

__all__ = ["Routing", "shared_out"]


class _Choices(NamedTuple):
    experts: int
    each: int
    """How many of them a token chooses."""


class Routing:
    """Which fakes hold choices of experts; views of one are known too.

    Args:
        all_to_few: every token chooses the same experts, so that what each of them gets grows with the batch and nothing is
            rounded; the proof that a batch can be split (`batch.py`) needs that.
    """

    def __init__(self, *, all_to_few: bool = False) -> None:
        self._all_to_few = all_to_few
        self._choices: dict[int, _Choices] = {}

    def choose(self, indices: torch.Tensor, *, among: torch.Tensor) -> None:
        """`indices` are the chosen of the scores `among`, both along the last axis."""
        if not among.dim():
            return
        storage = indices.untyped_storage()
        if storage._cdata not in self._choices:  # its address is given away again
            weakref.finalize(storage, self._choices.pop, storage._cdata, None).atexit = False
        self._choices[storage._cdata] = _Choices(among.shape[-1], indices.shape[-1])

    def counts(self, indices: torch.Tensor) -> list[int] | None:
        """How often each expert is chosen; None where these are no choices."""
        choices = self._choices.get(indices.untyped_storage()._cdata)
        if choices is None:
            return None
        experts, each = choices
        if self._all_to_few:
            return [indices.numel() // each if expert < each else 0 for expert in range(experts)]
        return shared_out(indices.numel(), experts=experts, each=each)


def shared_out(choices: int, *, experts: int, each: int) -> list[int]:
    """How many choices each expert gets, where every token makes `each`.

    >>> shared_out(20, experts=4, each=2)
    [10, 4, 3, 3]
    """
    if experts == 1:
        return [choices]
    most = choices // each
    share, over = divmod(choices - most, experts - 1)
    return [most, *(share + (place < over) for place in range(experts - 1))]
