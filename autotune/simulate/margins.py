"""Error bars of bytes and seconds, held against how far published measurements lie from their predictions.

`python -m benchmarks.published` prints for each architecture and mode what nine of ten measurements stay below ("Error bars"):
at most 2.1 % of bytes so far; bytes that were predicted too high need no bar. It does the same for seconds, by how weights
move. Tests hold both tables against its last results.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from autotune.records.device import Device
from autotune.records.plan import Plan, group_offload
from autotune.units import MIB

__all__ = [
    "COMPUTING",
    "MOVES",
    "SHARES",
    "Bar",
    "Mode",
    "Moves",
    "group_of",
    "latency_bar",
    "margin_bytes",
    "moves_of",
]

Mode = Literal["resident", "model", "parts"]

# Of the process, by whether the card has tensor cores and how weights are placed. All alike until a group's residuals pass it:
# but for resident weights on tensor cores (63 clusters) one to four clusters are published each, too few to go lower.
SHARES: dict[tuple[bool, Mode], float] = {
    (True, "resident"): 0.03,
    (True, "model"): 0.03,
    (True, "parts"): 0.03,
    (False, "resident"): 0.03,
    (False, "model"): 0.03,
    (False, "parts"): 0.03,
}
_CPU_SHARE = 0.03
_CONTEXT_MARGIN_BYTES = 64 * MIB  # contexts are published for few cards, and kernels load lazily


def margin_bytes(device: Device, offload: str | None, process_bytes: int) -> int:
    """What to keep free beside the predicted peak of the process, so that nine of ten predictions hold.

    >>> from autotune.probe.catalog import card
    >>> margin_bytes(card("NVIDIA GeForce RTX 3060 12GB"), "none", 10**9)
    97108864
    """
    if device.kind == "cpu":
        return round(process_bytes * _CPU_SHARE)
    return round(process_bytes * SHARES[group_of(device, offload)]) + _CONTEXT_MARGIN_BYTES


def group_of(device: Device, offload: str | None) -> tuple[bool, Mode]:
    """Which residuals tell of this card and placement."""
    tensor_cores = (device.compute_capability or (8, 0)) >= (7, 0)
    return tensor_cores, "resident" if offload in {None, "none"} else "model" if offload == "model" else "parts"


class Bar(NamedTuple):
    """How far measured seconds may be from predicted ones, as shares of these."""

    less: float
    more: float


Moves = Literal["none", "leaf", "pageable", "pinned"]

COMPUTING: dict[bool, Bar] = {False: Bar(0.35, 0.35), True: Bar(0.30, 0.30)}
"""Seconds of computing, by whether the device was calibrated. Without, nine of ten clusters of published calls are within 29 %;
with a measured speed what is left is the model's own: twelve of thirteen figures of a calibrated CPU are within 25 %."""

# Seconds of moving are the host's: its memory, its core, what else it does. None of that is known of a card that is not here,
# and nobody has published them beside a calibration. By leaf ("sequential") they have the widest spread: two of five clusters
# took 41 % less than predicted, and FLUX.1-dev on a user's RTX 3090 (1344x768, 50 steps, sliced and tiled VAE) took 15 minutes
# where 274 s are predicted, 191 s of them moves. Pageable memory: seven clusters of model offload lie from 37 % less to 31 %
# more, but moves are a sixth of their seconds; twice as long is a guess between the two. Of streams there are two clusters,
# within 10 %.
MOVES: dict[Moves, Bar] = {
    "none": Bar(0.35, 0.35),
    "leaf": Bar(0.5, 3.2),
    "pageable": Bar(0.5, 1.0),
    "pinned": Bar(0.35, 0.35),
}


def latency_bar(device: Device, plan: Plan, moving_share: float) -> Bar:
    """Error bar of the plan's seconds: of computing and of moving, each by its share.

    >>> from autotune.probe.catalog import card
    >>> latency_bar(card("NVIDIA GeForce RTX 3060 12GB"), Plan(offload="sequential"), 0.5)
    Bar(less=0.425, more=1.775)
    """
    computing, moving = COMPUTING[device.speed is not None], MOVES[moves_of(plan)]
    less, more = (
        round((1 - moving_share) * one + moving_share * other, 3) for one, other in zip(computing, moving, strict=True)
    )
    return Bar(less, more)


def moves_of(plan: Plan) -> Moves:
    """How most of what moves does."""
    group = group_offload(plan.offload)
    if group is not None and group.use_stream:
        return "pageable" if group.low_cpu_mem_usage else "pinned"
    if plan.offload == "sequential":
        return "leaf"
    return "pageable" if plan.offload not in {None, "none"} or plan.text_encoders == "leave" else "none"
