"""Memory beside tensors: the device context, cuBLAS, convolution workspaces, and what the allocator holds back.

What it does not know: the plan cuDNN picks for one convolution, and fragmentation event by event. Both are bounded here by
one constant each; the error bar covers the rest.
"""

from __future__ import annotations

from autotune.records.device import Device
from autotune.units import MIB

__all__ = ["context_bytes", "conv_workspace_share", "cublas_bytes", "margin_bytes", "slack_bytes"]

# A bare process on an RTX 3090, torch 2.7 + CUDA 12.8: 256 MiB (InvokeAI pull request 9413); P100 291 to 298 and a 16 GB
# RTX card 297 MiB out of OOM messages (pytorch issue 177406); GTX 1070 107 MiB. Kernels that load lazily add tens of MiB.
_CONTEXT_BYTES = {6: 300 * MIB, 7: 300 * MIB, 8: 300 * MIB}
_CONTEXT_BYTES_LATER = 448 * MIB  # no published figure for compute capability 9 and later; 400 to 600 MiB are expected
_LAZY_KERNELS_BYTES = 96 * MIB  # CUDA_MODULE_LOADING=LAZY: 64 to 128 MiB as kernels are first used

# parseChosenWorkspaceSize, aten/src/ATen/cuda/CublasHandlePool.cpp: 4096 x 8 KiB on Hopper and Blackwell, else 8320 KiB.
_CUBLAS_BYTES_LATE = 32 * MIB
_CUBLAS_BYTES = 8320 * 1024

# cuDNN's tensor-core kernels want NHWC, so an NCHW convolution takes copies of its input and output. In half precision 1.0
# gives the published peaks of SD 1.5, SDXL and FLUX decodes on A100 and H100 within 1.5 % at batch 1; in fp32 0.5 gives
# those of SDXL's upcast decode (10.47 GiB allocated in the diffusers loading guide; 5.57 GB reserved on an RTX 4090).
_CONV_WORKSPACE_SHARE_HALF = 1.0
_CONV_WORKSPACE_SHARE_FP32 = 0.5

# reserved / allocated of VAE decodes on an RTX 4090: 1.03 at 512, 1.20 at 1024, 1.24 at 2048 pixels (InvokeAI pull request
# 7674); there activations are nearly all of it.
_FRAGMENTATION_SHARE = 0.2
_OPEN_SEGMENT_BYTES = 20 * MIB  # the large pool's segment, c10/core/AllocatorConfig.h large_segment_size

_MARGIN_SHARE = 0.03
_MARGIN_BYTES = 64 * MIB


def context_bytes(device: Device) -> int:
    """The CUDA context with its kernels; nothing on the CPU."""
    if device.kind == "cpu":
        return 0
    major = (device.compute_capability or (8, 0))[0]
    return _CONTEXT_BYTES.get(major, _CONTEXT_BYTES_LATER) + _LAZY_KERNELS_BYTES


def cublas_bytes(device: Device) -> int:
    """cuBLAS's workspace, taken from the caching allocator at the first matrix product and never given back."""
    if device.kind == "cpu":
        return 0
    return _CUBLAS_BYTES_LATE if (device.compute_capability or (8, 0))[0] >= 9 else _CUBLAS_BYTES


def conv_workspace_share(device: Device, dtype: str) -> float:
    """Workspace of a convolution as a share of the bytes going in and out."""
    if device.kind == "cpu":
        return 0.0
    return _CONV_WORKSPACE_SHARE_HALF if dtype in {"float16", "bfloat16"} else _CONV_WORKSPACE_SHARE_FP32


def slack_bytes(device: Device, changing_bytes: int) -> int:
    """What the caching allocator reserves beyond live tensors, when this many bytes come and go."""
    return 0 if device.kind == "cpu" else round(changing_bytes * _FRAGMENTATION_SHARE) + _OPEN_SEGMENT_BYTES


def margin_bytes(device: Device, process_bytes: int) -> int:
    """Error bar of a prediction that nothing has calibrated yet."""
    return round(process_bytes * _MARGIN_SHARE) + (0 if device.kind == "cpu" else _MARGIN_BYTES)
