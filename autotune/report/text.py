"""The answer in six lines: what was asked, the plan, what to expect, against what, what would buy more, what to type.

Each figure that stands beside a cap is the one that was compared with it: the peak with its error bar, and the RAM.
"""

from __future__ import annotations

import re
from textwrap import shorten
from typing import Any

from autotune.records.estimate import Estimate
from autotune.records.front import Candidate
from autotune.records.host import Host
from autotune.records.plan import OFF, Plan
from autotune.records.precision import Precision
from autotune.records.words import card_words, formats, lever_words
from autotune.report.explanation import Explanation
from autotune.report.lines import Line, Part, laid_out
from autotune.report.tables import LEVER_TITLES, PHASE_TITLES, lever_rows, phase_rows
from autotune.units import MB, Scale, duration, size

__all__ = ["answer_lines", "explanation_text", "six_lines"]

_FIRST_WORDS = ("dtype", "text_encoders", "offload", "vae_tiling")
_LAST_WORDS = ("tf32", "channels_last", "vae_slicing", "vae_framewise")
_RANKS = {
    "dtype": 0,
    "offload": 0,
    "vae_tiling": 1,
    "text_encoders": 2,
    **dict.fromkeys(_LAST_WORDS, 4),
}  # in which they go
_ALWAYS_SAID = ("batch", "1 step")  # of a call, in any width
_CAPS = ("max_vram", "max_ram", "quality")  # of what is to be typed, never left out
_LONGEST_CLAUSE = 90  # of a line that is to fit into 100 columns
_LONGEST_NAME = 48  # of a model, in columns


def six_lines(explained: Explanation, width: int | None = None, *, hint: str = "") -> list[str]:
    """The answer in at most six lines, in more rows where the width is below 100 columns.

    Args:
        explained: what is said.
        width: columns there are; None for one row a line, however long.
        hint: where to read on, at the end of the last line.
    """
    return [row for line in answer_lines(explained, hint=hint) for row in laid_out(line, width)]


def answer_lines(explained: Explanation, *, hint: str = "") -> list[Line]:
    """The lines before they are laid out. Of notes and of what would buy more the notes come first, in one line."""
    lines = [_headline(explained), _planned(explained.chosen.plan, explained), _expected(explained)]
    compared = explained.compared
    if compared is not None and not compared.plan.same_as(explained.chosen.plan):
        lines.append(_against(compared, explained))
    more = [*_notes(explained), *explained.advice]
    if more:
        label = "note" if _notes(explained) else "more"
        first = Part(more[0], 1, short=_first_clause(more[0]))
        lines.append(Line(label, [first, *(Part(f" | {said}", rank) for rank, said in enumerate(more[1:], 2))]))
    return [*lines, _to_do(explained, hint)]


def _first_clause(text: str) -> str:
    """What stands before the explanation; a long note is cut at a word."""
    clause = re.split(r"[:;] ", text, maxsplit=1)[0] if not text.startswith("keep=") else text.rpartition(": ")[0]
    return clause if len(clause) <= _LONGEST_CLAUSE else shorten(clause, _LONGEST_CLAUSE, placeholder=" ...")


def explanation_text(explained: Explanation) -> str:
    """Bytes and seconds by phase and the reason of each lever that has a choice; then the six lines."""
    rows = [PHASE_TITLES, *phase_rows(explained.chosen.estimate)]
    lines = ["  " + "  ".join(cells) for cells in _aligned(rows)]
    levers = lever_rows(explained)
    if levers:
        lines += ["", *("  " + "  ".join(cells) for cells in _aligned([LEVER_TITLES, *levers]))]
    lines += [f"  note: {note}" for note in (*explained.chosen.estimate.notes, *explained.device.notes)]
    lines.append(f"  answered from: {explained.answered_from}")
    return "\n".join([*(line.rstrip() for line in lines), "", *six_lines(explained)])


def _aligned(rows: list[tuple[str, ...]]) -> list[list[str]]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [[f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)] for row in rows]


def _headline(explained: Explanation) -> Line:
    device, call = explained.device, explained.workload
    size_words, *rest = call.words
    parts = [Part(f"{_published(explained.model)} {size_words}")]
    parts += [_said_of_call(words) for words in rest]
    memory = size(device.total_bytes)
    if device.free_bytes is not None:
        memory = f"{_alike(device.free_bytes, device.total_bytes)} of {memory} free"
    parts += [Part(f" | {card_words(device)}"), Part(f", {memory}", 2)]
    if formats(device):
        parts.append(Part(f", {formats(device)}", 5))
    host = explained.host
    if host is not None and device.kind != "cpu":
        words, option = _host(host, explained.ram_cap_bytes)
        parts += [Part(f" | {words}"), *([Part(f" ({option})", 4)] if option else [])]
    source = {"catalogue": "simulated", "calibrated": "simulated, calibrated"}.get(explained.chosen.estimate.source)
    return Line("", parts, right=source or "measured")


def _said_of_call(words: str) -> Part:
    """Steps and batch stay, and how many pictures; how large those are, and the rest, goes where there is no room."""
    if words.startswith(_ALWAYS_SAID) or words.endswith("steps"):
        return Part(f", {words}")
    pictures = re.match(r"\d+ \w+(?= of )", words)
    return Part(f", {words}", 1, short=f", {pictures[0]}" if pictures else "")


def _host(host: Host, cap_bytes: int | None) -> tuple[str, str]:
    """The RAM that counts, and the option that says another."""
    if host.assumed and cap_bytes not in {None, host.ram_available_bytes}:
        return f"{_short(cap_bytes or 0)} RAM", "max_ram"
    words = {"assumed": "RAM assumed", "stated": "RAM", "measured": "RAM free"}[host.source]
    return f"{_short(host.ram_available_bytes)} {words}", "--ram" if host.assumed else ""


def _short(value_bytes: int) -> str:
    """A size as people write it: `32 GB`."""
    return size(value_bytes).replace(".00 ", " ")


def _published(model: str) -> str:
    """The name a model is published under: the last part of an id or a path, as the hub's cache spells it."""
    parts = [part for part in model.replace("\\", "/").split("/") if part]
    cached = next((part for part in parts if part.startswith("models--")), None)
    name = cached.split("--")[-1] if cached else parts[-1] if parts else model
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."


def _planned(plan: Plan, explained: Explanation) -> Line:
    whole = plan.over(explained.found)
    words = {name: lever_words(name, value) for name, value in _worth_saying(whole, explained).items()}
    if whole.offload == "none":
        where = "the rest" if whole.text_encoders in {"leave", "cpu"} else "everything"
        words["offload"] = f"{where} on the {'card' if explained.device.kind == 'cuda' else 'CPU'}"
    words["dtype"] = _precision(plan, explained)
    order = [*_FIRST_WORDS, *(name for name in words if name not in (*_FIRST_WORDS, *_LAST_WORDS)), *_LAST_WORDS]
    said = [name for name in order if name in words]
    ranks = [_RANKS.get(name, 3) for name in said]
    parts = [Part(", " + words[name] if place else words[name], ranks[place]) for place, name in enumerate(said)]
    return Line("plan", parts)


def _worth_saying(plan: Plan, explained: Explanation) -> dict[str, Any]:
    """What it sets, but for what is off and was off before."""
    found = explained.found.values
    return {name: value for name, value in plan.changes.items() if value != OFF.get(name) or value != found[name]}


def _precision(plan: Plan, explained: Explanation) -> str:
    """The precision that each network has under the plan."""
    return str(plan.precision.over(explained.found.precision))


def _expected(explained: Explanation) -> Line:
    estimate, cap = explained.chosen.estimate, explained.cap_bytes
    where = f"in {estimate.peak_phase.name}"
    denied = estimate.needed_bytes > cap
    if not denied:
        shown = _alike(cap, estimate.needed_bytes)
        parts = [Part(with_bar(estimate)), Part(" peak", 4), Part(f" {where} (cap {shown})")]
    else:
        needed, there = _apart(estimate.needed_bytes, cap)
        parts = [Part(f"does not fit: needs {needed}, the cap is {there}"), Part(f", peak {where}", 1)]
    return Line("expect", [*parts, *_ram(estimate, explained.ram_cap_bytes, denied=denied), *_times(estimate)])


def with_bar(estimate: Estimate) -> str:
    """The peak and its error bar, which as printed add up to what is needed as printed: `6.84 GB +-0.24`."""
    unit_bytes, unit, decimals = Scale.of(estimate.needed_bytes)
    needed, peak = (round(value / unit_bytes, decimals) for value in (estimate.needed_bytes, estimate.process_bytes))
    return f"{peak:.{decimals}f} {unit} +-{needed - peak:.{decimals}f}"


def _ram(estimate: Estimate, cap_bytes: int | None, rank: int = 0, *, denied: bool = False) -> list[Part]:
    """What waits in RAM, and whether there is room for it; where VRAM has `denied` the plan already, that may go."""
    if cap_bytes is not None and estimate.host_ram_bytes > cap_bytes:
        waiting, there = _apart(estimate.host_ram_bytes, cap_bytes)
        short = "" if denied else f", {waiting} RAM (does not fit)"
        return [Part(f", {waiting} RAM (does not fit: {there})", 1, short=short)]
    return [Part(f", {size(estimate.host_ram_bytes)} RAM", rank)] if estimate.host_ram_bytes >= MB else []


def _times(estimate: Estimate) -> list[Part]:
    if estimate.untraced:
        return [Part(f", time unknown beyond {duration(estimate.latency_s)}")]
    encoding, denoising, decoding = (estimate.phase(name).latency_s for name in ("encoding", "denoising", "decoding"))
    step = f"{estimate.steps} x {_seconds(denoising / estimate.steps)}"
    later = f"; first call {duration(estimate.setup_s)} more"
    told_apart = estimate.latency_s >= 1  # below, its parts are of no use to anybody
    return [
        Part(f", {duration(estimate.latency_s)}"),
        *([Part(f" = {_whole(encoding)} + {step} + {_whole(decoding)}", 3)] if told_apart else []),
        Part(f" ({_bar(estimate)})", 1),
        *([Part(later, 2)] if estimate.setup_s else []),
    ]


def _bar(estimate: Estimate) -> str:
    """The error bar of the times: `+-35 %`, or `-40 % +230 %` where it is not the same either way."""
    less, more = estimate.latency_margin_less, estimate.latency_margin
    same = less is None or round(less, 2) == round(more, 2)
    return (f"+-{more:.0%}" if same else f"-{less:.0%} +{more:.0%}").replace("%", " %")


def _against(compared: Candidate, explained: Explanation) -> Line:
    estimate, plan = compared.estimate, compared.plan
    call, short = {
        "model": ("enable_model_cpu_offload()", "model offload"),
        "none": (f'.to("{explained.device.kind}")', f"all on the {explained.device.kind}"),
        "sequential": ("enable_sequential_cpu_offload()", "sequential offload"),
    }.get(plan.offload or "none", ("enable_group_offload()", "group offload"))
    precision = _precision(plan, explained)
    said = _worth_saying(plan, explained)
    rest = [lever_words(name, value) for name, value in said.items() if name not in {"dtype", "offload"}]
    parts = [Part(precision, 2, short=precision.split(",")[0]), *(Part(f", {words}", 3) for words in rest)]
    parts.append(Part(f", {call}: ", 1, short=f", {short}: "))
    denied = estimate.needed_bytes > explained.cap_bytes
    if not denied:
        parts.append(Part(f"{with_bar(estimate)}"))
    else:
        parts.append(Part(f"needs {_apart(estimate.needed_bytes, explained.cap_bytes)[0]} (does not fit)"))
    untimed = bool(estimate.untraced)
    seconds = f", {'at least ' if untimed else ''}{duration(estimate.latency_s)}"
    return Line("against", [*parts, *_ram(estimate, explained.ram_cap_bytes, 3, denied=denied), Part(seconds)])


def _notes(explained: Explanation) -> list[str]:
    found = (*explained.notes, *_unfused(explained), *reversed(explained.chosen.estimate.notes), *_cap_note(explained))
    return list(dict.fromkeys(found))


def _unfused(explained: Explanation) -> list[str]:
    """The score matrices that are why a plan does not fit."""
    estimate = explained.chosen.estimate
    use = estimate.attention
    if use is None or not use.unfused or estimate.needed_bytes <= explained.cap_bytes:
        return []
    return [use.words] if use.scores_bytes > estimate.needed_bytes / 2 else []


def _cap_note(explained: Explanation) -> list[str]:
    return [explained.cap_note] if explained.cap_note else []


def _to_do(explained: Explanation, hint: str) -> Line:
    hints = [Part(f"     {hint}", 2)] if hint else []
    if explained.state == "optimised":
        after = [Part("autotune.explain(pipe) tells why"), Part(", autotune.restore(pipe) takes it back", 1)]
        return Line("do", [*after, *hints])
    if explained.state == "written out":
        changes = ", ".join(f"{name}={_literal(value)}" for name, value in explained.chosen.plan.changes.items())
        return Line("do", [Part(f"pipe = autotune.apply(pipe, autotune.Plan({changes}))"), *hints])
    said = {name: f", {name}={_literal(value)}" for name, value in explained.asked.items()}
    first = [Part(words) for name, words in said.items() if name in _CAPS]
    others = "".join(words for name, words in said.items() if name not in _CAPS)
    rest = [Part(others, 3, short=", ...")] if others else []
    lowered = explained.unloaded and explained.chosen.plan.dtype not in {None, explained.found.dtype}
    load = [Part(f"load in {explained.chosen.plan.dtype}, then ", 1)] if lowered else []
    return Line("do", [*load, Part("pipe = autotune.optimize(pipe"), *first, *rest, Part(")"), *hints])


def _literal(value: Any) -> str:
    """A value as one types it, strings in double quotes."""
    if isinstance(value, Precision):
        value = str(value)
    return f'"{value}"' if isinstance(value, str) and '"' not in value else repr(value)


def _alike(value_bytes: int, beside_bytes: int) -> str:
    """A size beside another: without the unit where it is the other's."""
    text = size(value_bytes)
    return text.split()[0] if text.split()[1:] == size(beside_bytes).split()[1:] else text


def _apart(one_bytes: int, other_bytes: int) -> tuple[str, str]:
    """Two sizes of which one does not fit into the other, told to as many digits as tell them apart."""
    if size(one_bytes) != size(other_bytes):
        return size(one_bytes), size(other_bytes)
    told = f"{one_bytes / MB:.3f} MB", f"{other_bytes / MB:.3f} MB"
    return told if told[0] != told[1] else (f"{one_bytes} B", f"{other_bytes} B")


def _seconds(value_s: float) -> str:
    """Two digits, for a factor whose unit stands beside it."""
    return _whole(value_s) if value_s >= 0.995 else f"{value_s:.2g}"


def _whole(value_s: float) -> str:
    """Tenths of seconds, for a sum whose unit stands beside it."""
    return f"{value_s:.0f}" if value_s >= 9.95 else f"{value_s:.1f}"
