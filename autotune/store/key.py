"""What makes two searches the same search, as short hashes: a key is equal wherever and whenever it is made.

Fields of a workload that have their default are left out of its hash, so that a field added later changes no old key.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from autotune.records.profile import ProfileKey
from autotune.records.speed import Speed
from autotune.records.workload import Workload

__all__ = ["hash_options", "hash_speed", "hash_workload", "other_versions", "profile_key", "slug", "versions"]

_DISTRIBUTIONS = {  # the distribution called "autotune" is another package
    "autotune": "diffusers-autotune",
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "accelerate": "accelerate",
}
_DECISIVE = ("autotune", "torch", "diffusers")
_SLUG_LENGTH = 80


def profile_key(*, structural: str, gpu_slug: str, workload: Workload, options: Mapping[str, Any]) -> ProfileKey:
    """The key of a search: this model, on this card, for this call, with these options.

    >>> from autotune.records.workload import Workload
    >>> call = Workload(height=512, width=512)
    >>> profile_key(structural="1f0c", gpu_slug="tesla-t4-16gb", workload=call, options={"quality": "near"})
    ProfileKey(structural='1f0c', gpu='tesla-t4-16gb', workload='c3a02f9d959623fd', options='f1613d23eb63f47a')
    """
    return ProfileKey(
        structural=structural,
        gpu=gpu_slug,
        workload=hash_workload(workload),
        options=hash_options(options),
    )


def hash_workload(workload: Workload) -> str:
    """Hash of everything in the workload that changes the estimate, which is all of it."""
    return _hash(workload.model_dump(exclude_defaults=True))


def hash_options(options: Mapping[str, Any]) -> str:
    """Hash of search options: plain values, and lists, sets and mappings of them.

    >>> hash_options({"allow": {"a", "b"}, "undo": True}) == hash_options({"undo": True, "allow": {"b", "a"}})
    True
    """
    return _hash(options)


def hash_speed(speed: Speed) -> str:
    """Hash of every constant of a card's speed."""
    return _hash(speed.model_dump())


def versions() -> dict[str, str]:
    """Versions of autotune and of the libraries whose code is traced, where they are installed. None is imported."""
    found = {}
    for name, distribution in _DISTRIBUTIONS.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found


def other_versions(made: Mapping[str, str]) -> str:
    """What has another major or minor version here than where something was made, and may run other code; empty if nothing.

    Patch versions, and those of other libraries, make no difference. What is not known on either side is not compared.
    """
    here = versions()
    common = [name for name in _DECISIVE if name in made and name in here]
    other = [name for name in common if made[name].split(".")[:2] != here[name].split(".")[:2]]
    return ", ".join(f"{name} {made[name]} (here {here[name]})" for name in other)


def slug(text: str) -> str:
    """A name that is safe as a file or folder name everywhere.

    >>> slug("NVIDIA GeForce RTX 3060 12GB")
    'nvidia-geforce-rtx-3060-12gb'
    """
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")[:_SLUG_LENGTH].rstrip("-") or "unnamed"


def _hash(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:16]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=_canonical)
    raise TypeError(
        f"{type(value).__name__} {value!r} cannot be part of a profile's key; "
        "numbers, strings, None, and lists, sets and mappings of them can"
    )
