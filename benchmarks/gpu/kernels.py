"""What single kernels hold while they run: convolutions and attentions of real models, layer by layer."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch.nn.attention import SDPBackend

from autotune.records.trace import Attention
from autotune.simulate.attention import kernel_of, temporary_bytes
from autotune.simulate.workspace import conv_workspace_bytes
from benchmarks.gpu.card import Card
from benchmarks.gpu.probes import DTYPES
from benchmarks.gpu.results import Found, attempt

__all__ = ["LAYOUTS", "attentions", "convolutions"]

LAYOUTS = ("NCHW", "NHWC")
_SMALLER = (
    16  # on the CPU there is nothing to count: all sizes are divided by this, so that the code is tried in a moment
)


class _Convolution(NamedTuple):
    where: str
    batch: int
    channels_in: int
    channels_out: int
    sizes: tuple[int, ...]
    """Height and width, of a video frames before them."""
    kernel: int = 3


_CONVOLUTIONS = (
    _Convolution("SD 1.5 UNet at 512", 2, 4, 320, (64, 64)),
    _Convolution("SD 1.5 UNet at 512", 2, 320, 320, (64, 64)),
    _Convolution("SD 1.5 UNet at 512", 2, 960, 320, (64, 64)),
    _Convolution("SD 1.5 UNet at 512", 2, 960, 320, (64, 64), 1),
    _Convolution("SD 1.5 UNet at 512", 2, 640, 640, (32, 32)),
    _Convolution("SD 1.5 UNet at 512", 2, 1280, 1280, (16, 16)),
    _Convolution("SD 1.5 UNet at 512", 2, 2560, 1280, (8, 8)),
    _Convolution("SDXL UNet at 1024", 2, 320, 320, (128, 128)),
    _Convolution("SDXL UNet at 1024", 2, 1920, 640, (64, 64)),
    _Convolution("SDXL UNet at 1024", 2, 2560, 1280, (32, 32)),
    _Convolution("VAE at 512", 1, 4, 512, (64, 64)),
    _Convolution("VAE at 512", 1, 512, 512, (64, 64)),
    _Convolution("VAE at 512", 1, 512, 512, (256, 256)),
    _Convolution("VAE at 512", 1, 512, 256, (256, 256)),
    _Convolution("VAE at 512", 1, 512, 256, (256, 256), 1),
    _Convolution("VAE at 512", 1, 256, 256, (512, 512)),
    _Convolution("VAE at 512", 1, 256, 128, (512, 512)),
    _Convolution("VAE at 512", 1, 128, 128, (512, 512)),
    _Convolution("VAE at 512", 1, 128, 3, (512, 512)),
    _Convolution("VAE at 1024", 1, 512, 512, (512, 512)),
    _Convolution("VAE at 1024", 1, 256, 256, (1024, 1024)),
    _Convolution("VAE at 1024", 1, 256, 128, (1024, 1024)),
    _Convolution("VAE at 1024", 1, 256, 128, (1024, 1024), 1),
    _Convolution("VAE at 1024", 1, 128, 128, (1024, 1024)),
    _Convolution("VAE at 1024", 1, 128, 3, (1024, 1024)),
    _Convolution("VAE at 1024, batch 4", 4, 512, 512, (512, 512)),
    _Convolution("VAE at 1024, batch 4", 4, 256, 256, (1024, 1024)),
    _Convolution("Wan VAE at 480x832", 1, 384, 384, (1, 60, 104)),
    _Convolution("Wan VAE at 480x832", 1, 384, 384, (2, 120, 208)),
    _Convolution("Wan VAE at 480x832", 1, 192, 192, (4, 240, 416)),
    _Convolution("Wan VAE at 480x832", 1, 96, 96, (4, 480, 832)),
    _Convolution("Wan VAE at 480x832", 1, 96, 3, (4, 480, 832)),
    _Convolution("CogVideoX VAE at 480x720", 1, 256, 256, (8, 240, 360)),
)


class _Case(NamedTuple):
    where: str
    batch: int
    heads: int
    query_length: int
    key_length: int
    head_dim: int
    masked: bool = False


_ATTENTIONS = (
    _Case("SD 1.5 UNet at 512, itself", 2, 8, 4096, 4096, 40),
    _Case("SD 1.5 UNet at 512, text", 2, 8, 4096, 77, 40),
    _Case("SD 1.5 UNet at 512, itself", 2, 8, 64, 64, 160),
    _Case("SDXL UNet at 1024, itself", 2, 10, 4096, 4096, 64),
    _Case("SDXL UNet at 1024, text", 2, 20, 1024, 77, 64),
    _Case("VAE at 512", 1, 1, 4096, 4096, 512),
    _Case("VAE at 1024", 1, 1, 16384, 16384, 512),
    _Case("FLUX at 1024", 1, 24, 4608, 4608, 128),
    _Case("PixArt at 1024, text", 2, 16, 4096, 300, 72, masked=True),
    _Case("mask in whole sixteens", 2, 16, 4096, 304, 72, masked=True),
    _Case("no whole eights a head", 1, 4, 1024, 1024, 20),
    _Case("Wan at 480x832", 1, 12, 32760, 32760, 128),
)


def convolutions(card: Card, dtype: str, layout: str, found: Found) -> None:
    """Every convolution of the grid in that type and layout."""
    found |= {"dtype": dtype, "layout": layout, "rows": []}
    for one in _CONVOLUTIONS:
        row: Found = {**one._asdict()}
        found["rows"].append(row)
        attempt(row, partial(_convolve, card, one, dtype, layout))
        card.empty()


def _convolve(card: Card, one: _Convolution, dtype: str, layout: str, row: Found) -> None:
    channels_in, channels_out, *sizes = (
        _scaled(card, edge) for edge in (one.channels_in, one.channels_out, *one.sizes)
    )
    flat = len(sizes) == 2
    order = torch.contiguous_format if layout == "NCHW" else torch.channels_last if flat else torch.channels_last_3d
    image = _made(card, (one.batch, channels_in, *sizes), dtype).contiguous(memory_format=order)
    weight = _made(card, (channels_out, channels_in, *(one.kernel,) * len(sizes)), dtype)
    weight = weight.contiguous(memory_format=order)
    convolve = F.conv2d if flat else F.conv3d

    def run() -> torch.Tensor:
        return convolve(image, weight, padding=one.kernel // 2)

    out_bytes = run().nbytes
    bytes_of = (image.nbytes, out_bytes, weight.nbytes)
    copied = layout == "NCHW" and one.kernel > 1
    row |= dict(zip(("input_bytes", "output_bytes", "weight_bytes"), bytes_of, strict=True))
    foreseen = conv_workspace_bytes(card.device, dtype, np.array([bytes_of]))
    row["predicted_bytes"] = int(foreseen[0]) if copied else 0
    row["measured_bytes"] = card.held_bytes(run)


def attentions(card: Card, dtype: str, found: Found) -> None:
    """Every attention of the grid in that type."""
    found |= {"dtype": dtype, "rows": []}
    for one in _ATTENTIONS:
        row: Found = {**one._asdict()}
        found["rows"].append(row)
        attempt(row, partial(_attend, card, one, dtype))
        card.empty()


def _attend(card: Card, one: _Case, dtype: str, row: Found) -> None:
    queries, keys = _scaled(card, one.query_length), _scaled(card, one.key_length)
    query, key, value = (
        _made(card, (one.batch, length, one.heads, one.head_dim), dtype).transpose(1, 2)
        for length in (queries, keys, keys)
    )
    mask = _made(card, (one.batch, 1, 1, keys), dtype).expand(-1, one.heads, queries, -1) if one.masked else None
    fact = Attention(
        batch=one.batch, heads=one.heads, query_length=queries, key_length=keys, head_dim=one.head_dim,
        value_dim=one.head_dim, masked=one.masked, dtype=dtype,
    )  # fmt: skip
    kernel = kernel_of(fact, card.device)
    row |= {"predicted_kernel": kernel, "predicted_bytes": temporary_bytes(fact, kernel)}
    row["kernel"] = SDPBackend(torch._fused_sdp_choice(query, key, value, mask)).name

    def run() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    run()
    row["measured_bytes"] = card.held_bytes(run)


def _scaled(card: Card, edge: int) -> int:
    return edge if card.is_cuda else max(edge // _SMALLER, 1)


def _made(card: Card, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    return torch.full(shape, 0.01, dtype=DTYPES[dtype], device=card.torch_device)
