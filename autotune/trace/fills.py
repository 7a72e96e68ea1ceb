"""Numbers that are written into a part of a tensor: one kernel each, and no tensor of their own.

Masks of causal attention are written row by row, a hundred thousand rows for a video. torch makes a tensor of each number
first, on the CPU, which a twin cannot tell from one on the card.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch

__all__ = ["part_bytes"]


def part_bytes(tensor: torch.Tensor, index: Any) -> int | None:
    """Bytes of the part of a tensor that whole numbers, slices, `...` and None name; None for any other index.

    >>> part_bytes(torch.empty(4, 6), (1, slice(None, 4)))
    16
    """
    items = index if isinstance(index, tuple) else (index,)
    named = [item for item in items if item is not None]
    ellipses = [place for place, item in enumerate(named) if item is Ellipsis]
    left = tensor.dim() - len(named) + len(ellipses)
    if left < 0 or len(ellipses) > 1:
        return None
    for place in ellipses:
        named[place : place + 1] = [slice(None)] * left
    shape = list(tensor.shape)
    for axis, item in enumerate(named):
        if type(item) is int and -shape[axis] <= item < shape[axis]:
            shape[axis] = 1
        elif type(item) is slice and _is_plain(item):
            shape[axis] = len(range(*item.indices(shape[axis])))
        else:
            return None
    return prod(shape) * tensor.itemsize


def _is_plain(item: slice) -> bool:
    edges = (item.start, item.stop, item.step)
    return all(edge is None or type(edge) is int for edge in edges) and (item.step is None or item.step > 0)
