"""What is assumed where facts are missing: a card's rates, from the nearest of its generation, and a machine's RAM."""

from __future__ import annotations

import re
from typing import Any

from autotune.probe import mig
from autotune.probe.names import read
from autotune.probe.table import BLACK_IN_FP16, Row, fp16_fails, rows, vocabulary
from autotune.records.device import Device
from autotune.units import GB

__all__ = ["assumed_ram_bytes", "like", "most_alike"]

# A convention and no measurement: 32 GB is common beside one gaming card, and servers are configured with about twice their
# cards' memory (both from memory). Whoever knows better states the RAM.
_RAM_BYTES, _RAM_TO_VRAM = 32 * GB, 2


def assumed_ram_bytes(device: Device) -> int:
    """The RAM of a machine that is not here, by its card: 32 GB, more beside a large card of a server or workstation.

    Where card and host share one memory, that is all there is.

    >>> from autotune.probe.catalog import card
    >>> assumed_ram_bytes(card("RTX 4090"))
    32000000000
    """
    if device.shares_ram or device.kind == "cpu":
        return device.total_bytes
    return _RAM_BYTES if device.consumer else max(_RAM_BYTES, _RAM_TO_VRAM * device.total_bytes)


def most_alike(name: str, total_bytes: int, compute_capability: tuple[int, int], sm_count: int | None) -> Row:
    """The card of the generation that is nearest: in name and family, then in SMs where they are known, then in memory.

    Of cards that are equally near, the slowest.

    >>> most_alike("NVIDIA GeForce GTX 1640", 4 * 2**30, (7, 5), 12).facts.name
    'NVIDIA GeForce GTX 1650'
    """
    words = read(name, vocabulary()).words
    black, geforce = fp16_fails(name, compute_capability), _is_geforce(name)
    generation = _generation(compute_capability)
    namesakes = [row for row in generation if row.models & words]
    return min(
        namesakes or generation,
        key=lambda row: (
            len(row.core ^ words) if namesakes else 0,
            row.facts.fp16_fails != black,
            geforce not in {None, _is_geforce(row.facts.name)},
            geforce is not None and ("laptop" in words) != ("laptop" in row.words),
            0 if sm_count is None else abs((row.facts.sm_count or 0) - sm_count),
            abs(row.facts.total_bytes - total_bytes),
            row.facts.fp16_flops_per_s or 0.0,
        ),
    )


def _is_geforce(name: str) -> bool | None:
    """None for a name that tells no family."""
    if re.search("geforce|gtx", name, re.IGNORECASE):
        return True
    return False if re.match("nvidia|quadro|tesla", name, re.IGNORECASE) else None


def like(model: Row, facts: dict[str, Any], sm_count: int | None, *, said: str) -> Device:
    """A card with these facts, and all others of a model's, times the ratio of SMs where that is known.

    Args:
        said: The note about it, ahead of the model's name.
    """
    share = (sm_count or model.facts.sm_count or 1) / (model.facts.sm_count or 1)
    times = "" if share == 1 else f" times {share:.2f}, by SM count"
    fails = fp16_fails(facts["name"], facts["compute_capability"])
    notes = (f"{said} {model.facts.name}{times}", *([BLACK_IN_FP16] if fails else []))
    scaled = mig.scaled(model.facts, share)
    return scaled.model_copy(update={"fp16_fails": fails, "source": "assumed", "notes": notes, **facts})


def _generation(compute_capability: tuple[int, int]) -> list[Row]:
    """The cards of this compute capability, else of the last before it that has its own memory, else the oldest."""
    known = {row.facts.compute_capability for row in rows() if row.facts.compute_capability}
    apart = {row.facts.compute_capability for row in rows() if not row.facts.shares_ram} & known
    earlier = [other for other in apart if other and other <= compute_capability]
    generation = compute_capability if compute_capability in known else max(earlier, default=min(known))
    return [row for row in rows() if row.facts.compute_capability == generation]
