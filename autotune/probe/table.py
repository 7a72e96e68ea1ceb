"""The table of cards: one line of `cards.csv` as facts, and the words by which it is found.

The table holds vendor specifications: peak rates, not what a card sustains. Half-precision and fp8 rates are dense with fp32
accumulation; on cards without tensor cores half precision is the rate that really applies: fp32's on Maxwell and consumer
Pascal (fp16 runs at 1/64 there or not at all, so cuBLAS computes in fp32), the vector rate on P100 and GTX 16. It knows the
board's default power, but neither the clocks under a power limit nor boards that differ from the reference.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources

from autotune.probe.names import NOISE, words_of
from autotune.records.device import Device
from autotune.units import GIB

__all__ = ["BLACK_IN_FP16", "Row", "fp16_fails", "rows", "vocabulary"]

# What the driver keeps of the nominal memory, from the totals that drivers reported for cards of the table:
# 0 to 2.3 % (4090 under Linux 2.0 %, V100 1.4 %, GTX 1070 1.0 %), and 7.9 to 8.4 % where error correction lives in
# the same GDDR memory (T4, A10G). The upper end is taken, since a plan must also fit on the unluckier driver.
DRIVER_SHARE = 0.02
DRIVER_SHARE_WITH_ECC = 0.08

# https://github.com/pytorch/pytorch/issues/172352: torch's CUDA 12.8 and 13 wheels start at compute capability 7.5.
_LATE_WHEELS = (7, 5)
_OLD_WHEELS = "torch runs here from its CUDA 12.6 wheels only"
# TU116 and TU117, Turing without tensor cores: black, green or NaN images in fp16, fp32 works
# (https://github.com/pytorch/pytorch/issues/58123, https://github.com/AUTOMATIC1111/stable-diffusion-webui/pull/4407).
_BLACK = re.compile(r"\b(?:gtx 16\d\d|mx[45]50|t[456]\d0|t1[02]00|quadro t2000)\b", re.IGNORECASE)
BLACK_IN_FP16 = "known to give black images in fp16"

# Architectures by compute capability (CUDA programming guide): a word that people add to a name.
_ARCHITECTURES = {
    "maxwell": {(5, 2)},
    "pascal": {(6, 0), (6, 1)},
    "volta": {(7, 0)},
    "turing": {(7, 5)},
    "ampere": {(8, 0), (8, 6)},
    "ada": {(8, 9)},
    "lovelace": {(8, 9)},
    "hopper": {(9, 0)},
    "blackwell": {(10, 0), (10, 3), (12, 0), (12, 1)},
}
# Words that tell families apart, not cards of a family, and may be left out.
_FAMILIES = {"geforce", "rtx", "gtx", "tesla", "quadro", "hbm3", "sxm"}
# Words with a digit that tell the form of a card, not which card it is.
_FORM = re.compile(r"sxm\d?|hbm\d\w?|v\d")


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table, and how it is found."""

    line: dict[str, str]
    """By column."""
    gib: int
    """The nominal size."""
    typed: str
    """A name that tells this card from its kin, but for the size."""
    rare: bool
    """Has to be asked for by its size."""
    driver_words: frozenset[str]
    """Of NVML's name, without those that are noise."""
    words: frozenset[str]
    """All that may be written."""
    models: frozenset[str]
    """Those of which one has to be written: "3060", "a100", "titan"."""
    core: frozenset[str]
    """Those that name it wholly, once they are all written."""
    sizes: frozenset[int]
    """Those that may be written: the nominal one, and what a name says instead."""

    @cached_property
    def facts(self) -> Device:
        """The card; a name that means none waits for none of them to be checked."""
        return _facts(self.line, self.gib)


@cache
def rows() -> tuple[Row, ...]:
    """All lines of the table."""
    text = resources.files("autotune.probe").joinpath("cards.csv").read_text(encoding="utf-8")
    table = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return tuple(map(_row, table))


@cache
def vocabulary() -> frozenset[str]:
    """All words of all names, and those of architectures."""
    return frozenset(_ARCHITECTURES) | {word for row in rows() for word in row.words}


def fp16_fails(name: str, compute_capability: tuple[int, int] | None) -> bool:
    """Whether a card of this name computes NaN in fp16, which gives black images.

    >>> fp16_fails("NVIDIA GeForce GTX 1650 Ti", (7, 5)), fp16_fails("Tesla T4", (7, 5))
    (True, False)
    """
    return compute_capability in {None, (7, 5)} and _BLACK.search(name) is not None


def _row(line: dict[str, str]) -> Row:
    gib, capability = int(line["gib"]), _capability(line)
    by_driver, by_hand, also = (words_of(line[column]) for column in ("name", "typed", "also"))
    named = by_driver.words | by_hand.words
    implied = {architecture for architecture, those in _ARCHITECTURES.items() if capability in those}
    implied |= {"sxm"} if any(word.startswith("sxm") for word in named) else set()
    implied |= set() if {"laptop"} & (named | also.words) else {"desktop"}
    implied |= set() if {"geforce", "titan"} & named else {"tesla", "quadro"}
    families = (_FAMILIES - {"rtx"}) if "titan" in named else _FAMILIES
    return Row(
        line=line,
        gib=gib,
        typed=line["typed"] or line["name"],
        rare=bool(line["rare"]),
        driver_words=by_driver.words - NOISE,
        words=named | also.words | implied | NOISE,
        models=frozenset(word for word in named | also.words if _tells(word)),
        core=named - families - NOISE - set(_ARCHITECTURES),
        sizes=by_driver.sizes | also.sizes | {gib},
    )


def _facts(line: dict[str, str], gib: int) -> Device:
    name, capability = line["name"], _capability(line)
    share = DRIVER_SHARE_WITH_ECC if line["ecc"] else DRIVER_SHARE
    black = fp16_fails(name, capability)
    notes = (line["note"], BLACK_IN_FP16 if black else "", _OLD_WHEELS if capability < _LATE_WHEELS else "")
    return Device(
        name=name,
        kind="cuda",
        torch_device="cuda:0",
        compute_capability=capability,
        consumer="geforce" in name.casefold() or "laptop" in f"{name} {line['also']}".casefold(),
        sm_count=int(line["sm"]) if line["sm"] else None,
        total_bytes=int(line["total_bytes"] or gib * GIB * (1 - share)),
        shares_ram=bool(line["shares_ram"]),
        bandwidth_bytes_per_s=float(line["gb_per_s"]) * 1e9,
        fp32_flops_per_s=float(line["fp32"]) * 1e12,
        tf32_flops_per_s=_tera(line["tf32"]),
        fp16_flops_per_s=_tera(line["fp16"]),
        bf16_flops_per_s=_tera(line["bf16"]),
        fp8_flops_per_s=_tera(line["fp8"]),
        fp16_fails=black,
        pcie_generation=int(line["pcie"]),
        pcie_width=int(line["lanes"]),
        power_limit_w=float(line["watts"]),
        notes=tuple(note for note in notes if note),
    )


def _capability(line: dict[str, str]) -> tuple[int, int]:
    major, minor = line["cc"].split(".")
    return int(major), int(minor)


def _tera(field: str) -> float | None:
    return float(field) * 1e12 if field else None


def _tells(word: str) -> bool:
    with_digit = any(character.isdigit() for character in word) and _FORM.fullmatch(word) is None
    return with_digit or word in {"titan", "spark"}
