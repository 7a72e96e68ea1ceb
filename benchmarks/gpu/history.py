"""What torch's allocator does from an empty card through one call, written down and run through ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from autotune.records.plan import Plan
from autotune.simulate.snapshot import compare
from autotune.simulate.snapshot_file import load_snapshot
from benchmarks.gpu.calls import Calls
from benchmarks.gpu.card import Card
from benchmarks.gpu.results import Found

__all__ = ["history", "replay"]

_DROPPED = {"frames", "history", "forward_frames", "user_metadata", "compile_context", "external_annotations"}


def history(card: Card, calls: Calls, path: Path, found: Found) -> None:
    """One call of a pipeline while the allocator writes down what it does, and that replayed. On the CPU only the call."""
    found["model"] = calls.name
    card.settle()
    if not card.is_cuda:
        calls.once(Plan())
        return
    torch.cuda.memory._record_memory_history("all", context=None)
    try:
        calls.once(Plan())
        snapshot = torch.cuda.memory._snapshot()
    finally:
        torch.cuda.memory._record_memory_history(None)
    path.write_text(json.dumps(_plain(snapshot)) + "\n", encoding="utf-8")
    replay(path, card.torch_device.index, found)


def replay(path: Path, device: int | None, found: Found) -> None:
    """The snapshot in a file beside its replay."""
    found["file"] = path.name
    compared = compare(load_snapshot(path), device=device)
    found |= {"reserved_is_exact": compared.first_difference is None, **compared.model_dump(mode="json")}


def _plain(value: Any) -> Any:
    """Numbers, words and containers, without where in the code it was."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items() if key not in _DROPPED}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
