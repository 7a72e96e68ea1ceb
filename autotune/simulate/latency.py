"""Seconds of one segment: a roofline with a floor for launches and one for the host, and the link for transfers.

Efficiencies are those of public timings of SD 1.5 and SDXL on A100, P100 and GTX 1070 (fal-ai/stable-diffusion-benchmarks,
January 2024, and a 2023 comparison on Pascal cards), not fitted to one record. Expect 15 to 25 % mean error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.trace import DTYPES, EventKind, OpClass, Segment
from autotune.simulate.attention import attention_bytes, attention_flops, kernel_of

__all__ = ["LATENCY_MARGIN", "SegmentTime", "moved_s", "on_host_s", "segment_time", "setup_s"]

# Share of the peak rate, by class: matrix products, NCHW and NHWC convolutions, attention (flash 0.5, efficient 0.35), the
# rest is bound by bandwidth. Share of the peak bandwidth for reductions and for pointwise kernels.
_COMPUTE_SHARE = {
    OpClass.GEMM: 0.65,
    OpClass.CONV: 0.45,
    OpClass.CONV_3D: 0.45,
    OpClass.CONV_NHWC: 0.60,
    OpClass.ATTENTION: 0.50,
}
_ATTENTION_SHARE = {"flash": 0.50, "efficient": 0.35, "math": 0.25, "cpu": 0.30}
_BANDWIDTH_SHARE = {OpClass.NORM: 0.6}
_BANDWIDTH_SHARE_ELSE = 0.8
_HALF_RATE_FLOPS_PER_PEAK = (
    2e-5  # a kernel of 2 GFLOP runs at half rate on a card of 100 TFLOP/s: 1 to 5 GFLOP are seen
)
_LAUNCH_S = 2e-6  # gap between kernels that are queued already
_HOST_S = {
    "cuda": 18e-6,
    "cpu": 5e-6,
}  # Python, dispatch and launch of one kernel: 12 to 20 us on a desktop, 30 to 40 in a cloud
_HOOK_S = 50e-6  # accelerate's hook around one module

# What a compiled denoiser saves: a trace leaves out Python's share of a launch (TorchScript's interpreter takes some 6 us);
# inductor fuses chains of pointwise kernels (0.4 of the launches, half of their traffic) and calls them from generated code.
# fal-ai's A100 timings of SD 1.5: 32 ms a step eager, 27 compiled. Starting values; calibration is to replace them.
_CODE = {"none": (1.0, 1.0, 1.0), "trace": (1 / 3, 1.0, 1.0), "blocks": (1 / 3, 0.4, 0.5)}
# One-off: two optimising passes of a trace; regional compilation of FLUX takes 10 s and of a whole model 67 s (diffusers
# documentation, "torch.compile"), on a fast host; twice that on a desktop.
_SETUP_S = {"none": 0.0, "trace": 10.0, "blocks": 20.0}
# Text encoders on the CPU: eight desktop cores, and a third of their dual-channel DDR4 bandwidth.
_HOST_FLOPS_PER_S = 2e11
_HOST_BYTES_PER_S = 15e9

# One-way pinned bandwidth of 16 lanes, 20 to 40 % below theory; pageable copies take a third of it, and accelerate's
# copies tensor by tensor reach 1.8 to 2.5 GB/s on PCIe 3.
_LINK_BYTES_PER_S = {1: 3e9, 2: 6e9, 3: 12e9, 4: 25e9, 5: 50e9}
_PAGEABLE_SHARE = 0.35
_PER_TENSOR_SHARE = 0.18

LATENCY_MARGIN = 0.35


class SegmentTime(NamedTuple):
    """Seconds of computing, and the kernels it takes."""

    compute_s: float
    kernels: int


def segment_time(
    segment: Segment, device: Device, *, tf32: bool, attention: str = "sdpa", code: str = "none"
) -> SegmentTime:
    """Roofline over the segment's kernels; the host may be slower than the card.

    Args:
        segment: what was recorded.
        device: its rates.
        tf32: whether fp32 matrix products use TF32.
        attention: the plan's choice of attention.
        code: "none", "trace" or "blocks": how the segment's Python was compiled.
    """
    host_share, launch_share, traffic_share = _CODE[code]
    outside = _outside_attention(segment)
    kernels = segment.op_kernels[outside]
    flops, moved = segment.op_flops[outside], segment.op_bytes[outside]
    op_class, op_dtype = segment.op_class[outside], segment.op_dtype[outside]
    per_launch = np.maximum(kernels, 1)
    compute_s = _compute_s(flops, op_class, op_dtype, per_launch, device, tf32)
    shares = np.where(op_class == OpClass.NORM, _BANDWIDTH_SHARE[OpClass.NORM], _BANDWIDTH_SHARE_ELSE)
    fused = (op_class == OpClass.POINTWISE) | (op_class == OpClass.NORM)
    bytes_s = moved * np.where(fused, traffic_share, 1.0) / (device.bandwidth_bytes_per_s * shares)
    total_s = float(np.maximum(compute_s, bytes_s).sum()) + _attention_s(segment, device, attention)
    launches = int(kernels.sum() * launch_share) + len(segment.attentions)
    total_s += launches * _LAUNCH_S
    return SegmentTime(max(total_s, launches * _HOST_S[device.kind] * host_share), launches)


def on_host_s(segment: Segment) -> float:
    """Seconds of the segment on an ordinary CPU beside the card."""
    return float(np.maximum(segment.op_flops / _HOST_FLOPS_PER_S, segment.op_bytes / _HOST_BYTES_PER_S).sum())


def setup_s(code: str) -> float:
    """Seconds that the first call takes longer."""
    return _SETUP_S[code]


def moved_s(
    device: Device, moved_bytes: float, *, by_tensor: bool = False, pinned: bool = False, modules: int = 0
) -> float:
    """Seconds to move weights over the link, from or to pageable memory or from pinned, with the hooks of these modules."""
    if device.kind == "cpu":
        return modules * _HOOK_S
    lanes = (device.pcie_width or 16) / 16
    link_bytes_per_s = _LINK_BYTES_PER_S.get(device.pcie_generation or 3, _LINK_BYTES_PER_S[3]) * lanes
    share = 1.0 if pinned else _PER_TENSOR_SHARE if by_tensor else _PAGEABLE_SHARE
    return moved_bytes / (link_bytes_per_s * share) + modules * _HOOK_S


def _compute_s(
    flops: NDArray[np.float64],
    op_class: NDArray[np.int8],
    op_dtype: NDArray[np.int8],
    launches: NDArray[np.int32],
    device: Device,
    tf32: bool,
) -> NDArray[np.float64]:
    rates = np.array([_rate(device, name, tf32=tf32) for name in DTYPES])
    conv_rates = np.array([_rate(device, name, tf32=True) for name in DTYPES])  # torch allows TF32 to cuDNN by default
    convolved = np.isin(op_class, (OpClass.CONV, OpClass.CONV_3D, OpClass.CONV_NHWC))
    peak = np.where(convolved, conv_rates[op_dtype], rates[op_dtype])
    share = np.ones(len(flops))
    for kind, value in _COMPUTE_SHARE.items():
        share[op_class == kind] = value
    one = flops / launches
    saturation = one / (one + peak * _HALF_RATE_FLOPS_PER_PEAK)
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = flops / (peak * share * saturation)
    return np.nan_to_num(seconds, nan=0.0, posinf=0.0)


def _attention_s(segment: Segment, device: Device, chosen: str) -> float:
    total_s = 0.0
    for attention in segment.attentions:
        kernel = kernel_of(attention, device, chosen)
        rate = _rate(device, "float32" if kernel == "math" else attention.dtype, tf32=False) * _ATTENTION_SHARE[kernel]
        moving_s = attention_bytes(attention, kernel) / (device.bandwidth_bytes_per_s * _BANDWIDTH_SHARE_ELSE)
        total_s += max(attention_flops(attention) / rate, moving_s)
    return total_s


def _rate(device: Device, dtype: str, *, tf32: bool) -> float:
    """Peak rate for a type; types the hardware lacks are computed in fp32."""
    if dtype == "float16" and device.fp16_flops_per_s:
        return device.fp16_flops_per_s
    if dtype == "bfloat16" and device.bf16_flops_per_s:
        return device.bf16_flops_per_s
    if dtype == "float32" and tf32 and device.tf32_flops_per_s:
        return device.tf32_flops_per_s
    return device.fp32_flops_per_s / (32 if dtype == "float64" else 1)


def _outside_attention(segment: Segment) -> NDArray[np.bool_]:
    """Rows of the op table that are not a fused attention's inside."""
    kind = segment.kind
    depth = np.cumsum((kind == EventKind.ATTENTION).astype(np.int64) - (kind == EventKind.ATTENTION_END))
    outside = np.ones(len(segment.op_class), dtype=np.bool_)
    outside[segment.ref[(kind == EventKind.OP) & (depth > 0)]] = False
    return outside
