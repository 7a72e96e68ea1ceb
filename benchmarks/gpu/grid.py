"""Which plans are tried, the most telling ones first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from autotune.errors import PlanError
from autotune.records.plan import Plan
from autotune.records.workload import Workload

__all__ = ["FURTHER", "TELLING", "Setting", "further", "telling"]

_TELLING_MODELS = 2  # of the models asked for, those whose telling settings come before the probes of kernels
_TILE_GRAIN_PX = 32  # a tile's edge is a multiple of it for every VAE with eight pixels a latent


class Setting(NamedTuple):
    """A plan and the batch it is tried with."""

    plan: Plan
    batch: int = 1
    tiled: bool = False
    """Whether the VAE decodes in tiles of half the image's edge; which edge that is depends on the model."""

    @property
    def label(self) -> str:
        """For people: `vae_slicing=True, batch=4`."""
        said = [f"{name}={value}" for name, value in self.plan.changes.items()]
        said += ["vae_tiling=half"] if self.tiled else []
        said += [f"batch={self.batch}"] if self.batch > 1 else []
        return ", ".join(said) or "as it is"

    def plan_for(self, workload: Workload) -> Plan:
        """The plan for a call of that size.

        Raises:
            PlanError: there is nothing to tile.
        """
        if not self.tiled:
            return self.plan
        edge_px = (workload.height or 0) // 2 // _TILE_GRAIN_PX * _TILE_GRAIN_PX
        if not edge_px:
            raise PlanError(f"no tile is smaller than an image of {workload.height} pixels")
        return self.plan.model_copy(update={"vae_tiling": edge_px})


TELLING = (Setting(Plan()), Setting(Plan(offload="model")), Setting(Plan(offload="group:leaf+stream")))
"""Everything on the card, whole components in turn, the least there can be."""

FURTHER = (
    Setting(Plan(), tiled=True),
    Setting(Plan(channels_last=True)),
    Setting(Plan(offload="group:block+stream")),
    Setting(Plan(attention="vanilla")),
    Setting(Plan(vae_slicing=True), batch=4),
    Setting(Plan(offload="sequential")),
    Setting(Plan(offload="group:block")),
    Setting(Plan(attention="sliced:auto")),
)


def telling(models: Sequence[str]) -> Iterator[tuple[str, Setting]]:
    """The first models in their telling settings."""
    yield from product(models[:_TELLING_MODELS], TELLING)


def further(models: Sequence[str]) -> Iterator[tuple[str, Setting]]:
    """All others, model by model, because only one pipeline is in RAM."""
    for place, name in enumerate(models):
        yield from ((name, setting) for setting in (FURTHER if place < _TELLING_MODELS else TELLING + FURTHER))
