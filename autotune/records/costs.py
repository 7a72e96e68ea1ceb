"""What plans cost at least, for many plans at once: enough to leave out those that cannot be on a front."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Costs"]


class Costs(NamedTuple):
    """Lower bounds, one entry a plan, shape `(plans,)`."""

    needed_bytes: NDArray[np.int64]
    """Of VRAM, error bar included."""
    ram_bytes: NDArray[np.int64]
    """Of host RAM."""
    latency_s: NDArray[np.float64]
    setup_s: NDArray[np.float64]

    @classmethod
    def least(cls, several: list[Costs]) -> Costs:
        """Of plans that have to run several calls: the call that needs most VRAM counts, whichever that is."""
        return cls(
            np.max([one.needed_bytes for one in several], axis=0),
            np.min([one.ram_bytes for one in several], axis=0),
            np.min([one.latency_s for one in several], axis=0),
            np.min([one.setup_s for one in several], axis=0),
        )
