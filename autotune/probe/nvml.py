"""What NVML, the driver's own library, shows of the NVIDIA cards of this machine. It sets nothing.

Each card is described from what the driver reports, with rates from the catalogue. A fact that the driver does not give
stays empty; a card that does not answer is left out, and the others carry a note that says so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from autotune.probe.catalog import facts_for, instance
from autotune.probe.mig import scaled
from autotune.records.device import Device
from autotune.units import MIB, size

__all__ = ["Seen", "bare_uuid", "look"]

# Free memory is read until two reads agree within 1 MiB, since a process that ends gives its memory back in steps.
SETTLE_READS, SETTLE_PAUSE_S, SETTLED_BYTES = 5, 0.02, MIB

# FP32 cores of one SM: CUDA C++ Programming Guide, compute capabilities; 128 where not listed.
CORES_PER_SM = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}


@dataclass(frozen=True)
class Seen:
    """A card or MIG instance as NVML shows it, and what torch would know it by."""

    device: Device
    uuid: str
    pci: tuple[int, int, int] | None


def look(nvml: Any | None) -> tuple[list[Seen], list[str]]:
    """The cards that answer to this binding (pynvml, or None where it is not installed), and the troubles met."""
    if nvml is None:
        return [], ["NVML cannot be asked: nvidia-ml-py is not installed"]
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [], [f"NVML does not answer: {error}"]
    seen: list[Seen] = []
    troubles = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                found = _instances(nvml, index)
            except nvml.NVMLError as error:
                troubles.append(f"GPU {index} does not answer and is left out: {error}")
                continue
            seen += found
            if not found:
                troubles.append(f"GPU {index} is in MIG mode, but has no instances")
    except nvml.NVMLError as error:
        troubles.append(f"NVML does not list its cards: {error}")
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
    return [replace(card, device=_noted(card.device, troubles)) for card in seen], troubles


def _instances(nvml: Any, index: int) -> list[Seen]:
    """A card, or in MIG mode its instances."""
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    whole = _card(nvml, index, handle)
    mode = _optional(nvml, nvml.nvmlDeviceGetMigMode, handle)
    if not mode or not mode[0]:
        return [whole]
    parts = []
    for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        part = _optional(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if part is not None:
            parts.append(Seen(_instance(nvml, part, whole.device), bare_uuid(nvml.nvmlDeviceGetUUID(part)), whole.pci))
    return parts


def _instance(nvml: Any, handle: Any, whole: Device) -> Device:
    name, total_bytes = nvml.nvmlDeviceGetName(handle), _total_bytes(nvml, handle)
    part = instance(whole, name) or _by_memory(whole, total_bytes)
    free_bytes = _settled_free_bytes(nvml, handle)
    return part.model_copy(update={"name": name, "total_bytes": total_bytes, "free_bytes": free_bytes})


def _by_memory(whole: Device, total_bytes: int) -> Device:
    share = total_bytes / whole.total_bytes
    note = f"a MIG instance: the rates are the whole card's times {share:.2f}, its share of {size(whole.total_bytes)}"
    return scaled(whole, share).model_copy(update={"sm_count": None, "notes": (*whole.notes, note)})


def _card(nvml: Any, index: int, handle: Any) -> Seen:
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    cores = _optional(nvml, nvml.nvmlDeviceGetNumGpuCores, handle)
    sm_count = cores // CORES_PER_SM.get((major, minor), 128) if cores else None
    facts = facts_for(nvml.nvmlDeviceGetName(handle), _total_bytes(nvml, handle), (major, minor), sm_count)
    power_mw = _optional(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    link = {
        # An idle card slows its link down, so the generation it can reach counts; the width does not idle.
        "pcie_generation": _optional(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle) or facts.pcie_generation,
        "pcie_width": _optional(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, handle) or facts.pcie_width,
    }
    device = facts.model_copy(
        update={
            **link,
            "torch_device": f"cuda:{index}",
            "free_bytes": _settled_free_bytes(nvml, handle),
            "driver": _optional(nvml, nvml.nvmlSystemGetDriverVersion),
            "power_limit_w": facts.power_limit_w if power_mw is None else power_mw / 1000,
            "source": "probed" if facts.source == "catalogue" else facts.source,
        }
    )
    bus = _optional(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    pci = (bus.domain, bus.bus, bus.device) if bus else None
    return Seen(device, bare_uuid(nvml.nvmlDeviceGetUUID(handle)), pci)


def _total_bytes(nvml: Any, handle: Any) -> int:
    """What a process can use: the driver counts its own reserve as memory, torch does not."""
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except nvml.NVMLError:  # drivers before 510 have no second version, hence no reserve to show
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    return int(memory.total - memory.reserved)


def _settled_free_bytes(nvml: Any, handle: Any) -> int:
    last = int(nvml.nvmlDeviceGetMemoryInfo(handle).free)
    lowest = last
    for _ in range(SETTLE_READS - 1):
        time.sleep(SETTLE_PAUSE_S)
        now = int(nvml.nvmlDeviceGetMemoryInfo(handle).free)
        if abs(now - last) <= SETTLED_BYTES:
            return min(now, last)
        last, lowest = now, min(now, lowest)
    return lowest


def _optional(nvml: Any, ask: Callable[..., Any], *arguments: Any) -> Any | None:
    """An answer that many cards and drivers do not give."""
    try:
        return ask(*arguments)
    except nvml.NVMLError:
        return None


def _noted(device: Device, notes: list[str]) -> Device:
    return device.model_copy(update={"notes": (*device.notes, *notes)})


def bare_uuid(uuid: object) -> str:
    """A UUID without the "GPU-" or "MIG-" that NVML puts before it and torch does not.

    >>> bare_uuid("GPU-8e4f")
    '8e4f'
    """
    return str(uuid).removeprefix("GPU-").removeprefix("MIG-").casefold()
