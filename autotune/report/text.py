"""The tool's words: five lines that fit a terminal, and a longer account by phase and lever."""

from __future__ import annotations

from typing import Any

from autotune.records.device import Device
from autotune.records.estimate import Estimate
from autotune.records.front import Candidate
from autotune.records.plan import Plan
from autotune.report.explanation import Explanation
from autotune.units import both_sizes, duration, size

__all__ = ["PHASE_TITLES", "explanation_text", "five_lines", "lever_rows", "lever_words", "phase_rows", "plan_words"]

PHASE_TITLES = ("phase", "peak", "weights", "activations", "workspace", "overhead", "time", "at")
_SHORT = {"encoding": "encode", "denoising": "denoise", "decoding": "decode"}


def five_lines(explained: Explanation) -> list[str]:
    """What was planned, what to expect, what it is compared with, what would buy more."""
    lines = [_headline(explained), f"plan    {plan_words(explained.chosen.plan)}", f"expect  {_expected(explained)}"]
    if explained.compared is not None and not explained.compared.plan.same_as(explained.chosen.plan):
        lines.append(f"against {_against(explained.compared, explained.cap_bytes)}")
    lines += [f"more    {advice}" for advice in explained.advice[:1]]
    notes = explained.chosen.estimate.notes or (explained.device.notes if explained.device.kind == "cpu" else ())
    lines += [f"note    {notes[-1]}"] if notes else []
    return lines


def explanation_text(explained: Explanation) -> str:
    """The five lines, then bytes and seconds by phase and the reason of each lever."""
    estimate = explained.chosen.estimate
    lines = [*five_lines(explained)]
    if explained.state == "as it is":
        verdict = "fits" if explained.fits else "will not fit"
        cap = size(explained.cap_bytes)
        lines.insert(1, f"as it is now: {size(estimate.process_bytes)}, {verdict} (cap {cap})")
    if explained.cap_note:
        lines.append(f"cap     {explained.cap_note}")
    lines.append("")
    lines += _phase_table(estimate)
    if explained.chosen.plan.reasons:
        lines.append("")
        rows = lever_rows(explained.chosen.plan)
        lines += [f"  {name:<19} {value:<34} {reason}".rstrip() for name, value, reason in rows]
    lines += [f"  note: {note}" for note in (*estimate.notes, *explained.device.notes)]
    lines += [f"  more: {advice}" for advice in explained.advice[1:]]
    return "\n".join(lines)


def phase_rows(estimate: Estimate) -> list[tuple[str, ...]]:
    """One row a phase, in the order of `PHASE_TITLES`."""
    return [
        (
            phase.name,
            both_sizes(phase.peak_bytes),
            size(phase.weights_bytes),
            size(phase.activations_bytes),
            size(phase.workspace_bytes),
            size(phase.overhead_bytes),
            duration(phase.latency_s),
            phase.moment,
        )
        for phase in estimate.phases
    ]


def lever_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """One row a lever: its name, its value in words, the reason."""
    return [(name, lever_words(name, value), plan.reasons.get(name, "")) for name, value in plan.values.items()]


def plan_words(plan: Plan) -> str:
    """A plan in a few words: `fp16, text encoders and UNet take turns on the card, VAE in 512-pixel tiles`."""
    words = [lever_words(name, value) for name, value in plan.changes.items()]
    return ", ".join(words) or "as it is, everything on the device"


def lever_words(name: str, value: Any) -> str:
    """One lever's value in words."""
    if name in _WORDS and value in _WORDS[name]:
        return _WORDS[name][value]
    if name == "attention":
        kind, _, argument = value.partition(":")
        return f"attention sliced ({argument})" if kind == "sliced" else f"attention by {argument}"
    if name == "offload":
        level, *options = value.removeprefix("group:").split("+")
        return " + ".join([f"group offload by {level}", *(option.replace("_", " ") for option in options)])
    return _COUNTED[name].format(value)


_WORDS: dict[str, dict[Any, str]] = {
    "dtype": {"as_is": "precision as it is", "float16": "fp16", "bfloat16": "bf16"},
    "tf32": {False: "no TF32", True: "TF32"},
    "channels_last": {False: "layout as it is", True: "channels last"},
    "attention": {
        "as_is": "attention as it is",
        "sdpa": "fused attention",
        "xformers": "xFormers attention",
        "vanilla": "vanilla attention",
    },
    "feed_forward_chunks": {False: "feed-forward whole"},
    "batch_split": {False: "batch whole"},
    "vae_slicing": {False: "VAE unsliced", True: "VAE one image at a time"},
    "vae_tiling": {False: "VAE untiled"},
    "vae_framewise": {False: "VAE's frames as its class does", True: "VAE in runs of frames"},
    "compile": {"none": "not compiled", "trace": "traced UNet", "blocks": "compiled blocks"},
    "offload": {"none": "everything resident", "model": "model offload", "sequential": "sequential offload"},
    "text_encoders": {
        "resident": "text encoders like the rest",
        "leave": "text encoders leave after encoding",
        "cpu": "text encoders on the CPU",
    },
}
_COUNTED = {
    "feed_forward_chunks": "feed-forward in {} chunks",
    "batch_split": "denoiser's batch in {} parts",
    "vae_tiling": "VAE in {}-pixel tiles",
}


def device_words(device: Device) -> str:
    """Name and memory: `NVIDIA GeForce RTX 3060, 11.2 of 12.9 GB free`."""
    if device.free_bytes is None:
        return f"{device.name}, {size(device.total_bytes)}"
    return f"{device.name}, {device.free_bytes / 1e9:.1f} of {size(device.total_bytes)} free"


def _headline(explained: Explanation) -> str:
    parts = [f"{explained.model} {explained.workload.label}", device_words(explained.device)]
    if explained.host is not None and explained.device.kind != "cpu":
        parts.append(f"RAM {size(explained.host.ram_available_bytes)} free")
    return " | ".join(parts)


def _expected(explained: Explanation) -> str:
    estimate = explained.chosen.estimate
    peak = estimate.peak_phase
    bars = f"+-{size(estimate.margin_bytes)}, {_latency_bar(estimate)}, {_source(estimate)}"
    return (
        f"peak {size(estimate.process_bytes)} in {_SHORT[peak.name]} (cap {size(explained.cap_bytes)}), "
        f"RAM {size(estimate.host_ram_bytes)}, {_times(estimate)}   ({bars})"
    )


def _latency_bar(estimate: Estimate) -> str:
    less, more = estimate.latency_margin_less, estimate.latency_margin
    return f"+-{more:.0%}" if less is None or round(less, 2) == round(more, 2) else f"-{less:.0%} +{more:.0%}"


def _times(estimate: Estimate) -> str:
    if estimate.notes:
        return f"time unknown beyond {duration(estimate.latency_s)}"
    encode, decode = estimate.phase("encoding").compute_s, estimate.phase("decoding").compute_s
    denoise = estimate.phase("denoising").compute_s
    return (
        f"{duration(estimate.latency_s)} = encode {duration(encode)} + {estimate.steps} x "
        f"{duration(denoise / estimate.steps)} + decode {duration(decode)} + moves {duration(estimate.transfer_s)}"
        + (f"; the first call {duration(estimate.setup_s)} more" if estimate.setup_s else "")
    )


def _source(estimate: Estimate) -> str:
    return {"catalogue": "simulated from the catalogue", "calibrated": "simulated, calibrated here"}.get(
        estimate.source, estimate.source
    )


def _against(compared: Candidate, cap_bytes: int) -> str:
    call = {"model": "enable_model_cpu_offload()", "none": "everything on the card"}.get(
        compared.plan.offload, "enable_sequential_cpu_offload()"
    )
    estimate = compared.estimate
    verdict = "" if compared.fits(cap_bytes, None) else ", over the cap"
    return f"{call}: {size(estimate.process_bytes)}{verdict}, {duration(estimate.latency_s)}"


def _phase_table(estimate: Estimate) -> list[str]:
    return [
        f"  {name:<10} {peak:>22} {weights:>9} {activations:>12} {workspace:>10} {overhead:>9} {time:>11}  {at}"
        for name, peak, weights, activations, workspace, overhead, time, at in (PHASE_TITLES, *phase_rows(estimate))
    ]
