"""A tensor's outside: enough to make a fake of it again."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

__all__ = ["Shape"]


@dataclass(frozen=True)
class Shape:
    """A tensor's outside. No tuple: pytrees must see it as a leaf."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Shape:
        return cls(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)

    def of_batch(self, samples: int) -> Shape:
        """The same tensor for so many samples, in the plain order of strides."""
        shape = (samples, *self.shape[1:])
        strides = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
        return Shape(shape, strides, self.dtype)
