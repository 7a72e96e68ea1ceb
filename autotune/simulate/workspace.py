"""Memory beside tensors: the device context, cuBLAS and convolution workspaces.

What it does not know: the plan that cuDNN picks for one convolution; rules by architecture, type and size stand for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.units import GIB, MIB

__all__ = ["bare_context_bytes", "context_bytes", "conv_workspace_bytes", "cublas_bytes"]

# A bare process on an RTX 3090, torch 2.7 + CUDA 12.8: 256 MiB (InvokeAI pull request 9413); P100 291 to 298 and a 16 GB
# RTX card 297 MiB out of OOM messages (pytorch issue 177406); GTX 1070 107 MiB. Kernels that load lazily add tens of MiB.
_CONTEXT_BYTES = {6: 300 * MIB, 7: 300 * MIB, 8: 300 * MIB}
# From Hopper on, an H200 (torch 2.11, CUDA 13.0, driver 580): 518 MiB bare, 686 once kernels of each kind have run, and 758 to
# 772 with a pipeline's. Nothing is published of later ones, which are taken to be like it.
_CONTEXT_BYTES_LATER = 518 * MIB
_LAZY_KERNELS_BYTES, _LAZY_KERNELS_BYTES_LATER = (
    96 * MIB,
    254 * MIB,
)  # CUDA_MODULE_LOADING=LAZY: as kernels are first used

# parseChosenWorkspaceSize, aten/src/ATen/cuda/CublasHandlePool.cpp: 4096 x 8 KiB on Hopper and Blackwell, else 8320 KiB.
_CUBLAS_BYTES_LATE = 32 * MIB
_CUBLAS_BYTES = 8320 * 1024

# cuDNN's tensor-core kernels read and write NHWC. Given NCHW in half precision, the plan that its heuristics name first keeps
# transposed copies of the input, the output and the weight: that alone gives the published peaks of SD 1.5, SDXL, FLUX,
# CogVideoX and HunyuanVideo decodes (A100, H100, A10G; torch 2.1 to 2.5) within 0.2 %, and of 30 on an H200 (torch
# 2.11) 22 within 1 % and 4 that hold up to 6 % more; two from 1920 and 2560 channels hold up to 25 % more, two of 4 nothing.
# Volta makes do with one copy: a V100 (presumed from its memory) decodes SD 1.4 with 3.06 GiB at batch 1, 4.35 at batch 4.
# In fp32, which is TF32 from Ampere on, kernels before Hopper write NCHW themselves and one copy is kept, the larger of input
# and output: SDXL's fp32 decode, 16.83 GiB on an A100. Hopper's write NHWC: an H200 holds all three, and 16 MiB beside large
# ones.
_VOLTA, _HOPPER = (7, 0), (9, 0)
_BESIDE_TF32_BYTES, _LARGE_BYTES = 16 * MIB, GIB
# Before tensor cores (Pascal) half precision is computed in fp32, from fp32 copies of input and output: SD 1.4 and 2.1
# decodes at 512 pixels on a GTX 1070 and a P100 within 0.1 %. Of the weight there is an fp32 copy (2 x its bytes) and its
# Winograd forms; the same cards' UNet peaks, at a convolution from 2560 to 1280 channels, want 7.5 x in all.
_PASCAL_ACTIVATION_COPIES = 2
_PASCAL_WEIGHT_COPIES = 7.5


def context_bytes(device: Device) -> int:
    """The CUDA context with its kernels; nothing on the CPU."""
    if device.kind == "cpu":
        return 0
    return bare_context_bytes(device) + (_LAZY_KERNELS_BYTES_LATER if _is_late(device) else _LAZY_KERNELS_BYTES)


def bare_context_bytes(device: Device) -> int:
    """The part of a context that is there from its first moment; nothing on the CPU."""
    if device.kind == "cpu":
        return 0
    major = (device.compute_capability or (8, 0))[0]
    return _CONTEXT_BYTES_LATER if _is_late(device) else _CONTEXT_BYTES.get(major, _CONTEXT_BYTES[8])


def cublas_bytes(device: Device) -> int:
    """cuBLAS's workspace, taken from the caching allocator at the first matrix product and never given back."""
    if device.kind == "cpu":
        return 0
    return _CUBLAS_BYTES_LATE if _is_late(device) else _CUBLAS_BYTES


def _is_late(device: Device) -> bool:
    return (device.compute_capability or (8, 0)) >= _HOPPER


def conv_workspace_bytes(device: Device, dtype: str, conv_bytes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Workspaces of convolutions of this type; rows of `conv_bytes` are the bytes of input, output and weight, as far as each
    is in another order than its kernel wants."""
    activations, weight = conv_bytes[:, :2], conv_bytes[:, 2]
    if device.kind == "cpu":
        return np.zeros(len(conv_bytes), dtype=np.int64)
    half = dtype in {"float16", "bfloat16"}
    both: NDArray[np.int64] = activations.sum(axis=1)
    if (device.compute_capability or (8, 0)) < (7, 0):
        if not half:
            return np.zeros_like(both)  # implicit GEMM reads the operands where they are
        return (_PASCAL_ACTIVATION_COPIES * both + _PASCAL_WEIGHT_COPIES * weight).astype(np.int64)
    if (device.compute_capability or (8, 0)) < _HOPPER if not half else device.compute_capability == _VOLTA:
        one_copy: NDArray[np.int64] = activations.max(axis=1) + weight
        return one_copy
    beside_bytes = 0 if half else _BESIDE_TF32_BYTES
    copies: NDArray[np.int64] = both + weight
    return copies + np.where((both >= _LARGE_BYTES) & (weight > 0), beside_bytes, 0)
