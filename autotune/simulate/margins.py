"""The error bar of a prediction of memory, held against how far published measurements lie above their predictions.

`python -m benchmarks.published` prints for each architecture and mode what nine of ten measurements stay below ("Error bars"):
at most 2.1 % so far. A test holds the table here against its last results. What too much was predicted for needs no bar.
"""

from __future__ import annotations

from typing import Literal

from autotune.records.device import Device
from autotune.units import MIB

__all__ = ["SHARES", "Mode", "group_of", "margin_bytes"]

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


def margin_bytes(device: Device, offload: str, process_bytes: int) -> int:
    """What to keep free beside the predicted peak of the process, so that nine of ten predictions hold.

    >>> from autotune.probe.catalog import card
    >>> margin_bytes(card("NVIDIA GeForce RTX 3060 12GB"), "none", 10**9)
    97108864
    """
    if device.kind == "cpu":
        return round(process_bytes * _CPU_SHARE)
    return round(process_bytes * SHARES[group_of(device, offload)]) + _CONTEXT_MARGIN_BYTES


def group_of(device: Device, offload: str) -> tuple[bool, Mode]:
    """Which residuals tell of this card and placement."""
    tensor_cores = (device.compute_capability or (8, 0)) >= (7, 0)
    return tensor_cores, "resident" if offload == "none" else "model" if offload == "model" else "parts"
