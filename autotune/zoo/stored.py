"""In which precision the weights of a folder are stored, as the headers of its safetensors files say it.

Only the beginning of one file of a component is read, and of that only the names of types: the header may come from anyone.
Torch's own format is a program and is not opened.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from autotune.records.halves import DtypeName
from autotune.zoo import untrusted

__all__ = ["stored_dtype"]

# The names of the first tensors; a whole header has some hundred kB.
_READ_BYTES = 16 * 1024
_NAMES: dict[bytes, DtypeName] = {b"F32": "float32", b"F16": "float16", b"BF16": "bfloat16"}
# The file itself or a shard of it; a variant such as "fp16" stands before the number of the shard, in older files after it.
_FILE = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.safetensors")


def stored_dtype(folder: Path, component: str) -> DtypeName | None:
    """The precision of most of the first tensors; None where there is no such file, or one in other precisions only.

    Where a component has files in several precisions, those without a variant in their name count, as for `from_pretrained`.

    Raises:
        PipelineError: a file that is a link to a place outside the folder.
    """
    file = _first_file(folder / component)
    if file is None:
        return None
    with untrusted.inside(folder, f"{component}/{file}").open("rb") as opened:
        beginning = opened.read(_READ_BYTES)
    found = Counter(name for name in re.findall(rb'"dtype"\s*:\s*"(\w{1,8})"', beginning) if name in _NAMES)
    return _NAMES[found.most_common(1)[0][0]] if found else None


def _first_file(folder: Path) -> str | None:
    found = [_FILE.fullmatch(file.name) for file in folder.iterdir()] if folder.is_dir() else []
    ranked = [(one[1] or one[2] or "", one[0]) for one in found if one is not None]  # "" sorts first
    return min(ranked)[1] if ranked else None
