"""Blocks and tiles that are copied instead of traced make the same trace as if each had been traced."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.records.trace import EventKind
from autotune.simulate.memory import segment_memory
from autotune.trace import shortcuts
from autotune.trace.session import Session
from autotune.trace.shortcuts import Shortcuts
from benchmarks.tiny import CALLS, PIPELINES
from tests.unit.handmade import CARD, CPU

DENOISERS = frozenset({"unet", "transformer"})
TILES = {"sd": 32, "sdxl": 32, "flux": 4, "sd3": 16, "wan": 32, "ltx": 16}


def traced(family, *, tiled=False):
    pipe = PIPELINES[family]()
    call = {**CALLS[family], "prompt": "a cat", "output_type": "pt"}
    if family == "wan":
        call |= {"height": 64, "width": 64, "num_frames": 5}
    if tiled and hasattr(pipe.vae, "tile_sample_min_size"):
        pipe.vae.enable_tiling()
        pipe.vae.tile_sample_min_size = TILES[family]
        pipe.vae.tile_latent_min_size = TILES[family] // 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    elif tiled:
        sizes = {f"tile_sample_min_{edge}": TILES[family] for edge in ("height", "width")}
        strides = {f"tile_sample_stride_{edge}": TILES[family] * 3 // 4 for edge in ("height", "width")}
        pipe.vae.enable_tiling(**sizes, **strides)
    return Session(pipe, denoisers=DENOISERS).record(call, steps=2)


def traced_in_full(family, patch, **options):
    patch.setattr(Shortcuts, "shorten", lambda self, module, path: None)
    patch.setattr(Shortcuts, "shorten_blend", lambda self, blend: blend)
    return traced(family, **options)


def events(segment, *kinds):
    wanted = np.isin(segment.kind, kinds)
    return [(int(k), int(s)) for k, s in zip(segment.kind[wanted], segment.size[wanted], strict=True)]


@pytest.mark.parametrize("family", PIPELINES)
def test_copied_blocks_are_as_good_as_traced_ones(family, monkeypatch):
    short = traced(family)
    full = traced_in_full(family, monkeypatch)
    assert len(short.segments) == len(full.segments)
    for one, other in zip(short.segments, full.segments, strict=True):
        assert events(one, *EventKind) == events(other, *EventKind)
        assert one.attentions == other.attentions
        assert sorted(one.modules) == sorted(other.modules)
        for column in ("op_class", "op_dtype", "op_flops", "op_bytes", "op_kernels", "op_conv_bytes"):
            assert getattr(one, column).tolist() == getattr(other, column).tolist()
        assert segment_memory(one, CARD) == segment_memory(other, CARD)


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[pytest.mark.slow] if name in {"wan", "sdxl"} else []) for name in PIPELINES]
)
def test_copied_tiles_are_as_good_as_traced_ones(family, monkeypatch):
    short = traced(family, tiled=True).segments
    full = traced_in_full(family, monkeypatch, tiled=True).segments
    vae, whole = (next(s for s in segments if s.component == "vae") for segments in (short, full))
    assert len(vae.op_class) <= len(whole.op_class)  # a blend over n rows is one row counted n times
    assert vae.op_kernels.sum() == whole.op_kernels.sum()
    assert vae.op_flops.sum() == pytest.approx(whole.op_flops.sum())
    assert vae.attentions == whole.attentions
    for device in (CPU, CARD):
        copied, real = segment_memory(vae, device), segment_memory(whole, device)
        assert copied.peak.total_bytes == real.peak.total_bytes
        assert copied.streams["leaf"].peak.total_bytes == real.streams["leaf"].peak.total_bytes
        assert copied.net_bytes == real.net_bytes


def test_most_of_a_tiled_decode_is_copied(monkeypatch):
    copied = []
    again = shortcuts.written_again
    monkeypatch.setattr(shortcuts, "written_again", lambda *rest: copied.append(1) or again(*rest))
    short = next(s for s in traced("sd", tiled=True).segments if s.component == "vae")
    assert len(copied) >= 5  # of nine tiles in four shapes
    full = next(s for s in traced_in_full("sd", monkeypatch, tiled=True).segments if s.component == "vae")
    assert len(short.op_class) < len(full.op_class)
