"""The attention dispatcher of diffusers: its backends, and what each of them needs."""

from __future__ import annotations

from typing import Any

__all__ = [
    "CHOSEN",
    "backend_missing",
    "backend_names",
    "backend_ready",
]


CHOSEN = "_attention_backend"
"""Where a processor that asks the dispatcher holds its backend; None for the process's own."""


def backend_names() -> tuple[str, ...]:
    """The backends that diffusers' attention dispatcher knows."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    return tuple(member.value for member in AttentionBackendName)


def backend_ready(name: str) -> Any:
    """A backend as the dispatcher's processors hold it, its kernel fetched where it comes from a hub."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _maybe_download_kernel_for_backend

    backend = AttentionBackendName(name)
    _maybe_download_kernel_for_backend(backend)
    return backend


def backend_missing(name: str) -> str:
    """What is missing for a backend of the dispatcher: the package, or a newer version; empty if nothing is."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _check_attention_backend_requirements

    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
    except RuntimeError as error:
        return str(error).rstrip(".")
    return ""
