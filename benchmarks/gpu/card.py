"""The card's counters: what torch's allocator says, and what the driver says of the process. None of them on the CPU."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from autotune.probe.gpu import local_device
from autotune.probe.nvml import bare_uuid, look

__all__ = ["Card", "Outside", "Peaks"]


class Peaks(NamedTuple):
    """What torch's allocator held at the most since the last reset; None on the CPU."""

    allocated_bytes: int | None
    reserved_bytes: int | None


class Outside(NamedTuple):
    """What the process holds of the card beside the allocator's segments: the context, kernels, libraries."""

    outside_bytes: int | None
    source: str
    """Who says so; what else is counted where it is not the driver's figure for this process."""


class Card:
    """A device and its counters. Make it before anything touches CUDA: the context is seen by what was free before.

    Raises:
        NoAcceleratorError: the device is not here.
    """

    def __init__(self, torch_device: str | None) -> None:
        self._free_before = _free_bytes()
        self.device = local_device(torch_device)
        self.is_cuda = self.device.kind == "cuda"
        self.torch_device = torch.device(self.device.torch_device)
        self.bare = self.outside()
        """When nothing but the context was there."""

    def allocated_bytes(self) -> int | None:
        """Bytes of live blocks."""
        return torch.cuda.memory_allocated(self.torch_device) if self.is_cuda else None

    def peaks(self) -> Peaks:
        """Since `reset_peaks`."""
        if not self.is_cuda:
            return Peaks(None, None)
        allocated_bytes = torch.cuda.max_memory_allocated(self.torch_device)
        return Peaks(allocated_bytes, torch.cuda.max_memory_reserved(self.torch_device))

    def reset_peaks(self) -> None:
        """Peaks count from here."""
        self.synchronize()
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats(self.torch_device)

    def synchronize(self) -> None:
        """Waits until all kernels have run. The first time, it makes the context."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch_device)

    def mark(self) -> Any:
        """A moment in what the card is given to do, without waiting for it; on the CPU, now."""
        if not self.is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.torch_device))
        return event

    def between_s(self, earlier: Any, later: Any) -> float:
        """Seconds between two marks that the card has reached."""
        return float(earlier.elapsed_time(later)) / 1e3 if self.is_cuda else float(later - earlier)

    def settle(self) -> None:
        """Gives back whatever nobody uses, garbage included."""
        gc.collect()
        self.empty()

    def empty(self) -> None:
        """Gives back cuBLAS's workspaces, cached segments and cached pinned memory."""
        if self.is_cuda:
            self.synchronize()
            for name in ("_cuda_clearCublasWorkspaces", "_host_emptyCache"):  # not in every version
                getattr(torch._C, name, lambda: None)()
            torch.cuda.empty_cache()

    def outside(self) -> Outside:
        """What the process holds now beside the allocator's segments."""
        if not self.is_cuda:
            return Outside(None, "")
        self.synchronize()
        reserved_bytes = torch.cuda.memory_reserved(self.torch_device)
        uuid = bare_uuid(getattr(torch.cuda.get_device_properties(self.torch_device), "uuid", ""))
        used_bytes = _process_bytes(uuid)
        if used_bytes is not None:
            return Outside(used_bytes - reserved_bytes, "NVML, this process")
        before_bytes, now_bytes = self._free_before.get(uuid), _free_bytes().get(uuid)
        if before_bytes is not None and now_bytes is not None:
            return Outside(before_bytes - now_bytes - reserved_bytes, "NVML, the card less what was used before")
        free_bytes, total_bytes = torch.cuda.mem_get_info(self.torch_device)
        return Outside(total_bytes - free_bytes - reserved_bytes, "driver, the whole card with other processes")

    def allocator_settings(self) -> Any:
        """As the allocator reports them; None on the CPU and where it does not."""
        return torch.cuda.memory._snapshot().get("allocator_settings") if self.is_cuda else None

    def held_bytes(self, run: Callable[[], torch.Tensor]) -> int | None:
        """What a kernel held at its peak beside what it read and what it left."""
        self.reset_peaks()
        out = run()
        self.synchronize()
        after_bytes, peak_bytes = self.allocated_bytes(), self.peaks().allocated_bytes
        del out
        return None if peak_bytes is None or after_bytes is None else peak_bytes - after_bytes


def _free_bytes() -> dict[str, int]:
    """Free bytes of each card and MIG instance, by UUID."""
    seen, _ = look(_nvml())
    return {card.uuid: card.device.free_bytes for card in seen if card.device.free_bytes is not None}


def _process_bytes(uuid: str) -> int | None:
    """What NVML counts for this process; None where it does not know it, as in most containers."""
    nvml = _nvml()
    if nvml is None:
        return None
    for kind in ("GPU", "MIG"):
        try:
            nvml.nvmlInit()
            handle = nvml.nvmlDeviceGetHandleByUUID(f"{kind}-{uuid}")
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:
            continue
        return next((process.usedGpuMemory for process in running if process.pid == os.getpid()), None)
    return None


def _nvml() -> Any | None:
    """The NVML binding; None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml
