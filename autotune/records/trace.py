"""One call of a pipeline as events: every allocation, free, kernel and module boundary, on no particular device."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from autotune.records.base import Record
from autotune.records.estimate import PhaseName

__all__ = ["DTYPES", "Attention", "EventKind", "OpClass", "Segment", "Trace"]

DTYPES = ("float32", "float16", "bfloat16", "float64", "other", "float8", "int8", "int4")


class EventKind(IntEnum):
    """What happens. `ref` and `size` of the event mean what is said here."""

    ALLOC = 0
    """A tensor's storage comes into being: ref is its number, size its bytes."""
    FREE = 1
    """It goes: the same ref and size."""
    OP = 2
    """A kernel has run, its outputs are alive: ref is its row in the op table."""
    ENTER = 3
    """A module is called: ref is its row in `modules`, size the bytes of its own weights (not its children's)."""
    EXIT = 4
    """It returns: the same ref and size."""
    ATTENTION = 5
    """Fused attention starts: ref is its row in the attention table."""
    ATTENTION_END = 6
    """It ends. What lies between is how the CPU does it; another device does it its own way."""


class OpClass(IntEnum):
    """Kinds of kernels that run at different shares of the hardware's peak."""

    GEMM = 0
    CONV = 1
    ATTENTION = 2
    NORM = 3
    POINTWISE = 4
    COPY = 5
    CONV_NHWC = 6
    """A convolution whose weights are in channels-last order."""
    CONV_3D = 7
    """A convolution over frames, height and width."""


class Attention(Record):
    """One fused attention: query `(batch, heads, query_length, head_dim)`."""

    batch: int
    heads: int
    query_length: int
    key_length: int
    head_dim: int
    value_dim: int
    masked: bool
    dtype: str
    """One of DTYPES."""


class Segment(Record):
    """The events of one call of a component, or of the pipeline's own code between two calls."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    component: str
    """Name of the component; empty for the pipeline's own code."""
    method: str
    """ "forward", "encode", "decode"; empty for the pipeline's own code."""
    phase: PhaseName
    """Where in the call it lies."""
    turn: int = -1
    """Which denoiser call this belongs to, from 0; -1 outside denoising."""
    kind: NDArray[np.int8]
    """EventKind of each event, shape `(events,)`."""
    ref: NDArray[np.int32]
    """Shape `(events,)`."""
    size: NDArray[np.int64]
    """Bytes, shape `(events,)`."""
    op_class: NDArray[np.int8]
    """OpClass, shape `(ops,)`."""
    op_dtype: NDArray[np.int8]
    """Index into DTYPES, shape `(ops,)`."""
    op_flops: NDArray[np.float64]
    """Shape `(ops,)`."""
    op_bytes: NDArray[np.float64]
    """Bytes read and written, shape `(ops,)`."""
    op_kernels: NDArray[np.int32]
    """How many launches the row stands for, shape `(ops,)`."""
    op_conv_bytes: NDArray[np.int64]
    """Of a convolution that needs layout copies (a kernel larger than 1, NCHW) the bytes of its input, output and weight, else
    zeros; shape `(ops, 3)`."""
    attentions: tuple[Attention, ...] = ()
    """The attention table."""
    modules: tuple[str, ...] = ()
    """Paths of the modules that events refer to, for example "unet.down_blocks.0.resnets.0.conv1"."""
    weights: dict[str, int] = {}
    """Bytes of the components whose precision the pipeline itself has changed by now (SDXL's fp32 VAE decode)."""


class Trace(Record):
    """One weightless call. Device-independent."""

    segments: tuple[Segment, ...]
    """In the order of the call."""
    weights: dict[str, int]
    """Bytes of each component's parameters and buffers, tied ones once, each rounded up to 512."""
    resident_buffers: dict[str, int]
    """The part that stays on the device under sequential offload."""
    blocks: dict[str, int] = {}
    """Bytes of the blocks that group offload moves, by path; what of a component is in none comes with its first call."""
    tensors: dict[str, tuple[int, ...]] = {}
    """Bytes of the tensors that each module holds itself, by path, in the order in which `Module.to` moves them; ties once."""
    denoiser_calls: int
    """Calls of the denoiser in the whole workload; two turns or so are recorded."""
    untraced: dict[str, str] = {}
    """Components that could not be traced, and why."""

    def replaced(self, component: str, segments: list[Segment]) -> Trace:
        """The same trace with the component's calls exchanged one for one."""
        fresh = iter(segments)
        exchanged = tuple(next(fresh) if part.component == component else part for part in self.segments)
        return self.model_copy(update={"segments": exchanged})
