"""Which device the work would run on, and its facts: NVML for what is here, the catalogue for the rates.

Reads only: it never sets anything, and initialises CUDA only in `local_device`, which answers for the device that
torch would use. It does not know which rates a card sustains, nor what other processes will take a moment later.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import Any

from autotune.errors import NoAcceleratorError
from autotune.probe.catalog import facts_for
from autotune.probe.host import host
from autotune.probe.nvml import Seen, bare_uuid, look
from autotune.records.device import Device

__all__ = ["cpu_device", "device_kind", "devices", "local_device", "unsupported"]

# Per core: two 256-bit FMA units (Intel since Haswell, AMD since Zen 2) do 32 FLOP a cycle, at 2.5 GHz with all cores
# busy. One core draws about 10 GB/s (STREAM), all of them what two DDR4-3200 channels give (JEDEC: 25.6 GB/s each).
CPU_FLOPS_PER_S_PER_CORE = 32 * 2.5e9
CPU_BYTES_PER_S_PER_CORE, CPU_BYTES_PER_S = 10e9, 51.2e9

OTHER_MAKERS = {"hip": "AMD GPUs (ROCm)", "mps": "Apple GPUs (MPS)", "xpu": "Intel GPUs (XPU)"}
WHAT_WORKS = "device='cpu', or gpu='NVIDIA GeForce RTX 3060 12GB' to plan for a card that is not here"


def devices() -> list[Device]:
    """All NVIDIA cards of this machine, MIG instances apiece, whether or not torch may use them.

    `torch_device` is torch's number once CUDA is initialised here; until then it is NVML's, which
    CUDA_VISIBLE_DEVICES does not change.

    >>> isinstance(devices(), list)
    True
    """
    seen, _ = look(_nvml())
    torch = sys.modules.get("torch")
    if torch is None or torch.version.hip or not torch.cuda.is_initialized():
        return [card.device for card in seen]
    known = {
        bare_uuid(torch.cuda.get_device_properties(index).uuid): index for index in range(torch.cuda.device_count())
    }
    hidden = ("not among the devices that torch may use here",)
    return [
        _as_torch_sees(card.device, torch, known[card.uuid])
        if card.uuid in known
        else card.device.model_copy(update={"notes": card.device.notes + hidden})
        for card in seen
    ]


def local_device(torch_device: str | None = None, *, context_bytes: Callable[[Device], int] | None = None) -> Device:
    """The device that torch would use here: the one named, else the current CUDA device, else the CPU.

    Args:
        torch_device: such as "cuda:1" or "cpu".
        context_bytes: what a context takes of a device at least. The driver counts that of this process as used once it is
            there; who counts it among what a call needs wants it counted as free. Left as the driver says it if None.

    Raises:
        NoAcceleratorError: the device named is not here, or of a kind that is not supported yet.

    >>> local_device("cpu").kind
    'cpu'
    """
    kind, number = device_kind(torch_device or "cuda")
    if kind == "cpu":
        return cpu_device()
    import torch

    with_context = _with_context(torch)  # what follows may make one
    seen, troubles = look(_nvml())
    if torch.version.hip or not torch.cuda.is_available():
        reason = _why_no_cuda(torch, seen, troubles)
        if torch_device is None:
            return cpu_device(notes=(reason, *unsupported()))
        raise _refusal(torch_device, reason)
    index = number if number is not None else torch.cuda.current_device()
    count = torch.cuda.device_count()
    if index >= count:
        listed = ", ".join(f"cuda:{other} ({torch.cuda.get_device_name(other)})" for other in range(count))
        raise _refusal(torch_device, f"torch may use {listed}")
    facts = torch.cuda.get_device_properties(index)
    match = _match(facts, seen)
    device = _as_torch_sees(match.device if match else _from_torch(torch, index, troubles), torch, index)
    # set_per_process_memory_fraction is a fraction of torch's total, not of NVML's.
    update = {"total_bytes": facts.total_memory}
    if context_bytes is not None and device.free_bytes is not None and (match is None or index in with_context):
        update["free_bytes"] = device.free_bytes + context_bytes(device)
    return device.model_copy(update=update)


def device_kind(torch_device: str) -> tuple[str, int | None]:
    """The kind and the number of a torch device, without torch.

    Raises:
        NoAcceleratorError: no name of a device, or of one that is not supported yet.

    >>> device_kind("cuda:1"), device_kind("cpu")
    (('cuda', 1), ('cpu', None))
    """
    kind, colon, number = torch_device.partition(":")
    if kind in OTHER_MAKERS:
        raise _refusal(torch_device, f"{OTHER_MAKERS[kind]} are not supported yet")
    if kind not in {"cuda", "cpu"} or (colon and not re.fullmatch(r"[0-9]{1,4}", number)):
        raise _refusal(torch_device, "devices are named 'cuda', 'cuda:0' or 'cpu'")
    return kind, int(number) if number else None


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
    import psutil

    machine = host()
    # Two hardware threads of a core share its units.
    threads = machine.cores or 1
    cores = min(threads, psutil.cpu_count(logical=False) or threads)
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


def _with_context(torch: Any) -> frozenset[int]:
    """Numbers of the devices on which this process has a context for certain: its allocator holds memory there."""
    if torch.version.hip or not torch.cuda.is_initialized():
        return frozenset()
    return frozenset(index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index))


def _as_torch_sees(device: Device, torch: Any, index: int) -> Device:
    """With torch's number, and free memory that includes what this process's allocator holds but does not use."""
    update: dict[str, Any] = {"torch_device": f"cuda:{index}"}
    if torch.cuda.is_initialized() and device.free_bytes is not None:
        pool_bytes = torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index)
        update["free_bytes"] = device.free_bytes + pool_bytes
    return device.model_copy(update=update)


def _match(facts: Any, seen: list[Seen]) -> Seen | None:
    """NVML's view of the device with these torch properties: by UUID, else by its place on the PCI bus."""
    for card in seen:
        if card.uuid == bare_uuid(getattr(facts, "uuid", "")):
            return card
    place = tuple(getattr(facts, f"pci_{part}_id", None) for part in ("domain", "bus", "device"))
    there = [card for card in seen if card.pci == place]
    return min(there, key=lambda card: abs(card.device.total_bytes - facts.total_memory), default=None)


def _from_torch(torch: Any, index: int, troubles: list[str]) -> Device:
    """The facts that torch alone gives, where NVML does not show the card."""
    facts = torch.cuda.get_device_properties(index)
    device = facts_for(facts.name, facts.total_memory, (facts.major, facts.minor), facts.multi_processor_count)
    free_bytes, _ = torch.cuda.mem_get_info(index)  # which makes a context if there is none
    notes = (
        *device.notes,
        *troubles,
        "described by torch alone: no driver version, enforced power limit or current link",
    )
    return device.model_copy(
        update={
            "free_bytes": free_bytes,
            "notes": notes,
            "source": "probed" if device.source == "catalogue" else device.source,
        }
    )


def _why_no_cuda(torch: Any, seen: list[Seen], troubles: list[str]) -> str:
    if torch.version.hip:
        return f"torch {torch.__version__} is built for ROCm, which is not supported yet"
    built = torch.version.cuda is not None
    reason = f"torch {torch.__version__} " + ("finds no CUDA device" if built else "is built without CUDA")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if built and visible is not None:
        reason += f" with CUDA_VISIBLE_DEVICES={visible!r}"
    if seen:
        return f"{reason}, although NVML shows {', '.join(card.device.name for card in seen)}"
    return "; ".join([reason, *(troubles or ["NVML shows no card"])])


def _refusal(asked: str | None, found: str) -> NoAcceleratorError:
    return NoAcceleratorError(f"device={str(asked)!r} was asked for, but {found}; what works: {WHAT_WORKS}")
