"""What a device sustains: from the catalogue by architecture, or measured on the card itself."""

from __future__ import annotations

from typing import Literal

from autotune.records.base import Record

__all__ = ["Speed"]


class Speed(Record):
    """Rates that kernels and copies reach, and what each costs beside its work. Not peaks: those are in `Device`."""

    products_flops_per_s: dict[str, float]
    """Matrix products by how they are computed: "float32", "tf32", "float16", "bfloat16", "float8", "int8", "int4"; int8 in
    code that is not compiled is "eager_int8"."""
    convolutions_flops_per_s: dict[str, float]
    """Convolutions in channels-last order, by the same names."""
    attention_flops_per_s: dict[str, float]
    """Fused attention by its kernel: "flash", "efficient", "math", "cpu"; in fp32 "efficient_float32", "xformers_float32"."""
    pointwise_bytes_per_s: float
    """Bytes read and written by pointwise kernels."""
    norm_bytes_per_s: float
    """The same for normalisation, softmax and other reductions."""
    copy_bytes_per_s: float
    """The same for copies, concatenations and changes of layout."""
    kernel_s: float
    """What each kernel takes beside its work: its start and its end."""
    product_s: float
    """What each matrix product or attention takes beside that: a small one does not fill the card."""
    convolution_s: float
    """The same for a convolution; on a CPU it looks for its way anew each time."""
    host_s: float
    """Python, dispatch and launch of one operator."""
    hook_s: float
    """One offloading hook around one module."""
    pinned_bytes_per_s: float
    """From pinned memory to the device."""
    pageable_bytes_per_s: float
    """From pageable memory to the device."""
    back_bytes_per_s: float
    """From the device to pageable memory that is new: tensors beyond 32 MiB, whose pages the system has to clear each time."""
    tensor_s: float
    """Moving one tensor, beside its bytes."""
    reused_bytes_per_s: float
    """The same for smaller tensors, which the allocator of the host puts where others were."""
    release_s: float = 6e-4
    """Emptying the allocator's cache, as accelerate does with each tensor that sequential offload brings: cudaFree waits for
    the card, and the next tensor takes cudaMalloc. From SD 1.4 and SDXL on a GTX 1070 and a P100."""
    pictures_bytes_per_s: float = 1.4e9
    """The pipeline's own code after decoding makes pictures on one core: numpy, PIL."""
    source: Literal["catalogue", "calibrated"] = "catalogue"
    """Whether these are constants of the architecture or measured."""
