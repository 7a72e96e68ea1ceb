"""Facts about cards, most of which are not here: the speed and size that a name or a description stands for.

`table.py` reads the lines, `names.py` what people write, `meaning.py` decides which card a name means, `described.py` takes a
card by its facts, and `assumed.py` fills in what nobody said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from autotune.errors import UnknownGpuError
from autotune.probe import mig
from autotune.probe.assumed import assumed_ram_bytes, like, most_alike
from autotune.probe.described import described, fields_of
from autotune.probe.meaning import full_name, named_by_driver, of_size, one, sized
from autotune.probe.names import LONGEST, read, shown
from autotune.probe.table import Row, rows, vocabulary
from autotune.records.device import Device
from autotune.units import GIB, size

__all__ = ["assumed_ram_bytes", "card", "facts_for", "instance", "listed", "names", "slug"]

# A card's total belongs to a nominal size if it lies in this range of it: A10G reports 91.6 %, and the closest pair of
# sizes sold under one name, 10 and 12 GB, are 83 % of one another.
SAME_SIZE = (0.88, 1.02)

_SIZE = re.compile(r"(?<![\w.])(\d{1,6})\s*gi?b\b")


def card(name: str | Mapping[str, Any]) -> Device:
    """The facts about a card that need not be here, about a MIG instance of one, or about one that is described by hand.

    Case, spacing and words such as NVIDIA, GeForce and RTX are free; a size may follow, and must where a card has several.
    MIG instances have NVML's names: "NVIDIA A100-SXM4-80GB MIG 3g.40gb". A description is "8.9,16GB,RTX 4000 Ada", or the
    mapping that `described` takes.

    Raises:
        UnknownGpuError: no card of that name, size or profile, or several, which are its `choices`; or a description
            that cannot be true.
        NoAcceleratorError: another maker's accelerator, or a Jetson.
        BadSizeError: the memory of a description is no size.

    >>> card("rtx 3060 12gb").name
    'NVIDIA GeForce RTX 3060'
    >>> card("8.9,16GB,RTX 4000 Ada").notes
    ('described by hand; what was not said is taken from NVIDIA RTX 4000 Ada Generation',)
    """
    if isinstance(name, Mapping):
        return described(name)
    if not isinstance(name, str):
        raise UnknownGpuError(
            f"gpu={shown(name)} is not a card's name; write for example gpu='NVIDIA GeForce RTX 4060'"
        )
    if len(name) <= LONGEST and (fields := fields_of(name)):
        return described(fields)
    whole, profile = mig.split(name)
    written = read(whole, vocabulary())
    row = one(written, name)
    facts = row.facts if profile is None else _part(row, profile, name)
    if written.count == 1:
        return facts
    note = f"{written.count} cards were named; the plan is for one of them"
    return facts.model_copy(update={"notes": (*facts.notes, note)})


def names() -> list[str]:
    """Names that `card` takes, each naming one card. Those of MIG instances, which it takes too, are not listed.

    >>> "NVIDIA GeForce RTX 3080 12GB" in names()
    True
    """
    return [full_name(row) for row in rows()]


def listed(word: str | None = None) -> list[Device]:
    """The cards of `names`, in its order; with words, those whose name as typed holds them all, in any case.

    >>> [device.name for device in listed("3080 ti laptop")]
    ['NVIDIA GeForce RTX 3080 Ti Laptop GPU']
    """
    asked = (word or "").casefold().split()
    return [row.facts for row in rows() if all(part in f"{sized(row)} {row.facts.name}".casefold() for part in asked)]


def slug(device: Device) -> str:
    """A folder name for a card, with its nominal size once, wherever the size stands in the driver's name.

    >>> slug(card("RTX 3060 12GB")), slug(card("NVIDIA A100 80GB PCIe"))
    ('nvidia-geforce-rtx-3060-12gb', 'nvidia-a100-pcie-80gb')
    """
    words = re.sub(r"[^a-z0-9.]+", "-", _SIZE.sub(" ", device.name.casefold())).strip("-")
    if device.kind == "cpu":
        return words
    if known := _known_part(device.name):
        return f"{slug(known[0].facts)}-mig-{known[1].name.replace('+', '-')}"
    row = None if device.source == "assumed" else _row_for(device.name, device.total_bytes)
    # Outside the table only the driver's share is missing, so rounding up restores the nominal size.
    gib = row.gib if row else math.ceil(device.total_bytes / GIB)
    major, minor = device.compute_capability or (0, 0)
    return f"{words}-{gib}gb" + (f"-assumed-{major}.{minor}" if device.source == "assumed" else "")


def facts_for(
    nvml_name: str, total_bytes: int, compute_capability: tuple[int, int], sm_count: int | None = None
) -> Device:
    """Facts about a real card: its catalogue row, or a guess scaled by SM count from a card of the same generation.

    >>> facts_for("NVIDIA RTX 3000 Mystery", 8 * 2**30, (8, 6), 14).source
    'assumed'
    """
    measured = {"name": nvml_name, "total_bytes": total_bytes, "compute_capability": compute_capability}
    known = _facts_of(nvml_name, total_bytes)
    if known is not None:
        return known.model_copy(update={**measured, "sm_count": sm_count or known.sm_count})
    model = most_alike(nvml_name, total_bytes, compute_capability, sm_count)
    said = f"{nvml_name} with {size(total_bytes)} is not in the catalogue; rates assumed from"
    return like(model, {**measured, "sm_count": sm_count}, sm_count, said=said)


def instance(whole: Device, nvml_name: str) -> Device | None:
    """The MIG instance of that name on a card that is here; None where the name tells no profile that is known.

    >>> instance(card("NVIDIA A30"), "NVIDIA A30 MIG 2g.12gb").sm_count
    28
    """
    known = _known_part(nvml_name)
    return None if known is None else mig.part_of(whole, known[1])


def _row_for(name: str, total_bytes: int) -> Row | None:
    low, high = SAME_SIZE
    there, _ = named_by_driver(name)
    fitting = [row for row in there if low <= total_bytes / (row.gib * GIB) <= high]
    return min(fitting, key=lambda row: abs(row.gib * GIB - total_bytes), default=None)


def _facts_of(name: str, total_bytes: int) -> Device | None:
    if known := _known_part(name):
        return mig.part_of(known[0].facts, known[1])
    row = _row_for(name, total_bytes)
    return None if row is None else row.facts


def _known_part(name: str) -> tuple[Row, mig.Profile] | None:
    """The card and the profile that the name of a MIG instance tells."""
    whole, asked = mig.split(name)
    if asked is None:
        return None
    there, written = named_by_driver(whole)
    for row in of_size(there, written):
        if profile := mig.find(mig.profiles(row.facts, row.gib), asked):
            return row, profile
    return None


def _part(row: Row, asked: str, name: str) -> Device:
    known = mig.profiles(row.facts, row.gib)
    if not known:
        raise UnknownGpuError(
            f"gpu={shown(name)} asks for MIG, and no MIG profile of {row.facts.name} is known; there is {full_name(row)!r}"
        )
    profile = mig.find(known, asked)
    if profile is None:
        there = ", ".join(f"MIG {other}" for other in known)
        raise UnknownGpuError(f"gpu={shown(name)} is not a MIG instance of {row.facts.name}, which has {there}")
    return mig.part_of(row.facts, profile)
