"""How people spell the names of models: what counts of a name, what a pasted address says, which words a name has.

Text only; which models there are is known by `recipes.py`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from autotune.errors import PipelineError

__all__ = ["HubName", "compact", "has_words", "hub_id_in", "hub_name", "words_of"]

_HOSTS = ("huggingface.co", "hf.co")
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?([\w-]+(?:\.[\w-]+)+)/(.+)", re.IGNORECASE)
_PART = r"\w[\w.-]*"
_HUB = re.compile(rf"({_PART}/{_PART})(?:@([\w./-]+)|/(?:tree|blob|resolve)/([\w.-]+)(?:/.*)?)?")
_DEFAULT_REVISION = "main"


class HubName(NamedTuple):
    """A model on the hub."""

    hub_id: str
    """Owner and name."""
    revision: str | None = None
    """A branch, tag or commit; None for the newest."""


def compact(name: str) -> str:
    """What counts of a name: its letters and digits, and what separates an owner from it.

    >>> compact("FLUX.1 [dev]"), compact("stable-diffusion-xl"), compact("./sdxl")
    ('flux1dev', 'stablediffusionxl', './sdxl')
    """
    text = name.strip().casefold()
    if text.startswith((".", "/", "~", "\\")):
        return text  # a path
    return re.sub(r"[\s._()\[\]-]+", "", text)


def hub_name(text: str) -> HubName | None:
    """The model on the hub that this names: owner/name, owner/name@revision, or an address as it is pasted.

    Raises:
        PipelineError: an address of something else.

    >>> hub_name("https://huggingface.co/Qwen/Qwen-Image/tree/main?x=1")
    HubName(hub_id='Qwen/Qwen-Image', revision=None)
    >>> hub_name("hf.co/Qwen/Qwen-Image/"), hub_name("Qwen/Qwen-Image@fp16").revision, hub_name("sdxl")
    (HubName(hub_id='Qwen/Qwen-Image', revision=None), 'fp16', None)
    """
    said = text.strip()
    address = _ADDRESS.fullmatch(said)
    on_hub = address is not None and address[1].casefold() in _HOSTS
    if "://" in said and not on_hub:
        raise PipelineError(
            f"{said[:80]!r} is not an address of a model on the Hugging Face hub; "
            "those read https://huggingface.co/owner/name, or owner/name for short"
        )
    path = re.split(r"[?#]", address[2])[0] if address is not None and on_hub else said
    found = _HUB.fullmatch(path.rstrip("/"))
    if found is None or (on_hub and path.split("/")[0] in {"datasets", "spaces", "collections", "docs", "models"}):
        if on_hub:
            raise PipelineError(f"{said[:80]!r} is a page of the hub, but not of a model; give owner/name")
        return None
    revision = found[2] or found[3]
    return HubName(found[1], None if revision == _DEFAULT_REVISION else revision)


def hub_id_in(text: str) -> str | None:
    """The hub id of an address, where the newest revision is meant; else None."""
    try:
        found = hub_name(text)
    except PipelineError:
        return None
    return found.hub_id if found is not None and found.revision is None else None


def has_words(name: str, words: str) -> bool:
    """Whether the name has all these words, each from a beginning of one of its own: "wan" and "wan 14b", but not "van".

    >>> has_words("wan2.2-t2v-a14b", "wan 2.2 14B"), has_words("flux1-dev", "flux 2"), has_words("sd3.5-large", "SD 3.5")
    (True, False, True)
    """
    text, said = compact(name), compact(words)
    if said and text.startswith(said):
        return True
    asked = words_of(words)
    return bool(asked) and all(any(_begins(own, word) for own in words_of(name)) for word in asked)


def words_of(text: str) -> list[str]:
    """The words of a name; a number is a word of its own, with what stands behind it.

    >>> words_of("wan2.2-t2v-a14b")
    ['wan', '2.2', 't2v', 'a14b']
    """
    return re.findall(r"\d+(?:\.\d+)*[a-z]*|[a-z]+(?:\d+[a-z]+)*", text.casefold())


def _begins(own: str, word: str) -> bool:
    return own.startswith(word) or own.lstrip("a").startswith(word)  # "14b" for "a14b"
