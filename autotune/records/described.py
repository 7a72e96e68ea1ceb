"""Pictures, videos and tensors of a call by their shape alone, as people and profiles write them."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from autotune.errors import WorkloadError
from autotune.records.base import Record

__all__ = ["MAX_EDGE_PX", "MAX_PICTURE_PX", "Described", "picture"]

MAX_EDGE_PX = 65_535  # the longest edge that a JPEG file can state
MAX_PICTURE_PX = 2 * 89_478_485  # Pillow opens no larger picture (twice Image.MAX_IMAGE_PIXELS)
_MAX_FRAMES = 100_000  # an hour at 24 frames a second has 86 400
_MAX_ELEMENTS = 2**30  # of a tensor that is made up; the largest published latents have a thousandth

_TIMES = r"\s*[xX*\u00d7]\s*"
_PICTURE = re.compile(rf"(\d{{1,9}}){_TIMES}(\d{{1,9}})(?:{_TIMES}(\d{{1,9}}))?(?:\s+([A-Za-z][A-Za-z;0-9]{{0,5}}))?")
_TENSOR = re.compile(r"((?:\d{1,12}x)*\d{1,12}) ((?:torch\.)?[a-z]+[0-9]+[a-z0-9_]*|torch\.bool|bool)")
_SEVERAL = re.compile(r"(\d{1,6}) x (\S.*)")
_MODES = ("RGB", "L", "RGBA", "1", "P", "I", "F", "CMYK", "YCbCr", "LAB", "HSV", "LA", "I;16")  # of Pillow


class Described(Record):
    """Something in a call, by its shape.

    >>> Described.read("2 x 512x768 RGB")
    Described(count=(2,), shape=(512, 768), kind='RGB')
    >>> str(Described.read("1x4x64x64 torch.float16"))
    '1x4x64x64 torch.float16'
    """

    count: tuple[int, ...] = ()
    """Lengths of the lists it lies in, the outermost first."""
    shape: tuple[int, ...]
    """Width and height of a picture in pixels; the axes of a tensor."""
    kind: str
    """Pillow's mode of a picture, or the dtype of a tensor."""

    @classmethod
    def read(cls, text: str) -> Described | None:
        """What the text describes; None for the name of a type, of which nobody knows the shape."""
        count: list[int] = []
        while (several := _SEVERAL.fullmatch(text)) is not None:
            count.append(int(several[1]))
            text = several[2]
        if (tensor := _TENSOR.fullmatch(text)) is not None:
            return cls(count=tuple(count), shape=tuple(map(int, tensor[1].split("x"))), kind=tensor[2])
        if (flat := _PICTURE.fullmatch(text)) is not None and (flat[4] or "RGB") in _MODES and flat[3] is None:
            return cls(count=tuple(count), shape=(int(flat[1]), int(flat[2])), kind=flat[4] or "RGB")
        return None

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture, or a list of them."""
        return self.kind in _MODES

    @property
    def words(self) -> str:
        """For people: `2 of 512x768`, without the mode or dtype."""
        shape = "x".join(map(str, self.shape))
        return f"{prod(self.count)} of {shape}" if self.is_picture else shape

    @property
    def is_too_large(self) -> bool:
        """Whether nothing of this size is made up."""
        if self.is_picture:
            return max(self.shape) > MAX_EDGE_PX or prod(self.shape) > MAX_PICTURE_PX or prod(self.count) > _MAX_FRAMES
        return prod(self.shape) * prod(self.count) > _MAX_ELEMENTS

    def __str__(self) -> str:
        return " x ".join([*map(str, self.count), f"{'x'.join(map(str, self.shape))} {self.kind}"])


def picture(name: str, said: Any, *, mode: str = "RGB") -> str:
    """The description of a picture, a video or several pictures that are given by their sizes, width first.

    Raises:
        WorkloadError: no size, or one that no picture has.

    >>> picture("image", "1024x768"), picture("video", "832x480x81"), picture("mask", "512x512", mode="L")
    ('1024x768 RGB', '81 x 832x480 RGB', '512x512 L')
    >>> picture("image", ["512x512", "512x512"])
    '2 x 512x512 RGB'
    """
    if isinstance(said, list | tuple) and said:
        each = [picture(name, one, mode=mode) for one in said]
        if len(set(each)) > 1:
            raise WorkloadError(
                f"{name}={list(said)!r} are pictures of several sizes; give one size, the largest, as often as there are "
                "pictures, or pass the pictures themselves"
            )
        return f"{len(each)} x {each[0]}"
    flat = _PICTURE.fullmatch(said.strip()) if isinstance(said, str) else None
    if flat is None or (flat[4] or mode) not in _MODES:
        wanted = "832x480x81 (width, height, frames)" if name == "video" else "1024x1024 (width, height)"
        raise WorkloadError(f"{name}={said!r} is not a size in pixels; write for example {wanted}")
    width, height, frames = int(flat[1]), int(flat[2]), flat[3]
    made = Described(count=() if frames is None else (int(frames),), shape=(width, height), kind=flat[4] or mode)
    if min(*made.shape, *made.count) < 1:
        raise WorkloadError(f"{name}={said!r} has an edge of 0 pixels; write for example 1024x1024")
    if made.is_too_large:
        raise WorkloadError(
            f"{name}={said!r} is too large: an edge may have {MAX_EDGE_PX} pixels, a picture {MAX_PICTURE_PX}, a video "
            f"{_MAX_FRAMES} frames"
        )
    return str(made)
