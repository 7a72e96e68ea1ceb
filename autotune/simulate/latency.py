"""Seconds of one segment: a roofline for each kernel behind a queue that the host fills, and the link for transfers.

A kernel takes the longer of its arithmetic and its traffic, and a little beside. It starts when the one before it is done, and
not before the host has launched it, one operator after the other: where kernels are short the card waits for Python. The host
starts anew with each call of a component, since schedulers read a value of the last step from the card. All rates are
`Speed`'s; what is here is structure.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.speed import Speed
from autotune.records.trace import DTYPES, EventKind, OpClass, Segment
from autotune.simulate.attention import attention_bytes, attention_flops, kernel_of, padded_share
from autotune.simulate.speed import sustained

__all__ = [
    "Code",
    "SegmentTime",
    "moved_s",
    "on_host_s",
    "segment_time",
    "setup_s",
]

Code = Literal["none", "trace", "blocks", "whole", "graphs", "tuned"]
"""A component's code: as it is, a `torch.jit` trace, its repeated blocks or the whole of it by inductor, that with CUDA graphs,
and with kernels that were tuned for their shapes beside (`max-autotune`)."""


class _Compiled(NamedTuple):
    """Shares of what code costs as it is."""

    host: float = 1.0
    fuses: bool = False
    """Whether a run of pointwise kernels, normalisations and copies becomes one, whose middle is not written out."""
    gap: float = 1.0
    """`Speed.kernel_s`."""
    products: float = 1.0
    """Seconds of matrix products and convolutions."""


# A trace leaves out Python: TorchScript's interpreter takes some 6 us of the 18 of a launch (one published pair).
# Inductor fuses chains of pointwise kernels and calls them from generated code; a graph is launched as one: fitted with the
# shares in speed.py.
_COMPILED: dict[Code, _Compiled] = {
    "none": _Compiled(),
    "trace": _Compiled(host=0.33),
    "blocks": _Compiled(host=0.37, fuses=True),
    "whole": _Compiled(host=0.37, fuses=True),
    "graphs": _Compiled(host=0.0, fuses=True, gap=0.2),
    "tuned": _Compiled(host=0.0, fuses=True, gap=0.2, products=0.8),
}
# One-off: two optimising passes of a trace; regional compilation of FLUX takes 10 s and of a whole model 67 s (diffusers
# documentation, "torch.compile"), on a fast host; twice that on a desktop.
_SETUP_S: dict[Literal["none", "trace", "blocks"], float] = {"none": 0.0, "trace": 10.0, "blocks": 20.0}

# Bytes of a convolution's input and output that are copied, in half precision, because tensor cores want NHWC (cuDNN's
# nchwToNhwc kernels), in passes; fitted with the shares in speed.py.
_LAYOUT_PASSES = 3.4
# Kernels that a run of small ones becomes: reductions end one.
_KERNELS_A_RUN = 2

# Text encoders on the CPU: eight desktop cores, and a third of their dual-channel DDR4 bandwidth.
_HOST_FLOPS_PER_S = 2e11
_HOST_BYTES_PER_S = 15e9

_SMALL = (OpClass.POINTWISE, OpClass.NORM, OpClass.COPY)


class SegmentTime(NamedTuple):
    """Seconds of computing, and the kernels it takes."""

    compute_s: float
    kernels: int


class _Kernels(NamedTuple):
    """One row for each operator in the order of the call; a fused attention is one."""

    op_class: NDArray[np.int8]
    op_dtype: NDArray[np.int8]
    flops: NDArray[np.float64]
    moved_bytes: NDArray[np.float64]
    layout_bytes: NDArray[np.float64]
    """Input and output of a convolution that is not in channels-last order."""
    launches: NDArray[np.float64]
    attention: NDArray[np.int32]
    """Row in the segment's attention table; -1 for others."""


def segment_time(
    segment: Segment, device: Device, *, tf32: bool, attention: str = "sdpa", code: Code = "none"
) -> SegmentTime:
    """The segment on the device.

    Args:
        segment: what was recorded.
        device: its rates.
        tf32: whether fp32 matrix products use TF32.
        attention: the plan's choice of attention.
        code: how the segment's Python was compiled.
    """
    speed, compiled = sustained(device), _COMPILED[code]
    kernels = _fused(_in_order(segment)) if compiled.fuses else _in_order(segment)
    if not len(kernels.flops):
        return SegmentTime(0.0, 0)
    work_s = _work_s(kernels, segment, device, speed, tf32, attention, compiled)
    work_s += kernels.launches * speed.kernel_s * compiled.gap
    host_s = kernels.launches * speed.host_s * compiled.host
    if not segment.component and segment.phase == "decoding":
        work_s += kernels.moved_bytes / speed.pictures_bytes_per_s
    in_turn = device.kind == "cpu"
    total_s = float((work_s + host_s).sum()) if in_turn else _queued_s(work_s, host_s)
    return SegmentTime(total_s, round(kernels.launches.sum()))


def on_host_s(segment: Segment) -> float:
    """Seconds of the segment on an ordinary CPU beside the card."""
    return float(np.maximum(segment.op_flops / _HOST_FLOPS_PER_S, segment.op_bytes / _HOST_BYTES_PER_S).sum())


def setup_s(code: Literal["none", "trace", "blocks"]) -> float:
    """Seconds that the first call takes longer under a plan's `compile`."""
    return _SETUP_S[code]


def moved_s(
    device: Device,
    moved_bytes: float,
    *,
    back: bool = False,
    large_share: float = 1.0,
    pinned: bool = False,
    tensors: float = 0,
    hooks: int = 0,
) -> float:
    """Seconds to move weights over the link.

    Args:
        device: decides the link.
        moved_bytes: of the weights.
        back: whether they go from the device to RAM.
        large_share: of those bytes, in tensors that get new memory there.
        pinned: whether they wait in pinned memory.
        tensors: how many they are.
        hooks: how many modules' hooks do it.
    """
    speed = sustained(device)
    if device.kind == "cpu":
        return hooks * speed.hook_s
    if back:
        byte_s = large_share / speed.back_bytes_per_s + (1 - large_share) / speed.reused_bytes_per_s
    else:
        byte_s = 1 / (speed.pinned_bytes_per_s if pinned else speed.pageable_bytes_per_s)
    return moved_bytes * byte_s + tensors * speed.tensor_s + hooks * speed.hook_s


def _queued_s(work_s: NDArray[np.float64], host_s: NDArray[np.float64]) -> float:
    """When the last kernel is done: the latest of all launches, each with all work from its kernel on."""
    from_here_s = np.cumsum(work_s[::-1])[::-1]
    return float(np.max(np.cumsum(host_s) + from_here_s))


def _in_order(segment: Segment) -> _Kernels:
    kind = segment.kind
    depth = np.cumsum((kind == EventKind.ATTENTION).astype(np.int64) - (kind == EventKind.ATTENTION_END))
    here = ((kind == EventKind.OP) & (depth == 0)) | (kind == EventKind.ATTENTION)
    fused, rows = kind[here] == EventKind.ATTENTION, segment.ref[here]
    ops = np.where(fused, -1, rows)

    def column(values: NDArray[np.generic], of_attention: float) -> NDArray[np.float64]:
        return np.append(values.astype(np.float64), of_attention)[ops]

    return _Kernels(
        op_class=column(segment.op_class, OpClass.ATTENTION).astype(np.int8),
        op_dtype=column(segment.op_dtype, 0).astype(np.int8),
        flops=column(segment.op_flops, 0.0),
        moved_bytes=column(segment.op_bytes, 0.0),
        layout_bytes=column(segment.op_conv_bytes[:, :2].sum(axis=1), 0.0),
        launches=column(segment.op_kernels, 1.0),
        attention=np.where(fused, rows, -1).astype(np.int32),
    )


def _fused(kernels: _Kernels) -> _Kernels:
    """Runs of small kernels as inductor makes them: few launches, the first one's reads and the last one's writes.

    Half of a kernel's bytes are taken for its reads.
    """
    small = np.isin(kernels.op_class, _SMALL)
    starts, ends = small & ~np.append(False, small[:-1]), small & ~np.append(small[1:], False)
    moved_bytes = np.where(small, (starts * 0.5 + ends * 0.5) * kernels.moved_bytes, kernels.moved_bytes)
    launches = np.where(small, 0.0, kernels.launches)
    lengths = np.flatnonzero(ends) - np.flatnonzero(starts) + 1
    launches[starts] = np.minimum(lengths, _KERNELS_A_RUN)
    return kernels._replace(moved_bytes=moved_bytes, launches=launches)


def _work_s(
    kernels: _Kernels,
    segment: Segment,
    device: Device,
    speed: Speed,
    tf32: bool,
    attention: str,
    compiled: _Compiled,
) -> NDArray[np.float64]:
    """Seconds that each row's kernels compute or move bytes, the longer of the two."""
    convolved = np.isin(kernels.op_class, (OpClass.CONV, OpClass.CONV_3D, OpClass.CONV_NHWC))
    eager = not compiled.fuses
    products = np.array([_rate(speed.products_flops_per_s, name, tf32=tf32, eager=eager) for name in DTYPES])
    # torch allows TF32 to cuDNN by default
    convolutions = np.array([_rate(speed.convolutions_flops_per_s, name, tf32=True, eager=eager) for name in DTYPES])
    rates = np.where(convolved, convolutions[kernels.op_dtype], products[kernels.op_dtype])
    beside_s = np.where(convolved, speed.convolution_s, speed.product_s) * kernels.launches * (kernels.flops > 0)
    arithmetic_s = (kernels.flops / rates + beside_s) * compiled.products

    bandwidth = np.full(len(kernels.flops), speed.pointwise_bytes_per_s)
    bandwidth[kernels.op_class == OpClass.NORM] = speed.norm_bytes_per_s
    bandwidth[kernels.op_class == OpClass.COPY] = speed.copy_bytes_per_s
    traffic_s = kernels.moved_bytes / bandwidth

    work_s: NDArray[np.float64] = np.maximum(arithmetic_s, traffic_s)
    if device.kind == "cuda" and (device.compute_capability or (8, 0)) >= (7, 0):
        half = np.isin(kernels.op_dtype, (DTYPES.index("float16"), DTYPES.index("bfloat16")))
        work_s += half * kernels.layout_bytes * _LAYOUT_PASSES / speed.copy_bytes_per_s
    for row in np.flatnonzero(kernels.attention >= 0):
        work_s[row] = _attention_s(segment, int(kernels.attention[row]), device, speed, attention)
    return work_s


def _attention_s(segment: Segment, row: int, device: Device, speed: Speed, chosen: str) -> float:
    attention = segment.attentions[row]
    kernel = kernel_of(attention, device, chosen)
    rates, name = speed.attention_flops_per_s, str(kernel)
    if kernel == "efficient" and attention.dtype == "float32":
        name = "xformers_float32" if "xformers" in chosen else "efficient_float32"
    flops = attention_flops(attention) * padded_share(attention, kernel)
    traffic_s = attention_bytes(attention, kernel) / speed.pointwise_bytes_per_s
    return max(flops / rates.get(name, min(rates.values())) + speed.product_s, traffic_s)


def _rate(rates: dict[str, float], dtype: str, *, tf32: bool, eager: bool) -> float:
    """FLOP per second for a type; types the hardware lacks are computed in half precision or fp32."""
    names = {"float32": ["tf32"] if tf32 else [], "int8": ["eager_int8"] if eager else []}.get(dtype, [])
    widened = ["float16"] if dtype in {"float8", "int8", "int4"} else []
    found = next((rates[name] for name in (*names, dtype, *widened) if name in rates), None)
    return found or rates["float32"] / (32 if dtype == "float64" else 1)
