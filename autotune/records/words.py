"""A plan, a card and a call in the words that people use for them."""

from __future__ import annotations

from typing import Any

from autotune.records.device import Device
from autotune.records.plan import OFF, Plan

__all__ = ["card_words", "formats", "lever_words", "plan_words"]


def plan_words(plan: Plan) -> str:
    """A plan in a few words: `fp16, text encoders leave after encoding, VAE in 512-pixel tiles`; what is off goes unsaid."""
    on = {name: value for name, value in plan.changes.items() if value != OFF.get(name)}
    words = [lever_words(name, value) for name, value in on.items()]
    return ", ".join(words) or "as it is, everything on the device"


def lever_words(name: str, value: Any) -> str:
    """One lever's value in words."""
    if value is None:
        return _AS_FOUND[name]
    if name in _WORDS and value in _WORDS[name]:
        return _WORDS[name][value]
    if name == "dtype":
        return str(value)
    if name == "attention":
        kind, _, argument = value.partition(":")
        return f"attention sliced ({argument})" if kind == "sliced" else f"attention by {argument}"
    if name == "offload":
        level, *options = value.removeprefix("group:").split("+")
        return " + ".join([f"group offload by {level}", *(option.replace("_", " ") for option in options)])
    return _COUNTED[name].format(value)


_AS_FOUND = {
    "dtype": "precision as it is",
    "tf32": "TF32 as it is",
    "channels_last": "layout as it is",
    "attention": "attention as it is",
    "feed_forward_chunks": "feed-forward as it is",
    "batch_split": "batch as it is",
    "vae_slicing": "slicing as it is",
    "vae_tiling": "tiling as it is",
    "vae_framewise": "VAE's frames as its class does",
    "compile": "code as it is",
    "offload": "placed as it is",
    "text_encoders": "text encoders as they are",
}
_WORDS: dict[str, dict[Any, str]] = {
    "dtype": {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32"},
    "tf32": {False: "no TF32", True: "TF32"},
    "channels_last": {False: "channels first", True: "channels last"},
    "attention": {
        "sdpa": "fused attention",
        "xformers": "xFormers attention",
        "vanilla": "vanilla attention",
    },
    "feed_forward_chunks": {False: "feed-forward whole"},
    "batch_split": {False: "batch whole"},
    "vae_slicing": {False: "VAE unsliced", True: "VAE one image at a time"},
    "vae_tiling": {False: "VAE untiled"},
    "vae_framewise": {False: "VAE with all frames together", True: "VAE in runs of frames"},
    "compile": {"none": "nothing compiled", "trace": "traced UNet", "blocks": "compiled blocks"},
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


def card_words(device: Device) -> str:
    """A card without its makers' words.

    >>> from autotune.probe.catalog import card
    >>> card_words(card("RTX 3060 12GB"))
    'RTX 3060'
    """
    return " ".join(word for word in device.name.split() if word not in {"NVIDIA", "GeForce"})


def formats(device: Device) -> str:
    """The number formats that decide which precision runs fast there; empty for the CPU."""
    if device.kind == "cpu":
        return ""
    if not device.supports_bf16:
        return "no bf16"
    return "fp8 and bf16" if device.fp8 else "bf16"
