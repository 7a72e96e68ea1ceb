"""What single versions of torch and its libraries do otherwise, as a table. Says so in an estimate's notes.

No published figure pins a constant for any of these, so nothing is added to the bytes: a note says that they may be wrong.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from autotune.records.device import Device
from autotune.records.trace import DTYPES, OpClass, Trace

__all__ = ["QUIRKS", "Quirk", "quirks_met"]


class Quirk(NamedTuple):
    """A range of versions, both ends included, and what it does to which kernels."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    op_class: OpClass
    dtypes: tuple[str, ...]
    note: str
    source: str


QUIRKS = (
    Quirk(
        (2, 9, 0),
        (2, 9, 1),
        OpClass.CONV_3D,
        ("float16", "bfloat16"),
        "torch 2.9 may run half-precision 3-D convolutions without cuDNN: video VAEs then take 3 times the memory and more; "
        "2.8 and 2.10 do not",
        "pytorch issues 166643 (2.5 against 7.3 GB) and 177406 (Qwen-Image's VAE, 6.3 against 12.7 GB)",
    ),
)
"""The known ones."""


def quirks_met(trace: Trace, device: Device, torch_version: str | None) -> tuple[str, ...]:
    """Notes on what the installed version does to kernels of this trace; none where no version is known.

    Args:
        trace: what runs.
        device: a card; the CPU has no cuDNN.
        torch_version: for example "2.13.0+cu130".
    """
    numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", torch_version or "")
    if numbers is None or device.kind == "cpu":
        return ()
    version = tuple(int(number) for number in numbers.groups())
    return tuple(quirk.note for quirk in QUIRKS if quirk.first <= version <= quirk.last and _runs(quirk, trace))


def _runs(quirk: Quirk, trace: Trace) -> bool:
    codes = [DTYPES.index(name) for name in quirk.dtypes]
    return any(
        bool(((segment.op_class == quirk.op_class) & np.isin(segment.op_dtype, codes)).any())
        for segment in trace.segments
    )
