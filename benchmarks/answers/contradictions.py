"""Whether an answer denies itself: its figures, caps, verdicts and reasons against one another, and its text against its JSON.

It knows nothing of what is right. A difference below what the last printed digit hides is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from autotune.records.plan import LANES
from autotune.units import GB, MB, parse_bytes
from benchmarks.answers.asking import WIDTHS, Answer

__all__ = ["contradictions"]

_EQUAL_SHARE, _EQUAL_S = 0.01, 0.05  # plans this close in time are equal (records/front.py `preferred`)
_SIZE = r"(\d+(?:\.\d+)?) (GB|MB)"
_DIGIT = {"GB": 0.0051, "MB": 0.51}  # half of the last digit that is printed
_MINUTES = re.compile(r"(?:(\d+) h ?)?(?:(\d+) min ?)?(?:(\d+(?:\.\d+)?) (ms|s)\b)?")


def contradictions(answer: Answer) -> list[str]:
    """What in an answer cannot be true together."""
    found = list(_of_refusal(answer)) if answer.error else []
    if answer.explained is not None and not answer.error:
        found += _of_records(answer)
        found += _of_text(answer)
        found += _of_json(answer)
    return found


def _of_refusal(answer: Answer) -> Iterator[str]:
    told = answer.document["error"] if isinstance(answer.document, dict) else {}
    shown = " ".join(answer.text.get(WIDTHS[0], "").split())
    first = " ".join(answer.message.split()[:6])
    if first not in shown:
        yield f"--json says {first!r}..., the text says {shown[:80]!r}"
    asked = re.search(rf"max_vram={_SIZE}", answer.message)
    smallest = told.get("smallest_bytes")
    if asked and smallest is not None and "one memory" not in answer.message:
        cap_bytes = float(asked[1]) * (GB if asked[2] == "GB" else MB)
        if smallest < cap_bytes * 0.995:
            yield f"nothing fits into {cap_bytes / GB:.2f} GB, and the smallest plan needs {smallest / GB:.2f} GB"
    for kind in ("max_vram", "max_ram"):
        cap = re.search(rf"{kind}={_SIZE}, but", answer.message)
        if cap is None:
            continue
        for tried in re.findall(rf"{kind}='([\d.]+[GM]B)'", answer.message):
            if parse_bytes(tried) < float(cap[1]) * (GB if cap[2] == "GB" else MB) * 0.99:
                yield f"{cap[0]} {kind}='{tried}' is advised, which is less"


def _of_records(answer: Answer) -> Iterator[str]:
    explained, front = answer.explained, answer.front
    chosen = explained.chosen
    estimate = chosen.estimate
    if estimate.peak_phase.peak_bytes != max(phase.peak_bytes for phase in estimate.phases):
        yield f"the peak is said to be in {estimate.peak_phase.name}"
    if estimate.process_bytes < estimate.allocated_bytes and not explained.device.shares_ram:
        yield f"the process peaks at {estimate.process_bytes}, live tensors at {estimate.allocated_bytes}"
    if explained.cap_bytes > explained.device.total_bytes:
        yield f"the cap is {explained.cap_bytes}, the device has {explained.device.total_bytes}"
    for phase in estimate.phases:
        parts = phase.weights_bytes + phase.activations_bytes + phase.workspace_bytes + phase.overhead_bytes
        if parts != phase.peak_bytes:
            yield f"{phase.name}: the parts are {parts} bytes, the peak {phase.peak_bytes}"
        if phase.components and sum(phase.components.values()) != phase.weights_bytes:
            yield f"{phase.name}: components add up to {sum(phase.components.values())}, weights {phase.weights_bytes}"
    if explained.state != "planned":
        return
    one_memory = explained.device.shares_ram
    if not chosen.fits(explained.cap_bytes, explained.ram_cap_bytes, one_memory=one_memory):
        yield "a plan is proposed that does not fit"
    if front is None:
        return
    if not any(chosen.plan.same_as(row.plan) for row in front.candidates):
        yield f"the plan {chosen.plan.id} is not on the front"
    calls = explained.workload.calls
    mine = chosen.estimate.per_call_s(calls)
    for row in front.candidates:
        better_lane = LANES.index(row.plan.lane) <= LANES.index(chosen.plan.lane)
        fits = row.fits(explained.cap_bytes, explained.ram_cap_bytes, one_memory=one_memory)
        if better_lane and row.plan.quality_rank <= chosen.plan.quality_rank and fits:
            gain_s = mine - row.estimate.per_call_s(calls)
            if gain_s > max(_EQUAL_S, _EQUAL_SHARE * mine) and explained.asked.get("objective") != "memory":
                yield f"{row.plan.id} fits as well and is {gain_s:.2f} s faster than {chosen.plan.id}"


def _of_text(answer: Answer) -> Iterator[str]:
    explained = answer.explained
    rows = answer.text[WIDTHS[0]].splitlines()
    labelled = {row[:9].strip(): row[9:] for row in rows}
    expect = labelled.get("expect", "")
    fits = "does not fit" not in expect
    if fits != explained.fits:
        yield f"the record says fits={explained.fits}, the line says {expect!r}"
    yield from _cap(expect)
    yield from _sum(expect)
    against, compared = labelled.get("against"), explained.compared
    if against is not None:
        if compared is None:
            yield "there is a line 'against' and nothing to compare with"
        elif ("does not fit" in against) == compared.fits(explained.cap_bytes, explained.ram_cap_bytes):
            yield f"against: {against!r}, and it needs {compared.estimate.needed_bytes} of {explained.cap_bytes}"
    for said in explained.advice:
        yield from _advice(said, explained)
    for name, reason in explained.chosen.plan.reasons.items():
        if "no difference" in reason and "simpler" in reason and explained.chosen.plan.changes.get(name) is not None:
            for part in reason.split("; "):
                if part.startswith(("against False: no difference", "against none: no difference")):
                    yield f"{name}={explained.chosen.plan.values[name]}: {part!r}, and nothing is simpler than leaving it"


def _cap(expect: str) -> Iterator[str]:
    """Peak and error bar, as printed, against the cap as printed."""
    found = re.search(r"(\d+(?:\.\d+)?) (GB|MB) \+-(\d+(?:\.\d+)?).*\(cap (\d+(?:\.\d+)?)( GB| MB)?\)", expect)
    if not found:
        return
    needed = float(found[1]) + float(found[3])
    cap_unit = (found[5] or found[2]).strip()
    factor = {"GB": 1.0, "MB": 1e-3}
    if needed * factor[found[2]] > (float(found[4]) + _DIGIT[cap_unit]) * factor[cap_unit] + 1e-9:
        yield f"{found[0]!r}: the peak and its bar are above the cap"


def _sum(expect: str) -> Iterator[str]:
    """Total = encoding + steps x step + decoding, as printed."""
    found = re.search(r", ([^,=]*?) = ([\d.]+) \+ (\d+) x ([\d.]+) \+ ([\d.]+)", expect)
    if not found:
        return
    total = _seconds(found[1])
    encoding, step, decoding = float(found[2]), float(found[4]), float(found[5])
    steps = int(found[3])
    hidden = sum(_half(found[place]) * times for place, times in ((2, 1), (4, steps), (5, 1))) + _half(found[1])
    if total is not None and abs(encoding + steps * step + decoding - total) > hidden + 0.01 * total:
        yield f"{found[0]!r}: the parts make {encoding + steps * step + decoding:.1f} s"


def _half(printed: str) -> float:
    """Half of the last digit of a figure."""
    number = re.findall(r"\d+(?:\.\d+)?", printed)[-1]
    return 0.5 * 10.0 ** -len(number.partition(".")[2]) + 1e-9


def _seconds(text: str) -> float | None:
    """What `units.duration` printed.

    >>> _seconds("4 min 10 s"), _seconds("950 ms")
    (250.0, 0.95)
    """
    found = _MINUTES.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    rest = float(found[3] or 0) / (1000 if found[4] == "ms" else 1)
    return 3600.0 * int(found[1] or 0) + 60 * int(found[2] or 0) + rest


def _advice(said: str, explained: Any) -> Iterator[str]:
    """More VRAM or RAM must be more than there is, and whatever is advised must be worth seconds, as they are shown."""
    there = (
        (r"max_vram='([\d.]+[GM]B)'", explained.cap_bytes),
        (r"a card with ([\d.]+ [GM]B)", explained.device.total_bytes),
        (r"with ([\d.]+ [GM]B) of RAM", explained.ram_cap_bytes),
    )
    for pattern, has_bytes in there:
        found = re.match(pattern, said)
        if found and has_bytes is not None and parse_bytes(found[1].replace(" ", "")) <= has_bytes:
            yield f"{said!r}, and there are {has_bytes / GB:.2f} GB"
    shown_s = explained.chosen.estimate.latency_s
    taken = re.search(r"would take ((?:[\d.]+ (?:h|min|ms|s)\b ?)+)", said)
    taken_s = _seconds(taken[1]) if taken else None
    if taken_s is not None and taken_s > shown_s * 1.005 + 0.05:
        yield f"{said!r}, and this plan takes {shown_s:.1f} s"


def _of_json(answer: Answer) -> Iterator[str]:
    document = answer.document.get("best") or answer.document
    if "estimate" not in document:
        return
    explained = answer.explained
    pairs = {
        "fits": (document["fits"], explained.fits),
        "cap_bytes": (document["cap_bytes"], explained.cap_bytes),
        "needed_bytes": (document["estimate"]["needed_bytes"], explained.chosen.estimate.needed_bytes),
        "latency_s": (document["estimate"]["latency_s"], explained.chosen.estimate.latency_s),
        "plan": (document["plan"]["id"], explained.chosen.plan.id),
    }
    for name, (told, meant) in pairs.items():
        if told != meant:
            yield f"--json says {name}={told}, the text is made of {meant}"
    rows = answer.document.get("front")
    if rows and not any(row["id"] == document["plan"]["id"] for row in rows):
        yield f"--json: plan {document['plan']['id']} is not in the front that is printed beside it"
