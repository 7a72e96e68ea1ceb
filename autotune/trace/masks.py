"""What a boolean mask selects, as indices: how many they are stands in the mask's values, and a fake has none.

A mask that the pipeline's own code made is real, and its values are taken. Inside a component values are unknown; there a
mask selects everything, which is the most it can select.
"""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

__all__ = ["masks_of", "nonzero", "without_masks"]


def masks_of(index: Any) -> list[torch.Tensor]:
    """The masks in the index of `tensor[index]`."""
    return [entry for entry in (index if isinstance(index, tuple) else (index,)) if _is_mask(entry)]


def without_masks(index: Any, *, left_out: int = 0) -> Any:
    """The index of `tensor[index]` with each mask in it replaced by one index for each of its axes; see `nonzero`.

    >>> mask = torch.tensor([True, False, True])
    >>> without_masks((mask, slice(0, 2)))
    (tensor([0, 2]), slice(0, 2, None))
    """
    if not masks_of(index):
        return index
    entries = index if isinstance(index, tuple) else (index,)
    expanded = (nonzero(e, left_out=left_out).unbind(1) if _is_mask(e) else (e,) for e in entries)
    return tuple(axis for axes in expanded for axis in axes)


def nonzero(mask: torch.Tensor, *, left_out: int = 0) -> torch.Tensor:
    """Where the mask is true: one row for each element, one column for each axis. Of a fake it is all but `left_out`."""
    if isinstance(mask, FakeTensor):
        return torch.zeros((max(0, mask.numel() - left_out), mask.dim()), dtype=torch.long, device=mask.device)
    with unset_fake_temporarily():
        return mask.nonzero()


def _is_mask(entry: Any) -> bool:
    return isinstance(entry, torch.Tensor) and entry.dtype == torch.bool and entry.dim() > 0
