"""Reads JSON configuration that may come from anyone: what it refuses never reaches a constructor.

Refused: links out of the folder, files and numbers far beyond any published configuration (they would keep the builder
busy for hours), and entries that ask for code or kernels from outside the installed libraries. Not judged here: whether
a configuration makes sense; the class it is for says so when it is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autotune.errors import PipelineError

__all__ = ["inside", "load"]

# The largest configurations published are tokenizers' (some hundred kB; vocabularies are not read here), the deepest
# have six levels, the longest list has a scheduler's 1000 betas.
_MAX_FILE_BYTES = 4 * 10**6
_MAX_DEPTH = 32
_MAX_LIST = 4096
# Counts that a constructor turns into as many modules or table rows; published models stay under a tenth of these.
_MAX_COUNTS = {"layers": 1000, "blocks": 1000, "depth": 1000, "experts": 5000, "timesteps": 10**5}

_CODE_KEYS = {"auto_map", "trust_remote_code", "custom_pipeline", "custom_pipelines", "_module", "kernel_config"}
# transformers fetches a kernel from the hub if one of these names a repository ("owner/kernel").
_KERNEL_KEYS = {"attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"}


def load(folder: Path, relative: str, *, unbounded: bool = False) -> dict[str, Any]:
    """The JSON object in that file of the folder, checked.

    Args:
        folder: the folder.
        relative: the file in it.
        unbounded: whether its numbers may be NaN and Infinity, which JSON has no words for; `save_config` of a diffusers
            scheduler writes them for bounds that are switched off.

    Raises:
        PipelineError: no JSON object, or one that is refused; the message names the file and the entry.
    """
    file = inside(folder, relative)
    found_bytes = file.stat().st_size
    if found_bytes > _MAX_FILE_BYTES:
        raise PipelineError(f"{relative} has {found_bytes} bytes; configurations of up to {_MAX_FILE_BYTES} are read")
    try:
        content = json.loads(file.read_bytes(), parse_constant=float if unbounded else _refuse_constant)
    except RecursionError as error:
        raise PipelineError(_too_deep(relative)) from error
    except ValueError as error:
        raise PipelineError(f"{relative} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{relative} holds a JSON {type(content).__name__}; a configuration is an object")
    for key, value, depth in _walk(content, "", 0):
        _check(relative, key, value, depth)
    return content


def inside(folder: Path, relative: str) -> Path:
    """The real file, which must lie in the folder; a snapshot in the hub's cache may link to that cache's blobs.

    Raises:
        PipelineError: a link to somewhere else.
    """
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":  # <cache>/models--owner--name/snapshots/<commit>
        allowed += [root.parents[1] / "blobs", root.parents[2] / "blobs"]
    file = (root / relative).resolve()
    if not any(file.is_relative_to(place) for place in allowed):
        raise PipelineError(f"{relative} is a link to a place outside the folder; put the file itself there")
    return file


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _too_deep(relative: str) -> str:
    return f"{relative} is nested more than {_MAX_DEPTH} deep; no configuration is"


def _walk(value: object, key: str, depth: int) -> Iterator[tuple[str, object, int]]:
    """Every value with the key it stands under (a list's key for its items) and its depth."""
    yield key, value, depth
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(item, name, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item, key, depth + 1)


def _check(relative: str, key: str, value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise PipelineError(_too_deep(relative))
    if key in _CODE_KEYS or (key in _KERNEL_KEYS and isinstance(value, str) and "/" in value):
        raise PipelineError(
            f"{relative}: '{key}' asks for code from outside the installed libraries, which is never run; "
            f"remove the entry if the model works without it"
        )
    if key == "quantization_config" and value is not None:
        raise PipelineError(
            f"{relative}: 'quantization_config' says that the weights are quantised, and then their sizes are not in "
            f"this file; give the folder of the model before quantisation"
        )
    if isinstance(value, list) and len(value) > _MAX_LIST:
        raise PipelineError(f"{relative}: '{key}' lists {len(value)} values; up to {_MAX_LIST} are read")
    limit = next((limit for word, limit in _MAX_COUNTS.items() if word in key), None)
    if limit is not None and isinstance(value, int | float) and value > limit:
        raise PipelineError(f"{relative}: '{key}' is {value}; up to {limit} is built")
