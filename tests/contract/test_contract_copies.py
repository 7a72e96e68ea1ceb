"""VAEs of diffusers that go from frame to frame or tile to tile: traced once for each kind of turn, to the byte as in full."""

from __future__ import annotations

import pytest

from autotune.flow.recordings import Recordings
from autotune.records.plan import Plan
from autotune.search.space import Space
from autotune.trace.answers import Answers
from autotune.trace.shortcuts import Shortcuts
from benchmarks.coverage import small_job

QUICK = ("WanPipeline",)
OTHERS = (
    "QwenImagePipeline",
    "WanImageToVideoPipeline",
    "CogVideoXPipeline",
    "HunyuanVideoPipeline",
    "LTXPipeline",
)
CLASSES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
COLUMNS = ("kind", "size", "op_class", "op_dtype", "op_flops", "op_bytes", "op_kernels", "op_conv_bytes")
FRAMES, TILE_PX = 17, 128


def segments_of(name, tiling):
    """The call with its VAE in tiles, or without."""
    job = small_job(name, frames=FRAMES)
    recordings = Recordings(job, job.largest, job.calls[0])
    plan = Plan(vae_tiling=tiling)
    traces = recordings.traces(Space(values={lever: (value,) for lever, value in plan.values.items()}))
    assert traces[plan.execution].untraced == {}
    return traces[plan.execution].segments


@pytest.mark.parametrize("tiling", [None, TILE_PX])
@pytest.mark.parametrize("name", CLASSES)
def test_copied_turns_are_as_good_as_traced_ones(name, tiling, monkeypatch):
    copied = segments_of(name, tiling)
    monkeypatch.setattr(Shortcuts, "shorten", lambda self, module, path: None)
    traced = segments_of(name, tiling)
    are_alike(copied, traced)


def are_alike(segments, others):
    """To the byte, and in what comes and goes when."""
    assert [one.component for one in segments] == [other.component for other in others]
    for one, other in zip(segments, others, strict=True):
        for column in COLUMNS:
            assert getattr(one, column).tolist() == getattr(other, column).tolist(), (one.component, column)
        assert ends(one) == ends(other)
        assert one.attentions == other.attentions


def ends(segment):
    """For each tensor that goes, when it came."""
    came, gone = {}, []
    for number, (kind, ref) in enumerate(zip(segment.kind.tolist(), segment.ref.tolist(), strict=True)):
        if kind == 0:
            came[ref] = number
        elif kind == 1:
            gone.append((number, came.get(ref)))
    return gone


REMEMBERED = ("StableDiffusionPipeline", "FluxPipeline", "WanPipeline")
LATER = ("StableDiffusionXLPipeline", "PixArtSigmaPipeline", "SanaPipeline", "StableDiffusion3Pipeline", "LTXPipeline")


@pytest.mark.parametrize("name", [*REMEMBERED, *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)])
def test_operators_from_memory_are_as_good_as_torchs(name, monkeypatch):
    remembered = segments_of(name, TILE_PX)
    monkeypatch.setattr(Answers, "find", lambda *_: None)
    traced = segments_of(name, TILE_PX)
    are_alike(remembered, traced)
