"""Records as small HTML tables for notebooks. What comes from outside is escaped; a table is never wider than its cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from autotune.records.words import formats, lever_words, plan_words
from autotune.units import both_sizes, duration, size

if TYPE_CHECKING:
    from autotune.records.device import Device
    from autotune.records.front import Front
    from autotune.records.plan import Plan

__all__ = ["device_html", "front_html", "lines_html", "plan_html", "table"]

_FITS = "max-width:100%;overflow-wrap:anywhere"
_CELL = "text-align:left;vertical-align:top;white-space:normal"


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with a title; it breaks words before it leaves its cell.

    >>> "&lt;b&gt;" in table("", ("name",), [("<b>",)])
    True
    """
    head = "".join(f'<th style="{_CELL}">{escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in row) + "</tr>" for row in rows
    )
    caption = f'<p style="{_FITS}"><b>{escape(title)}</b></p>' if title else ""
    return f'{caption}<table style="{_FITS}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def lines_html(lines: Iterable[str]) -> str:
    """Rows of text as they are aligned, wrapped at words where the cell is narrower."""
    return f'<pre style="{_FITS};white-space:pre-wrap">{escape(chr(10).join(lines))}</pre>'


def plan_html(plan: Plan) -> str:
    """The levers that are pulled, or a sentence where none is."""
    rows = [
        (name, repr(value), lever_words(name, value), plan.reasons.get(name, ""))
        for name, value in plan.changes.items()
    ]
    if not rows:
        return lines_html([f"Plan {plan.id}: {plan_words(plan)}"])
    return table(f"Plan {plan.id}, the levers that it pulls", ("lever", "value", "in words", "reason"), rows)


def front_html(front: Front) -> str:
    """One row a plan, from the fastest to the smallest."""
    title = (
        f"{front.model} {front.workload.label} on {front.device.name}: "
        f"{len(front)} of {front.searched} plans that no other beats, simulated"
    )
    rows = (
        (
            candidate.plan.id,
            plan_words(candidate.plan),
            candidate.plan.lane,
            size(candidate.estimate.needed_bytes),
            size(candidate.estimate.host_ram_bytes),
            duration(candidate.estimate.latency_s),
        )
        for candidate in front.candidates
    )
    return table(title, ("plan", "what it does", "quality", "needs", "RAM", "one call"), rows)


def device_html(device: Device) -> str:
    """What decides a plan: memory, generation, formats, link, and where the facts come from."""
    capability = device.compute_capability
    facts = {
        "memory": both_sizes(device.total_bytes),
        "free": "" if device.free_bytes is None else both_sizes(device.free_bytes),
        "compute capability": "" if capability is None else ".".join(map(str, capability)),
        "formats": formats(device),
        "bandwidth": f"{device.bandwidth_bytes_per_s / 1e9:.0f} GB/s",
        "link": "" if device.pcie_generation is None else f"PCIe {device.pcie_generation} x{device.pcie_width}",
        "facts": device.source,
        "notes": "; ".join(device.notes),
    }
    return table(device.name, ("", ""), ((name, words) for name, words in facts.items() if words))
