"""How large a picture the call really makes: as large as its VAE decodes it, before anything brings it to another size.

Pipelines round what they are asked for: to multiples of the latents' grain, to a resolution they were trained at (Sana, which
resizes its picture back afterwards), to frames that the VAE can compress.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["Size", "computed_size", "picture_in"]

Size = tuple[int, int, int | None]
_CHANNELS = {1, 3, 4}  # grey, RGB, RGB with transparency: latents and embeddings of models without a VAE have others
_COLOURS = {3, 4}


def picture_in(output: Any) -> tuple[int, ...]:
    """Shape of what a VAE has decoded: `(batch, channels, height, width)`, with frames before or after the channels if any."""
    sample = output if isinstance(output, torch.Tensor) else output[0]
    return tuple(sample.shape)


def computed_size(output: Any, decoded: Sequence[tuple[int, ...]], *, has_vae: bool) -> Size | None:
    """Height and width in pixels and frames of the largest picture; None for latents, embeddings and sound.

    Args:
        output: what the pipeline returned.
        decoded: shapes of what its VAEs decoded.
        has_vae: whether it has any; a model of pixels returns its picture as the denoiser made it.

    >>> picture = torch.zeros(1, 3, 1024, 1024)
    >>> computed_size((torch.zeros(1, 3, 512, 512),), [tuple(picture.shape)], has_vae=True)
    (1024, 1024, None)
    """
    returned = _returned(output)
    pictures = [shape for shape in decoded if len(shape) in {4, 5} and _COLOURS & {*shape[1:-2]}]
    if not has_vae and len(returned) in {4, 5} and returned[-3] in _CHANNELS:
        pictures = [returned]
    if not pictures or hasattr(output, "audios"):
        return None
    largest = max(pictures, key=lambda shape: shape[-2] * shape[-1])
    return largest[-2], largest[-1], returned[1] if len(returned) == 5 else None


def _returned(output: Any) -> tuple[int, ...]:
    """Shape of the images `(batch, channels, height, width)` or videos `(batch, frames, channels, height, width)`."""
    first = output[0] if isinstance(output, list | tuple | dict) and len(output) else None
    if isinstance(first, list) and first and isinstance(first[0], torch.Tensor):
        return (len(first), *first[0].shape)
    return tuple(getattr(first, "shape", ()))
