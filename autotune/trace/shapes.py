"""A tensor's outside, and the few numbers in it that shapes depend on: enough to make a fake of it again."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import torch

__all__ = ["Shape"]


@dataclass(frozen=True)
class Shape:
    """A tensor's outside. No tuple: pytrees must see it as a leaf."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    values: torch.Tensor | None = field(default=None, compare=False)

    @classmethod
    def of(cls, tensor: torch.Tensor, values: torch.Tensor | None = None) -> Shape:
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, values)

    def of_batch(self, samples: int) -> Shape:
        """The same tensor for so many samples, in the plain order of strides; what it held is not known of these."""
        shape = (samples, *self.shape[1:])
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return Shape(shape, strides, self.dtype)
