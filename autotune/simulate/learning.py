"""What real calls say about a card's constants: two factors, one for computing and one for moving weights.

Two, because that is what calls can tell apart: plans that keep everything on the card show the first, plans that offload
show the second. Which kernels are slow, whole calls do not say; the micro-benchmarks do.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np

from autotune.records.measurement import Measurement, Multipliers
from autotune.records.speed import Speed

__all__ = ["LARGEST", "in_steps", "learned", "multipliers"]

# In natural logarithms, so near to relative errors. Prior: a card as a whole is off by some 25 %, the upper end of the mean
# error of the latency model over published timings. Noise: what is left of a call's error once its card is right, 10 %,
# mostly the model's own from one network or plan to the next; the same call again varies by 1 to 3 % only.
_PRIOR_SIGMA = 0.25
_NOISE_SIGMA = 0.10
_HUBER_SIGMAS = 1.345  # Huber (1981): 95 % of the efficiency of least squares where noise is normal
LARGEST = 3.0
"""Factors stay between a third and three: beyond that something else is wrong than the card's constants."""
_STEP = 1.1
_ROUNDS = 30  # ten settle what is off by less than two, thirty what is absurd, to 1 %

_RATES_BY_KERNEL = ("products_flops_per_s", "convolutions_flops_per_s", "attention_flops_per_s")
_RATES = ("pointwise_bytes_per_s", "norm_bytes_per_s", "copy_bytes_per_s", "pictures_bytes_per_s")
_COSTS = ("kernel_s", "product_s", "convolution_s", "host_s")
_LINK_RATES = ("pinned_bytes_per_s", "pageable_bytes_per_s", "back_bytes_per_s", "reused_bytes_per_s")
_LINK_COSTS = ("tensor_s", "hook_s", "release_s")


def multipliers(measurements: Sequence[Measurement]) -> Multipliers:
    """The factors that bring predictions nearest to what was measured; 1 for what no call shows.

    Least squares of the logarithms, drawn towards 1, by Gauss-Newton with Huber's weights: one call that was disturbed
    weighs no more than one that is off by a little.

    Args:
        measurements: calls on one card, predicted with one base speed.

    >>> multipliers([])
    Multipliers(compute=1.0, moves=1.0, calls=0, speed_key='')
    """
    seen = [call for call in measurements if call.predicted_s > 0]
    if not seen:
        return Multipliers()
    predicted_s = np.array([(call.compute_s, call.transfer_s) for call in seen])
    taken = np.log([call.call_s for call in seen])
    prior = np.eye(2) / _PRIOR_SIGMA**2
    logs = np.zeros(2)
    for _ in range(_ROUNDS):
        parts_s = predicted_s * np.exp(logs)
        total_s = parts_s.sum(axis=1)
        shares, off = parts_s / total_s[:, None], np.log(total_s) - taken
        weights = np.minimum(1.0, _HUBER_SIGMAS * _NOISE_SIGMA / np.maximum(np.abs(off), 1e-12)) / _NOISE_SIGMA**2
        slope = shares.T @ (weights * off) + prior @ logs
        curvature = shares.T @ (weights[:, None] * shares) + prior
        logs = np.clip(logs - np.linalg.solve(curvature, slope), -log(LARGEST), log(LARGEST))
    compute, moves = np.clip(np.exp(logs), 1 / LARGEST, LARGEST).tolist()
    return Multipliers(compute=compute, moves=moves, calls=len(seen), speed_key=seen[0].speed_key)


def in_steps(factors: Multipliers) -> Multipliers:
    """The factors rounded to whole steps of 10 %.

    A profile holds seconds, so its key holds the speed that they were predicted with. Factors that moved a little with each
    call would make every profile a miss; in steps they cost a new search a few times in a card's life, and an error of at
    most 5 %, half of the noise of one call. A factor that goes to and fro between two steps finds the profiles of both.

    >>> in_steps(Multipliers(compute=1.04, moves=1.2)).moves
    1.21
    """

    def rounded(factor: float) -> float:
        steps = round(log(factor) / log(_STEP))
        return min(max(round(_STEP**steps, 3), round(1 / LARGEST, 3)), LARGEST)

    return factors.model_copy(update={"compute": rounded(factors.compute), "moves": rounded(factors.moves)})


def learned(speed: Speed, factors: Multipliers) -> Speed:
    """The speed of a card whose computing and moves take so many times longer."""
    update: dict[str, object] = {
        name: {kernel: rate / factors.compute for kernel, rate in getattr(speed, name).items()}
        for name in _RATES_BY_KERNEL
    }
    update |= {name: getattr(speed, name) / factors.compute for name in _RATES}
    update |= {name: getattr(speed, name) * factors.compute for name in _COSTS}
    update |= {name: getattr(speed, name) / factors.moves for name in _LINK_RATES}
    update |= {name: getattr(speed, name) * factors.moves for name in _LINK_COSTS}
    return speed.model_copy(update=update)
