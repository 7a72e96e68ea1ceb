"""Parts of a card: which MIG instances it can be cut into, and what such a part of it can do.

An instance has compute slices, which are SMs, and memory slices, which are memory and bandwidth; NVML's name says
both ("3g.40gb"). The link to the machine is not cut, and is given as the whole card's. It does not know what the
instances beside it take of that link, nor, for a compute instance ("1c.3g.40gb"), of the memory that they share.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autotune.records.device import Device
from autotune.units import GIB

__all__ = ["Profile", "find", "part_of", "profiles", "scaled", "split"]

# Compute slices, memory slices and SMs of each profile, by the card's compute capability and SM count: NVIDIA MIG User
# Guide, "Supported MIG Profiles", and the listings of `nvidia-smi mig -lgip` there, from memory and not looked up. The
# A100 leaves 10 of its 108 SMs unused, the H100 gives the larger profiles more than their slices. None: not listed, the
# share of slices is taken.
_SEVENTHS = ((1, 1, None), (1, 2, None), (2, 2, None), (3, 4, None), (4, 4, None), (7, 8, None))
_CUTS: dict[tuple[tuple[int, int] | None, int | None], tuple[tuple[int, int, int | None], ...]] = {
    ((8, 0), 56): ((1, 1, 14), (2, 2, 28), (4, 4, 56)),  # A30
    ((8, 0), 108): ((1, 1, 14), (1, 2, 14), (2, 2, 28), (3, 4, 42), (4, 4, 56), (7, 8, 98)),  # A100, A800
    ((9, 0), 78): _SEVENTHS,  # H20
    ((9, 0), 114): _SEVENTHS,  # H100 PCIe
    ((9, 0), 132): ((1, 1, 16), (1, 2, 26), (2, 2, 32), (3, 4, 60), (4, 4, 64), (7, 8, 132)),  # H100, H200, GH200
    ((10, 0), 148): _SEVENTHS,  # B200, GB200
    ((12, 0), 188): ((1, 1, None), (2, 2, None), (4, 4, None)),  # RTX PRO 6000 Blackwell
}
# What an instance lacks of the memory in its name: the same listings show 4.75 GiB of 5, 9.5 of 10, 19.5 of 20 and 39.25
# of 40. The largest profiles lack what the driver keeps of the whole card (DRIVER_SHARE in table.py).
RESERVED_BYTES, RESERVED_SHARE = GIB // 2, 0.02

_NAME = re.compile(r"[\s_-]mig[\s_-]", re.IGNORECASE)
# The same guide, "Device Names": compute instances have a "c" in front, and the suffixes are about media and graphics
# engines, which denoising does not use.
_PROFILE = re.compile(r"(?:([1-7])c\.)?(([1-7])g\.[0-9]{1,3}gb)(?:[+-](?:me|gfx|me\.all))?")


@dataclass(frozen=True)
class Profile:
    """One way to cut a card."""

    name: str
    gib: int
    compute_share: float
    """Of the whole card's SMs."""
    memory_share: float
    """Of the whole card's memory and bandwidth."""
    sm_count: int | None


def split(name: str) -> tuple[str, str | None]:
    """The card's name and, for a MIG instance, what stands behind "MIG".

    >>> split("NVIDIA A100-SXM4-80GB MIG 1g.10gb")
    ('NVIDIA A100-SXM4-80GB', '1g.10gb')
    """
    found = _NAME.search(name)
    return (name[: found.start()], name[found.end() :].strip().casefold()) if found else (name, None)


def profiles(card: Device, gib: int) -> dict[str, Profile]:
    """The profiles of a card of that nominal size in GiB, by name; none where it has no MIG."""
    cuts = _CUTS.get((card.compute_capability, card.sm_count), ())
    slices, parts, _ = max(cuts, default=(1, 1, None))
    found = {}
    for compute, memory, sm_count in cuts:
        # NVIDIA rounds 141 * 4 / 8 = 70.5 to 71, and 180 / 8 = 22.5 to 23.
        size_gib = math.floor(gib * memory / parts + 0.5)
        compute_share = compute / slices if sm_count is None else sm_count / (card.sm_count or sm_count)
        name = f"{compute}g.{size_gib}gb"
        found[name] = Profile(name, size_gib, compute_share, memory / parts, sm_count)
    return found


def find(known: Mapping[str, Profile], written: str) -> Profile | None:
    """The profile of that name among those of a card, under the name as written; None if the card lacks it."""
    match = _PROFILE.fullmatch(written)
    profile = known.get(match[2]) if match else None
    if match is None or profile is None:
        return None
    compute, slices = int(match[1] or match[3]), int(match[3])
    if compute > slices:
        return None
    sm_count = profile.sm_count if compute == slices else None
    return replace(profile, name=written, compute_share=profile.compute_share * compute / slices, sm_count=sm_count)


def part_of(whole: Device, profile: Profile) -> Device:
    """A MIG instance of a card: its share of the rates, the memory that its name says, named as NVML names it."""
    nominal_bytes = profile.gib * GIB
    note = (
        f"a MIG instance: the compute rates and power are the whole card's times {profile.compute_share:.2f}, "
        f"the bandwidth times {profile.memory_share:.2f}"
    )
    facts = {
        "name": f"{whole.name} MIG {profile.name}",
        "sm_count": profile.sm_count,
        "total_bytes": int(nominal_bytes - max(RESERVED_BYTES, nominal_bytes * RESERVED_SHARE)),
        "notes": (*whole.notes, note),
    }
    return scaled(whole, profile.compute_share, profile.memory_share).model_copy(update=facts)


def scaled(device: Device, compute_share: float, memory_share: float | None = None) -> Device:
    """The same device with other rates: part of a card, or a smaller or larger sibling.

    Compute rates and the power limit go by `compute_share`, the bandwidth by `memory_share` where it is another.
    """
    rates = ("fp32", "tf32", "fp16", "bf16", "fp8")
    shares = {**{f"{rate}_flops_per_s": compute_share for rate in rates}, "power_limit_w": compute_share}
    shares["bandwidth_bytes_per_s"] = compute_share if memory_share is None else memory_share
    now = {field: getattr(device, field) for field in shares}
    return device.model_copy(update={field: value * shares[field] for field, value in now.items() if value is not None})
