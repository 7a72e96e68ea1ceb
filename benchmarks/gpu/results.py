"""The file of a run: written anew after every part, so that whatever ends the run leaves what was found until then."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.card import Card

__all__ = ["Found", "Part", "Results", "attempt", "environment", "error_pct"]

Found = dict[str, Any]
"""What is found, ready for JSON. It is filled as it is found: what was there before an error is kept."""

_PACKAGES = ("diffusers", "transformers", "accelerate", "nvidia-ml-py", "xformers")
_VARIABLES = (
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "CUDA_MODULE_LOADING",
    "CUDA_VISIBLE_DEVICES",
)


class Part(NamedTuple):
    """One thing to find out."""

    name: str
    find: Callable[[Found], None]
    """Fills in what it finds."""


class Results:
    """What was found so far, and what is left; on disk as `results.json`.

    Raises:
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, *, about: Found, parts: Iterable[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.content: Found = {"complete": False, **about, "parts": [], "cut": list(parts)}
        self._path = folder / "results.json"
        self._write()

    @property
    def parts(self) -> list[Found]:
        """The parts that have run, in their order."""
        found: list[Found] = self.content["parts"]
        return found

    @property
    def cut(self) -> list[str]:
        """The parts that have not."""
        names: list[str] = self.content["cut"]
        return names

    def add(self, part: Part) -> Found:
        """Runs a part and writes down what it found, or how far it came."""
        start_s = time.perf_counter()
        found: Found = {"name": part.name}
        attempt(found, part.find)
        found["part_s"] = round(time.perf_counter() - start_s, 2)
        self.parts.append(found)
        self.cut.remove(part.name)
        self.content["complete"] = not self.cut
        self._write()
        return found

    def _write(self) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(self.content, indent=1, default=str) + "\n", encoding="utf-8")
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)


def attempt(found: Found, find: Callable[[Found], None]) -> None:
    """Lets `find` fill in what it finds; an error is a finding too."""
    try:
        find(found)
    except Exception as error:
        words = str(error).strip().splitlines() or [""]
        found["error"] = {"kind": type(error).__name__, "message": words[0]}


def error_pct(predicted: float | None, measured: float | None) -> float | None:
    """Predicted over measured, minus one; None where there is nothing to divide by."""
    return 100.0 * (predicted / measured - 1) if predicted is not None and measured else None


def environment(card: Card) -> Found:
    """All that constants may depend on."""
    return {
        "device": card.device.model_dump(mode="json"),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if card.is_cuda else None,  # type: ignore[no-untyped-call]
        "driver": card.device.driver,
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
        "allocator_settings": card.allocator_settings(),
        "variables": {name: os.environ.get(name) for name in _VARIABLES},
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
