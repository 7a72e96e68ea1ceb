"""The VAE's two levers: decode a batch one by one, decode an image in overlapping tiles.

`pipe.enable_vae_*` is gone from diffusers 0.42; the switches are on the VAE. `disable_tiling` does not restore sizes, so
every attribute is remembered. A tile edge counts in pixels of the image.
"""

from __future__ import annotations

import copy
import inspect
from functools import partial
from itertools import count
from math import ceil, prod
from typing import Any

from autotune.errors import PlanError
from autotune.levers.base import Domain, Lever, Subject
from autotune.levers.journal import ABSENT, Journal, Slot
from autotune.records.workload import Workload
from autotune.upstream import port

__all__ = ["VaeSlicing", "VaeTiling", "tile_edges"]

_COMMON_EDGES_PX = (512, 256)
_SMALLEST_TILE_LATENTS = 4  # a quarter of it, the overlap, is still a whole latent
# The largest published images, 4096 pixels (Sana), are 484 tiles of 256. A tile then takes less than a hundredth of what the
# image would, and the image itself, of which tiled decoding holds all, outweighs it: smaller tiles cost time and save nothing.
_MOST_TILES = 512
_OVERLAP, _TINY_OVERLAP = 0.25, 0.125  # autoencoder_kl.py and its kin, autoencoder_tiny.py: `tile_overlap_factor`
_STEP = 3 / 4  # of an edge from one tile to the next (autoencoder_kl.py tile_overlap_factor, and `_tile` below)


def _sliceable(pipe: Any) -> list[Any]:
    return [part for part in port.networks(pipe).values() if hasattr(part, "use_slicing") and hasattr(part, "decode")]


def _tileable(pipe: Any) -> list[Any]:
    parts = (part for part in port.networks(pipe).values() if hasattr(part, "use_tiling") and hasattr(part, "decode"))
    return [
        part for part in parts if _size_arguments(part) or hasattr(part, "tile_sample_min_size") or _fixed_edge(part)
    ]


def _size_arguments(vae: Any) -> list[str]:
    """Spatial arguments of this class's `enable_tiling`: the names differ from class to class."""
    names = inspect.signature(vae.enable_tiling).parameters
    return [name for name in names if name in {"tile_sample_min_height", "tile_sample_min_width"}]


def _fixed_edge(vae: Any) -> int | None:
    """The edge in pixels of tiles whose size the VAE's weights were made for (autoencoder_kl_allegro.py: `kernel` is frames,
    height, width); None where it can be chosen."""
    kernel = getattr(vae, "kernel", None)
    return int(kernel[1]) if isinstance(kernel, tuple) and len(kernel) == 3 else None


class VaeSlicing(Lever):
    """Takes effect for batches above 1 only."""

    name = "vae_slicing"
    summary = ("decode a batch one image at a time", "decoding memory of one image", "little; none at batch 1")

    def touches(self, name: str, part: Any) -> bool:
        return hasattr(part, "decode")

    def domain(self, subject: Subject) -> Domain:
        if not _sliceable(subject.pipe):
            return Domain((None,), "the VAE's class cannot slice")
        if subject.workload.batch == 1:
            return Domain((None,), "a batch of one has nothing to slice")
        return Domain((None, not self.read(subject.pipe)), "the batch can be decoded one by one")

    def check(self, subject: Subject, value: Any) -> None:
        if value and not _sliceable(subject.pipe):
            raise PlanError("vae_slicing=True cannot be applied: the VAE's class cannot slice; what works is False")

    def read(self, pipe: Any) -> bool:
        return any(vae.use_slicing for vae in _sliceable(pipe))

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        for vae in _sliceable(subject.pipe):
            journal.set(vae, "use_slicing", bool(value))


class VaeTiling(Lever):
    """The edge must be smaller than the image, or nothing is tiled: SDXL's default of 1024 does nothing at 1024x1024."""

    name = "vae_tiling"
    summary = ("decode in overlapping tiles of this edge", "decoding memory of one tile", "slower; faint tone changes")

    def touches(self, name: str, part: Any) -> bool:
        return hasattr(part, "decode")

    def domain(self, subject: Subject) -> Domain:
        vaes = _tileable(subject.pipe)
        if not vaes:
            return Domain((None,), "the VAE's class cannot tile, or not with a chosen size")
        found, fixed = self.read(subject.pipe), _fixed_edge(vaes[0])
        edges = (fixed,) if fixed is not None else tile_edges(vaes[0], subject.workload)
        if not edges:
            return Domain((None,), "the image is no larger than the smallest tile")
        values = (None, *(value for value in (False, *edges) if value != found))
        if fixed is not None:
            return Domain(values, f"this VAE has tiles of {fixed} pixels")
        if _longest_px(subject.workload) is None:
            return Domain(values, "how large the image is shows only when it is decoded")
        return Domain(values, f"the image is larger than a tile of {edges[-1]} pixels")

    def check(self, subject: Subject, value: Any) -> None:
        if value is False:
            return
        asked = f"vae_tiling={value!r} cannot be applied"
        vaes = _tileable(subject.pipe)
        if not vaes:
            raise PlanError(f"{asked}: {self.domain(subject).reason}; what works is False")
        fixed = next(filter(None, map(_fixed_edge, vaes)), None)
        if fixed == value:
            return
        if fixed is not None:
            raise PlanError(f"{asked}: the tiles of this VAE are {fixed} pixels")
        grain = _SMALLEST_TILE_LATENTS * max(_scale(vae) for vae in vaes)
        if value is True or value < grain or value % grain:
            raise PlanError(
                f"{asked}: a tile's edge is a multiple of {grain} pixels for this VAE, for example {grain * 8}"
            )
        tiles = _tiles(subject.workload, value)
        if tiles > _MOST_TILES:
            size = f"{subject.workload.width}x{subject.workload.height}"
            enough = next(edge for edge in count(value + grain, grain) if _tiles(subject.workload, edge) <= _MOST_TILES)
            raise PlanError(f"{asked}: {size} would be {tiles} tiles, more than {_MOST_TILES}; the nearest is {enough}")

    def read(self, pipe: Any) -> int | bool | None:
        vaes = _tileable(pipe)
        on = [vae for vae in vaes if vae.use_tiling]
        edges = {_edge(vae) if _is_usual(vae) else None for vae in on}
        if not on:
            return False
        return edges.pop() if len(edges) == 1 and len(on) == len(vaes) else None

    def apply(self, subject: Subject, value: Any, journal: Journal) -> None:
        for vae in _tileable(subject.pipe):
            state = _tiling_state(vae)
            journal.push(partial(_set_tiling_state, vae, state), partial(_was_tiled, vae, state))
            if value is False:
                vae.use_tiling = False
            else:
                _tile(vae, value)


def _tiling_state(vae: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(vae).items() if _is_tiling_state(name)}


def _was_tiled(vae: Any, state: dict[str, Any]) -> list[Slot]:
    return [Slot(vars(vae), name, state.get(name, ABSENT)) for name in {**_tiling_state(vae), **state}]


def _set_tiling_state(vae: Any, state: dict[str, Any]) -> None:
    """As it was; what `enable_tiling` has added goes."""
    vae.__dict__.update(state)
    for name in _tiling_state(vae).keys() - state.keys():
        del vae.__dict__[name]


def _is_tiling_state(name: str) -> bool:
    return name == "use_tiling" or name.startswith("tile_")


def _tile(vae: Any, edge_px: int) -> None:
    arguments = _size_arguments(vae)
    if _fixed_edge(vae):
        vae.enable_tiling()
        return
    if not arguments:  # AutoencoderKL and its kin take no sizes: both attributes, consistently (autoencoder_kl.py:138)
        vae.enable_tiling()
        vae.tile_sample_min_size = edge_px
        vae.tile_latent_min_size = edge_px // _scale(vae)
        return
    names = inspect.signature(vae.enable_tiling).parameters
    strides = [name for name in names if name in {"tile_sample_stride_height", "tile_sample_stride_width"}]
    vae.enable_tiling(**dict.fromkeys(arguments, edge_px), **dict.fromkeys(strides, edge_px * 3 // 4))


def _is_usual(vae: Any) -> bool:
    """Whether its tiles are what `_tile` makes of their edge, with the overlap that its class has."""
    twin = copy.copy(vae)
    _tile(twin, _edge(vae))
    overlap = _TINY_OVERLAP if type(vae).__name__ == "AutoencoderTiny" else _OVERLAP
    return _tiling_state(twin) == _tiling_state(vae) and getattr(vae, "tile_overlap_factor", overlap) == overlap


def _edge(vae: Any) -> int:
    fixed = _fixed_edge(vae)
    if fixed is not None:
        return fixed
    if hasattr(vae, "tile_sample_min_size"):
        size = vae.tile_sample_min_size
        return int(size if isinstance(size, int | float) else min(size))
    return int(min(vae.tile_sample_min_height, vae.tile_sample_min_width))


def _scale(vae: Any) -> int:
    """Pixels along an edge for each latent."""
    ratio = getattr(vae, "spatial_compression_ratio", None)
    if isinstance(ratio, int):
        return ratio
    return int(2 ** (len(vae.config.block_out_channels) - 1))  # autoencoder_kl.py:138


def tile_edges(vae: Any, workload: Workload) -> tuple[int, ...]:
    """Tile edges in pixels that cut this image, largest first: the usual two, and half the image if neither does.

    Where the image's size is not known they are the usual two.
    """
    longest_px = _longest_px(workload)
    grain = _SMALLEST_TILE_LATENTS * _scale(vae)
    usual = [edge for edge in _COMMON_EDGES_PX if edge % grain == 0]
    if longest_px is None:
        return tuple(usual)
    cutting = [edge for edge in usual if edge < longest_px and _tiles(workload, edge) <= _MOST_TILES]
    if not cutting and longest_px // 2 >= grain:
        cutting = [longest_px // 2 // grain * grain]
    return tuple(cutting)


def _longest_px(workload: Workload) -> int | None:
    return max(edge or 0 for edge in workload.size[:2]) or None


def _tiles(workload: Workload, edge_px: int) -> int:
    """Tiles of this edge that the image is decoded in; 0 where its size is not known."""
    return prod(ceil((px or 0) / (edge_px * _STEP)) for px in workload.size[:2])
