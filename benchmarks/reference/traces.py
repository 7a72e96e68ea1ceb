"""Traces in which nothing is copied and no operator is answered from memory: what the shortcuts are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

from autotune.flow.recordings import Recordings
from autotune.records.plan import Plan
from autotune.records.trace import EventKind, Segment
from autotune.search.space import Space
from autotune.trace.answers import Answers
from autotune.trace.shortcuts import Shortcuts
from benchmarks.coverage import small_job

__all__ = ["LOOPING", "TILE_PX", "difference", "segments_of", "without_memory", "without_shortcuts"]

LOOPING = (
    "WanPipeline", "WanImageToVideoPipeline", "QwenImagePipeline", "CogVideoXPipeline", "HunyuanVideoPipeline", "LTXPipeline",
)  # fmt: skip
"""Pipelines whose VAEs go from frame to frame."""
TILE_PX = 128
_FRAMES = 17
_COLUMNS = ("kind", "size", "op_class", "op_dtype", "op_flops", "op_bytes", "op_kernels", "op_conv_bytes")


def segments_of(name: str, tiling: int | None) -> tuple[Segment, ...]:
    """A call of a small pipeline of that class with its VAE in tiles, or without."""
    job = small_job(name, frames=_FRAMES)
    recordings = Recordings(job, job.largest, job.calls[0])
    plan = Plan(vae_tiling=tiling)
    traces = recordings.traces(Space(values={lever: (value,) for lever, value in plan.values.items()}))
    trace = traces[plan.execution]
    if trace.untraced:
        raise RuntimeError(f"{name} was not traced whole: {trace.untraced}")
    return trace.segments


@contextmanager
def without_shortcuts() -> Iterator[None]:
    """Every block is traced each time."""
    with patch.object(Shortcuts, "shorten", lambda *_: None):
        yield


@contextmanager
def without_memory() -> Iterator[None]:
    """Every operator is torch's to answer."""
    with patch.object(Answers, "key_of", lambda *_: None):
        yield


def difference(segments: Sequence[Segment], others: Sequence[Segment]) -> str:
    """Where two traces are not the same to the byte, in words; empty if they are."""
    if [one.component for one in segments] != [other.component for other in others]:
        return "other components are called"
    for one, other in zip(segments, others, strict=True):
        for column in _COLUMNS:
            if getattr(one, column).tolist() != getattr(other, column).tolist():
                return f"{column} of {one.component}, turn {one.turn}"
        if _ends(one) != _ends(other):
            return f"ends of tensors of {one.component}, turn {one.turn}"
        if one.attentions != other.attentions:
            return f"attentions of {one.component}, turn {one.turn}"
    return ""


def _ends(segment: Segment) -> list[tuple[int, int | None]]:
    """For each tensor that goes, when it came."""
    came: dict[int, int] = {}
    gone = []
    for number, (kind, ref) in enumerate(zip(segment.kind.tolist(), segment.ref.tolist(), strict=True)):
        if kind == EventKind.ALLOC:
            came[ref] = number
        elif kind == EventKind.FREE:
            gone.append((number, came.get(ref)))
    return gone
