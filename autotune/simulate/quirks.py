"""What single versions of torch do otherwise, as a table: in bytes, and in a sentence for an estimate's notes.

What it does not know: the seconds that such kernels take, for which nobody has published a figure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autotune.records.device import Device
from autotune.records.trace import DTYPES, OpClass, Segment, Trace
from autotune.units import size

__all__ = ["QUIRKS", "Quirk", "columns_bytes", "notes_on", "quirks_of"]

_HALF_BYTES = 2


class Quirk(NamedTuple):
    """A range of versions, both ends included, in which these kernels write out columns (`vol2col`) for a matrix product."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    op_class: OpClass
    dtypes: tuple[str, ...]
    """Of two bytes a value."""
    note: str
    source: str

    def touches(self, segment: Segment) -> NDArray[np.bool_]:
        """Which rows of the segment's table of kernels; kernels of size 1 stay with cuDNN. Shape `(ops,)`."""
        codes = [DTYPES.index(name) for name in self.dtypes]
        spread = segment.op_conv_bytes.any(axis=1)
        touched: NDArray[np.bool_] = (segment.op_class == self.op_class) & np.isin(segment.op_dtype, codes) & spread
        return touched


QUIRKS = (
    Quirk(
        (2, 9, 0),
        (2, 9, 1),
        OpClass.CONV_3D,
        ("float16", "bfloat16"),
        "half-precision 3-D convolutions run without cuDNN and write out columns of up to {columns}, which 2.8 and 2.10 do "
        "not; they also take longer than is estimated",
        # `use_cudnn` (aten/src/ATen/native/Convolution.cpp) is False there, `SlowDilated3d` is what is left on a card, and
        # slow_conv_dilated_all_cuda_template (cuda/NaiveDilatedConvolution.cu) has a column of in_channels x kernel values for
        # each position of the output, one sample at a time. Qwen-Image's VAE is published with 6.3 GB under 2.8 and 12.7 under
        # 2.9.1, the size not stated; at 1200x1200 pixels it is predicted to take 6.34 and 12.70. Of 166643 (2.5 and 7.3 GB)
        # the shapes are not at hand.
        "pytorch issues 166643 and 177406",
    ),
)
"""The known ones."""


def quirks_of(device: Device, torch_version: str | None) -> tuple[Quirk, ...]:
    """Those of the installed version; none where no version is known, and none on the CPU, which has no cuDNN.

    >>> from autotune.probe.catalog import card
    >>> [quirk.first for quirk in quirks_of(card("NVIDIA GeForce RTX 3060 12GB"), "2.9.1+cu128")]
    [(2, 9, 0)]
    """
    numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", torch_version or "")
    if numbers is None or device.kind == "cpu":
        return ()
    version = tuple(int(number or 0) for number in numbers.groups())
    return tuple(quirk for quirk in QUIRKS if quirk.first <= version <= quirk.last)


def columns_bytes(segment: Segment, rows: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """What these convolutions write out. Shape `(rows,)`.

    The table holds FLOPs, 2 x output x channels x kernel, and the bytes of output and weight, from which the number of output
    channels follows. Samples of a batch have their columns one after the other and are counted together.
    """
    products = segment.op_flops[rows] / 2
    output_bytes, weight_bytes = segment.op_conv_bytes[rows, 1:].astype(np.float64).T
    columns: NDArray[np.int64] = np.rint(products**2 * _HALF_BYTES**3 / (output_bytes * weight_bytes)).astype(np.int64)
    return columns


def notes_on(trace: Trace, quirks: Sequence[Quirk], torch_version: str | None) -> tuple[str, ...]:
    """What the version does to kernels of this trace."""
    notes = []
    for quirk in quirks:
        touched = [(segment, np.flatnonzero(quirk.touches(segment))) for segment in trace.segments]
        most = max((int(columns_bytes(segment, rows).max()) for segment, rows in touched if len(rows)), default=0)
        if most:
            notes.append(f"torch {torch_version}: {quirk.note.format(columns=size(most))} ({quirk.source})")
    return tuple(notes)
