"""Whether a denoiser's batch can be split, proved on the twin: does any operator look from one sample to another?

The call that was recorded is made again with its own number of samples and with three times as many and one more, and every
operator is watched. A tensor that carries the batch grows in just that proportion, any other stays as large as it was. The
batch can be split if both runs take the same operators, no tensor does anything else, and nothing that carries the batch
becomes something that does not. The two numbers have no divisor in common, so parts of a batch (perturbed attention guidance)
do not grow with it; its first sample (reference attention) and sums over it do not grow at all. A permutation of samples would
not be found; no denoiser is known that makes one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["mixing"]


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


def mixing(run: Callable[[int], Any], batch: int = 2) -> str:
    """Why the batch cannot be split, in words; empty if it can.

    Args:
        run: calls the denoiser with that many samples.
        batch: how many samples it was called with, 2 or more.
    """
    few, many = batch, 3 * batch + 1
    runs = []
    for samples in (few, many):
        with _Watch() as watch:
            try:
                run(samples)
            except Exception as error:  # whatever the model's code raises at another batch: that is the answer
                words = (str(error) or "no message").splitlines()[0][:120]
                return f"it does not run with {samples} samples ({type(error).__name__}: {words})"
        runs.append(watch.seen)
    if [one.name for one in runs[0]] != [other.name for other in runs[1]]:
        return f"it takes other operators with {many} samples than with {few}"
    mixer = next((one.name for one, other in zip(*runs, strict=True) if _mixes(one, other, few, many)), "")
    return f"{mixer} looks across samples" if mixer else ""


def _mixes(one: _Seen, other: _Seen, few: int, many: int) -> bool:
    if len(one.inputs) != len(other.inputs) or len(one.outputs) != len(other.outputs):
        return True  # a tensor for each sample
    carried = [_carries(a, b, few, many) for a, b in zip(one.inputs, other.inputs, strict=True)]
    given = [_carries(a, b, few, many) for a, b in zip(one.outputs, other.outputs, strict=True) if a or b]
    return None in carried or None in given or (True in carried and False in given)


def _carries(few_elements: int, many_elements: int, few: int, many: int) -> bool | None:
    """Whether a tensor with so many elements in each run carries the batch; None if it is something between."""
    if few_elements == many_elements:
        return False
    return True if few_elements * many == many_elements * few else None
