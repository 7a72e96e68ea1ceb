"""Components that could not be traced: they count with their weights, at the turn they would have had, and a wider bar."""

from __future__ import annotations

import numpy as np

from autotune.records.estimate import PHASES, PhaseName
from autotune.records.model import Model
from autotune.records.trace import Segment, Trace
from autotune.units import GIB

__all__ = ["completed", "unknown_bytes"]

# A component that could not be traced counts with its weights; what it allocates on top is unknown. Working memory of
# published models lies between 1 and 8 GiB and grows with the model.
_UNTRACED_BYTES = 2 * GIB
_UNTRACED_SHARE = 0.5

_ROLE_PHASES: dict[str, PhaseName] = {"text_encoder": "encoding", "image_encoder": "encoding", "denoiser": "denoising"}


def unknown_bytes(trace: Trace) -> int:
    """What components without a trace may allocate on top of their weights."""
    guessed = [name for name in trace.untraced if name in trace.weights]
    return sum(round(_UNTRACED_SHARE * trace.weights[name]) + _UNTRACED_BYTES for name in guessed)


def completed(trace: Trace, model: Model) -> Trace:
    """The trace with an empty segment for each component that was not reached, so that its weights have their turn."""
    called = {segment.component for segment in trace.segments}
    missing = [part for part in model.components if part.name in trace.untraced and part.name not in called]
    if not missing:
        return trace
    extra = [_empty(part.name, _ROLE_PHASES.get(part.role, "decoding")) for part in missing]
    order = {name: place for place, name in enumerate(PHASES)}
    segments = sorted((*trace.segments, *extra), key=lambda segment: order[segment.phase])
    return trace.model_copy(update={"segments": tuple(segments)})


def _empty(component: str, phase: PhaseName) -> Segment:
    return Segment(
        component=component,
        method="forward",
        phase=phase,
        turn=0 if phase == "denoising" else -1,
        kind=np.zeros(0, np.int8),
        ref=np.zeros(0, np.int32),
        size=np.zeros(0, np.int64),
        op_class=np.zeros(0, np.int8),
        op_dtype=np.zeros(0, np.int8),
        op_flops=np.zeros(0),
        op_bytes=np.zeros(0),
        op_kernels=np.zeros(0, np.int32),
        op_conv_bytes=np.zeros((0, 3), np.int64),
    )
