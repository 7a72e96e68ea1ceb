"""What a device sustains of its peaks, where nobody has measured it: a few constants by generation, each with its source.

Unless a comment names another source, shares and costs were fitted together (robust least squares of log seconds, each kept
within what is physical) to published timings of some 20 cards from Pascal to Hopper, running SD 1.4 to SDXL, PixArt, FLUX,
CogVideoX and HunyuanVideo, and rounded. docs/log.md says how, which ones lie at their bounds, and which were moved afterwards.
Measuring a card replaces them (`autotune probe --calibrate`).
"""

from __future__ import annotations

from autotune.records.device import Device
from autotune.records.speed import Speed

__all__ = ["sustained"]

# FLOP per joule of tensor cores at work, by the first compute capability of a generation: a card of few watts (T4, A10, L4,
# laptops) never sees its peak. TF32 costs twice as much, fp8 and int8 half. The same for fp32 without tensor cores, which
# limits only cards whose fp32 rate was doubled without the power for it (A10).
_TENSOR_FLOPS_PER_J = {(7, 0): 0.285e12, (8, 0): 0.55e12, (8, 6): 0.41e12, (8, 9): 0.95e12, (9, 0): 0.82e12}
_VECTOR_FLOPS_PER_J = {(0, 0): 0.08e12, (7, 0): 0.09e12, (8, 0): 0.075e12, (8, 9): 0.20e12}
_TYPICAL_W = 300.0  # a card whose power is not known

# Shares of what power and hardware allow.
_PRODUCTS_SHARE = 0.9
_CONVOLUTIONS_SHARE = 0.93
_VECTOR_PRODUCTS_SHARE = 0.95
_VECTOR_CONVOLUTIONS_SHARE = 0.75
# Of fused attention, whose head size is padded to its tile. Memory-efficient attention in fp32 takes TF32, xFormers' three
# TF32 products for one of fp32 (`OpMultiplyAddFastF32` in its gemm_kernel_utils.h).
_FLASH_SHARE, _EFFICIENT_SHARE, _EMULATED_SHARE = 0.47, 0.42, 0.7 / 3
_MATH_SHARE = 0.5  # a guess: no record takes the math kernel
# Of half precision's rate: tinygemm unpacks int4 weights again for every 16 rows; `torch._int_mm` as eager code calls it.
_INT4_SHARE, _EAGER_INT8_SHARE = 0.057, 0.115

# Shares of the peak bandwidth.
_POINTWISE_SHARE, _NORM_SHARE, _COPY_SHARE = 0.85, 0.72, 0.8

_KERNEL_S = 3.6e-6
_PRODUCT_S = 27e-6
_HOST_S = 43e-6  # Python, dispatch and launch: cloud hosts of 2022 to 2024; a fast desktop takes half of it

# One way over 16 lanes from pinned memory, 80 % of what PCIe carries. Pageable memory is first copied by one core: a third,
# and at most its bandwidth; large tensors that come back are written to pages that are new, which the kernel has to clear:
# model offload of FLUX takes 15 s more than none, for 34 GB each way, on an H100 as on a 4090 (huggingface/diffusers pull
# request 11682). Smaller ones go where others were: on an H200 group offload of SD 1.5 and SDXL brings them back as fast as in.
_LINK_BYTES_PER_S = {1: 3e9, 2: 6e9, 3: 12e9, 4: 24e9, 5: 48e9, 6: 96e9}
_PAGEABLE_SHARE, _PAGEABLE_BYTES_PER_S, _BACK_BYTES_PER_S = 0.35, 8e9, 2.7e9
_TENSOR_S = 1e-4
_HOOK_S = (
    2e-4  # group offload by leaf of FLUX and LTX-Video on an L40S, beside their bytes (diffusers benchmarks, 2025)
)

# A CPU's share of its assumed peaks with oneDNN, and PyTorch's cost of an operator there.
_CPU_PRODUCTS_SHARE, _CPU_CONVOLUTIONS_SHARE, _CPU_ATTENTION_SHARE = 0.65, 0.45, 0.3
_CPU_OPERATOR_S = 25e-6
_CPU_CONVOLUTION_S = 1e-4  # oneDNN primitives and their reorders, seen on tiny UNets


def sustained(device: Device) -> Speed:
    """The device's measured speed, or what devices of its generation reach.

    >>> from autotune.probe.catalog import card
    >>> t4 = card("Tesla T4")
    >>> sustained(t4).products_flops_per_s["float16"] < 0.4 * t4.fp16_flops_per_s  # 70 W do not feed its tensor cores
    True
    """
    if device.speed is not None:
        return device.speed
    return _cpu(device) if device.kind == "cpu" else _cuda(device)


def _cuda(device: Device) -> Speed:
    watts, capability = device.power_limit_w or _TYPICAL_W, device.compute_capability or (8, 0)
    vector = min(device.fp32_flops_per_s, watts * _of_generation(_VECTOR_FLOPS_PER_J, capability))
    tensor = _tensor_rates(device, watts, capability)
    half = tensor.get("float16", vector)
    tf32 = tensor.get("tf32", vector)
    link = _LINK_BYTES_PER_S.get(device.pcie_generation or 3, _LINK_BYTES_PER_S[3]) * (device.pcie_width or 16) / 16
    pageable = min(link * _PAGEABLE_SHARE, _PAGEABLE_BYTES_PER_S)
    bandwidth = device.bandwidth_bytes_per_s
    return Speed(
        products_flops_per_s={"float32": vector * _VECTOR_PRODUCTS_SHARE}
        | {name: rate * _PRODUCTS_SHARE for name, rate in tensor.items()},
        convolutions_flops_per_s={"float32": vector * _VECTOR_CONVOLUTIONS_SHARE}
        | {name: rate * _CONVOLUTIONS_SHARE for name, rate in tensor.items()},
        attention_flops_per_s={
            "flash": half * _FLASH_SHARE,
            "efficient": half * _EFFICIENT_SHARE,
            "efficient_float32": tf32 * _EFFICIENT_SHARE,
            "xformers_float32": (tf32 * _EMULATED_SHARE) if "tf32" in tensor else vector * _EFFICIENT_SHARE,
            "math": vector * _MATH_SHARE,
        },
        pointwise_bytes_per_s=bandwidth * _POINTWISE_SHARE,
        norm_bytes_per_s=bandwidth * _NORM_SHARE,
        copy_bytes_per_s=bandwidth * _COPY_SHARE,
        kernel_s=_KERNEL_S,
        product_s=_PRODUCT_S,
        convolution_s=_PRODUCT_S,
        host_s=_HOST_S,
        hook_s=_HOOK_S,
        pinned_bytes_per_s=link,
        pageable_bytes_per_s=pageable,
        back_bytes_per_s=min(pageable, _BACK_BYTES_PER_S),
        reused_bytes_per_s=pageable,
        tensor_s=_TENSOR_S,
    )


def _tensor_rates(device: Device, watts: float, capability: tuple[int, int]) -> dict[str, float]:
    """FLOP per second by format, within the power; none where there are no tensor cores, for then fp32 units compute."""
    if capability < (7, 0):
        return {}
    limit = watts * _of_generation(_TENSOR_FLOPS_PER_J, capability)
    rates = {
        "float16": (device.fp16_flops_per_s, 1.0),
        "bfloat16": (device.bf16_flops_per_s, 1.0),
        "tf32": (device.tf32_flops_per_s, 0.5),
        "float8": (device.fp8_flops_per_s, 2.0),
        "int8": (2 * (device.fp16_flops_per_s or 0.0), 2.0),  # twice fp16 on all of them (CUDA programming guide)
    }
    found = {name: min(peak, limit * share) for name, (peak, share) in rates.items() if peak}
    half = found.get("float16", 0.0)
    return found | {"int4": half * _INT4_SHARE, "eager_int8": half * _EAGER_INT8_SHARE}


def _of_generation(table: dict[tuple[int, int], float], capability: tuple[int, int]) -> float:
    return table[max(first for first in table if first <= capability)]


def _cpu(device: Device) -> Speed:
    rates = {"float32": device.fp32_flops_per_s, "bfloat16": device.bf16_flops_per_s or device.fp32_flops_per_s}
    rates["float16"] = device.fp16_flops_per_s or device.fp32_flops_per_s
    bandwidth = device.bandwidth_bytes_per_s
    return Speed(
        products_flops_per_s={name: rate * _CPU_PRODUCTS_SHARE for name, rate in rates.items()},
        convolutions_flops_per_s={name: rate * _CPU_CONVOLUTIONS_SHARE for name, rate in rates.items()},
        attention_flops_per_s={"cpu": device.fp32_flops_per_s * _CPU_ATTENTION_SHARE},
        pointwise_bytes_per_s=bandwidth * _POINTWISE_SHARE,
        norm_bytes_per_s=bandwidth * _NORM_SHARE,
        copy_bytes_per_s=bandwidth * _COPY_SHARE,
        kernel_s=0.0,
        product_s=0.0,
        convolution_s=_CPU_CONVOLUTION_S,
        host_s=_CPU_OPERATOR_S,
        hook_s=_HOOK_S,
        pinned_bytes_per_s=bandwidth,
        pageable_bytes_per_s=bandwidth,
        back_bytes_per_s=bandwidth,
        reused_bytes_per_s=bandwidth,
        tensor_s=0.0,
    )
