"""The files that a pipeline's weights were loaded from, so that originals need not wait in RAM.

A tensor counts as there only if the file holds it bit for bit under the same name: a LoRA that was fused, an embedding that
grew or weights that were trained are not. It knows safetensors files in local folders and in the hub's cache, and downloads
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from autotune.upstream import port

__all__ = ["Files", "files_of"]


class Files:
    """Where each tensor of some networks stands on disk.

    Args:
        folders: the folder of each network.
    """

    def __init__(self, folders: dict[torch.nn.Module, Path]) -> None:
        self._where = {part: dict(_keys(folder)) for part, folder in folders.items()}

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where they are."""
        return tuple(dict.fromkeys(Path(file).parent for where in self._where.values() for file in where.values()))

    def name(self, part: torch.nn.Module, path: str) -> bool:
        """Whether some file has a tensor of that name."""
        return path in self._where.get(part, {})

    def hold(self, part: torch.nn.Module, path: str, tensor: torch.Tensor) -> bool:
        """Whether a file holds this very tensor, bit for bit."""
        if not self.name(part, path):
            return False
        stored = self.read(part, path)
        here = tensor.detach().cpu()
        return stored.dtype is here.dtype and stored.stride() == here.stride() and torch.equal(stored, here)

    def read(self, part: torch.nn.Module, path: str) -> torch.Tensor:
        """The tensor as the file has it."""
        from safetensors import safe_open

        with safe_open(self._where[part][path], framework="pt") as file:
            stored: torch.Tensor = file.get_tensor(path)
        return stored


def files_of(pipe: Any) -> Files | None:
    """The files of the pipeline's networks; None where some network's are not here.

    >>> files_of(demo_pipeline()) is None
    True
    """
    folders = {part: _folder(pipe, name, part) for name, part in port.networks(pipe).items()}
    found = {part: folder for part, folder in folders.items() if folder is not None}
    return Files(found) if folders and len(found) == len(folders) else None


def _folder(pipe: Any, name: str, part: Any) -> Path | None:
    """Where the network was loaded from: a folder of its own, or the one of its name beside the others."""
    own = str(getattr(getattr(part, "config", None), "_name_or_path", "") or "")
    whole = str(getattr(pipe, "name_or_path", "") or "")
    for folder in (Path(own), Path(whole) / name, _cached(whole, name)):
        if folder is not None and str(folder) != "." and any(folder.glob("*.safetensors")):
            return folder
    return None


def _cached(hub_id: str, name: str) -> Path | None:
    """The network's folder in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(hub_id, "model_index.json")
    except HFValidationError:  # a local path
        return None
    return Path(index).parent / name if isinstance(index, str) else None


def _keys(folder: Path) -> Iterator[tuple[str, str]]:
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                yield from ((key, str(path)) for key in file.keys())  # noqa: SIM118 - not a mapping
        except (SafetensorError, OSError):  # half a download: as if it were not there
            continue
