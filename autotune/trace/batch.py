"""Whether a denoiser's batch can be split, proved on the twin: does any operator look from one sample to another?

The call that was recorded is made again with 2 and with 7 samples, and every operator is watched. A tensor that carries the
batch has 3.5 times as many elements in the second run, any other has the same number. The batch can be split if both runs
take the same operators, no tensor does anything else, and nothing that carries the batch becomes something that does not.
Halves of a batch (perturbed attention guidance), its first sample (reference attention) and sums over it are found so. A
permutation of samples would not be; no denoiser is known that makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["FEW", "MANY", "mixing"]

FEW, MANY = 2, 7  # coprime, so that halves or thirds of one are no halves or thirds of the other


class _Seen(NamedTuple):
    """One operator: its name, and the elements of what went in and came out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[_Seen] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen.append(_Seen(str(func), _elements((args, kwargs)), _elements(out)))
        return out


def _elements(values: Any) -> tuple[int, ...]:
    return tuple(leaf.numel() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


def mixing(run: Callable[[int], Any]) -> str:
    """Why the batch cannot be split, in words; empty if it can.

    Args:
        run: calls the denoiser with that many samples.
    """
    watches = {}
    for samples in (FEW, MANY):
        with _Watch() as watch:
            try:
                run(samples)
            except Exception as error:  # whatever the model's code raises at another batch: that is the answer
                return f"it does not run with {samples} samples ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
        watches[samples] = watch.seen
    few, many = watches[FEW], watches[MANY]
    if [one.name for one in few] != [one.name for one in many]:
        return f"it takes other operators with {MANY} samples than with {FEW}"
    for one, other in zip(few, many, strict=True):
        carried = [_carries(a, b) for a, b in zip(one.inputs, other.inputs, strict=True)]
        given = [_carries(a, b) for a, b in zip(one.outputs, other.outputs, strict=True)]
        if None in carried or None in given or (True in carried and False in given):
            return f"{one.name} looks across samples"
    return ""


def _carries(few: int, many: int) -> bool | None:
    """Whether a tensor with so many elements in each run carries the batch; None if it is something between."""
    if few == many:
        return False
    return True if few * MANY == many * FEW else None
