"""Which kernel `scaled_dot_product_attention` takes on a card, and what it allocates besides its output.

Conditions and priorities: aten/src/ATen/native/transformers/cuda/sdp_utils.cpp. What it does not know: the optional cuDNN
kernel, whose temporaries are those of flash plus a few MB.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from autotune.records.device import Device
from autotune.records.estimate import AttentionUse
from autotune.records.trace import Attention, Trace

__all__ = [
    "Kernel",
    "attention_bytes",
    "attention_flops",
    "attention_use",
    "kernel_of",
    "padded_share",
    "temporary_bytes",
]

Kernel = Literal["flash", "efficient", "math", "cpu"]

_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8, "other": 4}
_FLASH_HEAD_DIM = 256  # flash takes q = k = v head sizes up to this
_EFFICIENT_ACCUMULATOR_DIM = 128  # above it, half precision needs an fp32 output accumulator (kernel_forward.h)
_MATH_SCORE_BYTES = 13  # fp32 scores, softmax, -inf mask and its `where`: 4 + 4 + 1 + 4 a score (_safe_softmax)


# Backends of diffusers' dispatcher and libraries, and the kernel whose memory and speed theirs are like.
_LIKE: dict[str, Kernel] = {"xformers": "efficient", "backend:xformers": "efficient", "backend:_native_efficient": "efficient",
                            "backend:_native_math": "math"}  # fmt: skip


def kernel_of(attention: Attention, device: Device, chosen: str = "sdpa") -> Kernel:
    """The kernel torch picks without gradients, in its default order: flash, efficient, math; or what the plan chose.

    Flash, Sage and cuDNN backends keep no score matrix and are taken as flash where it runs.
    """
    if device.kind == "cpu":
        return "cpu"
    if chosen in _LIKE:
        return _LIKE[chosen]
    capability = device.compute_capability or (8, 0)
    half = attention.dtype in {"float16", "bfloat16"}
    square = attention.head_dim == attention.value_dim
    if half and capability >= (8, 0) and not attention.masked and square and attention.head_dim <= _FLASH_HEAD_DIM:
        return "flash"
    tensor_cores = capability >= (8, 0) or (half and capability >= (7, 0))
    alignment = 1 if not tensor_cores else 8 if half else 4
    aligned = attention.head_dim % alignment == 0 and attention.value_dim % alignment == 0
    typed = attention.dtype in {"float32", "float16"} or (attention.dtype == "bfloat16" and capability >= (8, 0))
    return "efficient" if typed and aligned and capability >= (5, 0) else "math"


def attention_use(trace: Trace, device: Device, chosen: str = "sdpa") -> AttentionUse | None:
    """Which kernels the trace's attentions take there, and the largest that is not fused; None if there is no attention."""
    if chosen == "vanilla" or chosen.startswith("sliced:"):
        return None  # the denoiser's are computed step by step
    flops: Counter[Kernel] = Counter()
    largest = AttentionUse(kernels=())
    for segment in trace.segments:
        for attention in segment.attentions:
            kernel = kernel_of(attention, device, chosen)
            flops[kernel] += int(attention_flops(attention))
            held = temporary_bytes(attention, kernel)
            if kernel == "math" and held > largest.scores_bytes:
                why = "math attention was chosen" if chosen in _LIKE else _unfused(attention, device)
                owner = segment.component.replace("_", " ") or "pipeline"
                largest = AttentionUse(kernels=(), scores_bytes=held, unfused=why, component=owner)
    fused = tuple(kernel for kernel, _ in flops.most_common() if kernel != "math")
    return largest.model_copy(update={"kernels": fused}) if flops else None


def _unfused(attention: Attention, device: Device) -> str:
    """Why the efficient kernel, which takes the most, does not take this one."""
    if (device.compute_capability or (8, 0)) < (5, 0):
        return "no fused attention before compute capability 5.0"
    if attention.dtype == "bfloat16" and (device.compute_capability or (8, 0)) < (8, 0):
        return "no fused attention for bfloat16 before compute capability 8.0"
    if attention.dtype not in {"float32", "float16", "bfloat16"}:
        return f"no fused attention for {attention.dtype}"
    masked = "masked " if attention.masked else ""
    return f"no fused kernel for {masked}{attention.dtype} heads of {attention.head_dim}"


def temporary_bytes(attention: Attention, kernel: Kernel) -> int:
    """Bytes alive during the kernel besides its inputs and its output."""
    rows = attention.batch * attention.heads * attention.query_length
    item = _ITEM_BYTES[attention.dtype]
    if kernel == "flash":
        padded = attention.head_dim % 8 != 0  # q, k, v and the output are padded to a multiple of 8
        keys = attention.batch * attention.heads * attention.key_length
        padding = (2 * rows + 2 * keys) * (-(-attention.head_dim // 8) * 8) * item if padded else 0
        return rows * 4 + padding  # log-sum-exp in fp32
    if kernel == "efficient":
        accumulator = (
            rows * attention.value_dim * 4 if item == 2 and attention.value_dim > _EFFICIENT_ACCUMULATOR_DIM else 0
        )
        return accumulator + _expanded_mask_bytes(attention, item)
    if kernel == "math":
        scores = rows * attention.key_length * _MATH_SCORE_BYTES
        inputs = (2 * rows + 2 * attention.batch * attention.heads * attention.key_length) * attention.head_dim
        return scores + (inputs * 4 if item == 2 else inputs * item // 2)  # half inputs are copied to fp32
    return 0


def _expanded_mask_bytes(attention: Attention, item: int) -> int:
    """A mask whose key length is no multiple of 16 is padded, and padding an expanded mask writes it out in full."""
    if not attention.masked or attention.key_length % 16 == 0:
        return 0
    return attention.batch * attention.heads * attention.query_length * (-(-attention.key_length // 16) * 16) * item


def attention_flops(attention: Attention) -> float:
    """Two matrix products: queries with keys, scores with values."""
    pairs = attention.batch * attention.heads * attention.query_length * attention.key_length
    return 2.0 * pairs * (attention.head_dim + attention.value_dim)


def padded_share(attention: Attention, kernel: Kernel) -> float:
    """FLOPs that are done over those that are wanted: kernels are compiled for a few head sizes and fill up to the next.

    Flash: multiples of 32 (flash_fwd_launch_template.h); efficient: 32, 64, then multiples of 128 (kernel_forward.h `kMaxK`).
    On the CPU a softmax takes as long as 9 elements of a head, heads below 16, which fill no vector, as long as 25, and each
    query begins and ends for 50 keys (measured: heads from 8 to 128, 16 to 4096 keys, two cores with AVX-512).
    """
    size = attention.head_dim
    if kernel == "flash":
        return -(-size // 32) * 32 / size
    if kernel == "efficient":
        return (next((tile for tile in (32, 64) if size <= tile), -(-size // 128) * 128)) / size
    if kernel == "cpu":
        keys = attention.key_length
        return ((25 if size < 16 else size) + 9) / size * (keys + 50) / keys
    return 1.0


def attention_bytes(attention: Attention, kernel: Kernel) -> float:
    """Bytes moved: inputs and output, and the scores where the kernel writes them out."""
    heads = attention.batch * attention.heads
    inputs = heads * (attention.query_length * attention.head_dim + attention.key_length * attention.head_dim)
    outputs = heads * (attention.key_length + attention.query_length) * attention.value_dim
    moved = (inputs + outputs) * _ITEM_BYTES[attention.dtype]
    if kernel == "math":
        moved += 6 * 4 * heads * attention.query_length * attention.key_length  # six passes over fp32 scores
    return float(moved)
