"""What a boolean mask selects, as indices: how many they are stands in the mask's values, and a fake has none.

A mask that the pipeline's own code made is real, and its values are taken. Inside a component values are unknown; there a
mask selects everything, which is the most it can select.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

__all__ = ["nonzero", "without_masks"]


def without_masks(index: Any) -> Any:
    """The index of `tensor[index]` with each mask in it replaced by one index for each of its axes.

    >>> mask = torch.tensor([True, False, True])
    >>> without_masks((mask, slice(0, 2)))
    (tensor([0, 2]), slice(0, 2, None))
    """
    entries = index if isinstance(index, tuple) else (index,)
    if not any(map(_is_mask, entries)):
        return index
    return tuple(axis for entry in entries for axis in (nonzero(entry).unbind(1) if _is_mask(entry) else (entry,)))


def nonzero(mask: torch.Tensor) -> torch.Tensor:
    """Where the mask is true: one row for each element, one column for each axis."""
    if isinstance(mask, FakeTensor):
        return torch.zeros((mask.numel(), mask.dim()), dtype=torch.long, device=mask.device)
    with unset_fake_temporarily():
        return mask.nonzero()


def _is_mask(entry: Any) -> bool:
    return isinstance(entry, torch.Tensor) and entry.dtype == torch.bool and entry.dim() > 0
