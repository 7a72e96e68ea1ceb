"""What is copied, and what is answered from memory, is to the byte what tracing all of it gives."""

from __future__ import annotations

import pytest

from benchmarks.reference.traces import LOOPING, TILE_PX, difference, segments_of, without_memory, without_shortcuts

QUICK = {"WanPipeline", "StableDiffusionPipeline", "FluxPipeline"}
OTHERS = ("StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "PixArtSigmaPipeline", "SanaPipeline")


def marked(names):
    """The slow ones are for `make slow`."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("tiling", [None, TILE_PX])
@pytest.mark.parametrize("name", marked(LOOPING))
def test_copied_turns_are_as_good_as_traced_ones(name, tiling):
    copied = segments_of(name, tiling)
    with without_shortcuts():
        assert difference(copied, segments_of(name, tiling)) == ""


@pytest.mark.parametrize("name", marked([*sorted(QUICK), *OTHERS, "LTXPipeline"]))
def test_operators_from_memory_are_as_good_as_torchs(name):
    remembered = segments_of(name, TILE_PX)
    with without_memory():
        assert difference(remembered, segments_of(name, TILE_PX)) == ""
