"""Which device the work would run on, and its facts: NVML for what is here, the catalogue for the rates.

Reads only: it never sets anything, and initialises CUDA only in `local_device`, which answers for the device that
torch would use. It does not know which rates a card sustains, nor what other processes will take a moment later.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autotune.errors import NoAcceleratorError
from autotune.probe.catalog import facts_for, scaled
from autotune.probe.host import host
from autotune.records.device import Device
from autotune.units import MIB, size

__all__ = ["cpu_device", "devices", "local_device", "unsupported"]

# Free memory is read until two reads agree within 1 MiB, since a process that ends gives its memory back in steps.
SETTLE_READS, SETTLE_PAUSE_S, SETTLED_BYTES = 5, 0.02, MIB

# FP32 cores of one SM: CUDA C++ Programming Guide, compute capabilities; 128 where not listed.
CORES_PER_SM = {(6, 0): 64, (7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}

# Per core: two 256-bit FMA units (Intel since Haswell, AMD since Zen 2) do 32 FLOP a cycle, at 2.5 GHz with all cores
# busy. One core draws about 10 GB/s (STREAM), all of them what two DDR4-3200 channels give (JEDEC: 25.6 GB/s each).
CPU_FLOPS_PER_S_PER_CORE = 32 * 2.5e9
CPU_BYTES_PER_S_PER_CORE, CPU_BYTES_PER_S = 10e9, 51.2e9

OTHER_MAKERS = {"hip": "AMD GPUs (ROCm)", "mps": "Apple GPUs (MPS)", "xpu": "Intel GPUs (XPU)"}
WHAT_WORKS = "device='cpu', or gpu='NVIDIA GeForce RTX 3060 12GB' to plan for a card that is not here"


@dataclass(frozen=True)
class _Seen:
    """A card or MIG instance as NVML shows it, and what torch would know it by."""

    device: Device
    uuid: str
    pci: tuple[int, int, int] | None


def devices() -> list[Device]:
    """All NVIDIA cards of this machine, MIG instances apiece, whether or not torch may use them.

    `torch_device` is torch's number once CUDA is initialised here; until then it is NVML's, which
    CUDA_VISIBLE_DEVICES does not change.

    >>> isinstance(devices(), list)
    True
    """
    seen, _ = _look()
    torch = sys.modules.get("torch")
    if torch is None or torch.version.hip or not torch.cuda.is_initialized():
        return [card.device for card in seen]
    known = {_bare(torch.cuda.get_device_properties(index).uuid): index for index in range(torch.cuda.device_count())}
    hidden = ("not among the devices that torch may use here",)
    return [
        _as_torch_sees(card.device, torch, known[card.uuid])
        if card.uuid in known
        else card.device.model_copy(update={"notes": card.device.notes + hidden})
        for card in seen
    ]


def local_device(torch_device: str | None = None) -> Device:
    """The device that torch would use here: the one named, else the current CUDA device, else the CPU.

    Raises:
        NoAcceleratorError: the device named is not here, or of a kind that is not supported yet.

    >>> local_device("cpu").kind
    'cpu'
    """
    import torch

    kind, _, number = str(torch_device or "cuda").partition(":")
    if kind == "cpu":
        return cpu_device()
    if kind in OTHER_MAKERS:
        raise _refusal(torch_device, f"{OTHER_MAKERS[kind]} are not supported yet")
    if kind != "cuda" or not re.fullmatch(r"\d*", number):
        raise _refusal(torch_device, "devices are named 'cuda', 'cuda:0' or 'cpu'")
    seen, troubles = _look()
    if torch.version.hip or not torch.cuda.is_available():
        reason = _why_no_cuda(torch, seen, troubles)
        if torch_device is None:
            return cpu_device(notes=(reason, *unsupported()))
        raise _refusal(torch_device, reason)
    index = int(number) if number else torch.cuda.current_device()
    count = torch.cuda.device_count()
    if index >= count:
        listed = ", ".join(f"cuda:{other} ({torch.cuda.get_device_name(other)})" for other in range(count))
        raise _refusal(torch_device, f"torch may use {listed}")
    facts = torch.cuda.get_device_properties(index)
    match = _match(facts, seen)
    device = match.device if match else _from_torch(torch, index, troubles)
    # set_per_process_memory_fraction is a fraction of torch's total, not of NVML's.
    return _as_torch_sees(device, torch, index).model_copy(update={"total_bytes": facts.total_memory})


def unsupported() -> list[str]:
    """A sentence for each accelerator that is here but not supported yet."""
    import torch

    here = {
        "hip": torch.version.hip is not None and torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
    }
    return [f"{OTHER_MAKERS[kind]} are recognised, but not supported yet" for kind in OTHER_MAKERS if here[kind]]


def cpu_device(*, notes: tuple[str, ...] = ()) -> Device:
    """The CPU as a device: its memory is measured, its rates are a rough assumption from the number of cores.

    >>> cpu_device().source
    'assumed'
    """
    import psutil  # type: ignore[import-untyped]

    machine = host()
    # Two hardware threads of a core share its units.
    cores = min(machine.cores, psutil.cpu_count(logical=False) or machine.cores)
    rate = cores * CPU_FLOPS_PER_S_PER_CORE
    return Device(
        name="CPU",
        kind="cpu",
        torch_device="cpu",
        total_bytes=machine.ram_total_bytes,
        free_bytes=machine.ram_available_bytes,
        bandwidth_bytes_per_s=min(cores * CPU_BYTES_PER_S_PER_CORE, CPU_BYTES_PER_S),
        fp32_flops_per_s=rate,
        bf16_flops_per_s=rate,  # at least fp32's, which it is widened to; AVX512-BF16 and AMX are faster
        source="assumed",
        notes=(f"rates assumed for {cores} cores", *notes),
    )


def _nvml() -> Any | None:
    """The NVML binding, or None where it is not installed. Tests put another in its place."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def _look() -> tuple[list[_Seen], list[str]]:
    """The cards that answer, and a sentence for each trouble met."""
    nvml = _nvml()
    if nvml is None:
        return [], ["NVML cannot be asked: nvidia-ml-py is not installed"]
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [], [f"NVML does not answer: {error}"]
    seen: list[_Seen] = []
    troubles = []
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                seen += _instances(nvml, index)
            except nvml.NVMLError as error:
                troubles.append(f"GPU {index} does not answer and is left out: {error}")
    except nvml.NVMLError as error:
        troubles.append(f"NVML does not list its cards: {error}")
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
    return [_Seen(_noted(card.device, troubles), card.uuid, card.pci) for card in seen], troubles


def _instances(nvml: Any, index: int) -> list[_Seen]:
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
            parts.append(_Seen(_instance(nvml, part, whole.device), _bare(nvml.nvmlDeviceGetUUID(part)), whole.pci))
    return parts


def _instance(nvml: Any, handle: Any, whole: Device) -> Device:
    total_bytes = _total_bytes(nvml, handle)
    share = total_bytes / whole.total_bytes
    note = f"a MIG instance: the rates are the whole card's times {share:.2f}, its share of {size(whole.total_bytes)}"
    facts = {
        "name": nvml.nvmlDeviceGetName(handle),
        "sm_count": None,
        "total_bytes": total_bytes,
        "free_bytes": _settled_free_bytes(nvml, handle),
        "notes": (*whole.notes, note),
    }
    return scaled(whole, share).model_copy(update=facts)


def _card(nvml: Any, index: int, handle: Any) -> _Seen:
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
            "power_limit_w": None if power_mw is None else power_mw / 1000,
            "source": "probed" if facts.source == "catalogue" else facts.source,
        }
    )
    bus = _optional(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    pci = (bus.domain, bus.bus, bus.device) if bus else None
    return _Seen(device, _bare(nvml.nvmlDeviceGetUUID(handle)), pci)
