"""The configuration files of a model on the Hugging Face hub. Downloads JSON only, never weights or code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from autotune.errors import PipelineError
from autotune.zoo.sources import CONFIG_FILES, INDEX

__all__ = ["download"]

# tokenizer.json comes along because most tokenizers cannot be made up without it.
PATTERNS = [INDEX, *(f"*/{file}" for file in (*CONFIG_FILES, "tokenizer.json"))]


def download(hub_id: str, *, revision: str | None = None, fetch: Callable[..., str] | None = None) -> Path:
    """The folder with the configuration files of `hub_id`, in the hub's cache.

    Args:
        hub_id: owner and name, for example "stabilityai/stable-diffusion-xl-base-1.0".
        revision: a branch, tag or commit; None for the newest.
        fetch: called instead of `huggingface_hub.snapshot_download`, with the same arguments.

    Raises:
        PipelineError: no such model, no access to it, no connection, or no diffusers pipeline there.

    >>> download("stable-diffusion")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    autotune.errors.PipelineError: 'stable-diffusion' is not a hub id, which reads 'owner/name'; without the hub, ...
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", hub_id):
        raise PipelineError(f"'{hub_id}' is not a hub id, which reads 'owner/name'; {_without_hub()}")
    try:
        at = {} if revision is None else {"revision": revision}
        folder = Path((fetch or _snapshot_download())(hub_id, allow_patterns=PATTERNS, **at))
    except Exception as error:  # the hub's client raises its own errors, its transport's and plain OSErrors
        raise PipelineError(f"'{hub_id}' {_reason(error)}; {_without_hub()}") from error
    if not (folder / INDEX).is_file():
        raise PipelineError(f"'{hub_id}' holds no {INDEX}, so it is no diffusers pipeline; {_without_hub()}")
    return folder


def _snapshot_download() -> Callable[..., str]:
    from huggingface_hub import snapshot_download

    return snapshot_download


def _reason(error: Exception) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return "is gated: accept its terms on its page on the hub, then log in with 'hf auth login'"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "is not on the Hugging Face hub, or is private and you are not logged in"
    if constants.HF_HUB_OFFLINE:
        return "is not in the hub's cache, and HF_HUB_OFFLINE forbids to download it"
    detail = str(error).strip().partition("\n")[0]
    return f"could not be downloaded from the Hugging Face hub ({type(error).__name__}: {detail})"


def _without_hub() -> str:
    return "without the hub, a zoo name such as sd15 or a local folder of its configuration files works"
