"""Profiles as files: looked for in several folders, written to one.

A profile lies at `<folder>/<gpu>/<model>--<workload>.json`. Names are labels for people: the key inside decides.

- A file that is no profile is a miss, with one warning; it stays as it is, also when something is saved.
- A profile counts only where autotune, torch and diffusers have the major and minor version that made it, because
  another minor version may run other code; otherwise it is a miss, which is logged as info. Patch versions, and the
  versions of the other libraries, make no difference. A version that is not known on either side is not compared.
- Only files that mention the key's text are parsed. A file of another key that is broken in the middle is therefore
  noticed when its own key is asked for; one that is cut short or not ours at all, whenever its folder is looked in.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

from pydantic import ValidationError

from autotune.records.profile import SCHEMA_VERSION, Profile, ProfileKey
from autotune.store import files
from autotune.store.key import other_versions, slug
from autotune.units import MB

__all__ = ["ProfileStore"]

_log = logging.getLogger("autotune")
_LARGEST_BYTES = 16 * MB
_LOCK_TIMEOUT_S = 10.0


class ProfileStore:
    """Finds profiles in `directories`, the first one first, and saves them in `write_to`.

    >>> from pathlib import Path
    >>> ProfileStore([Path("no-such-folder")], write_to=Path("no-such-folder")).entries()
    []
    """

    def __init__(self, directories: Sequence[Path], write_to: Path) -> None:
        self._directories = tuple(directories)
        self._write_to = write_to
        self._told: set[Path] = set()

    def find(self, key: ProfileKey) -> Profile | None:
        """The profile of that key, or None."""
        return self._first(key.gpu, key.structural, lambda profile: profile.key == key)

    def find_alias(self, source_key: str, gpu_slug: str, workload_hash: str, options_hash: str) -> Profile | None:
        """The profile of a model that is known by its source key only, so that nothing need be built."""

        def wanted(profile: Profile) -> bool:
            key = profile.key
            rest = (key.gpu, key.workload, key.options)
            return source_key in profile.aliases and rest == (gpu_slug, workload_hash, options_hash)

        return self._first(gpu_slug, source_key, wanted)

    def entries(self) -> list[tuple[Path, Profile]]:
        """All profiles with their files, those of other library versions too."""
        paths = [path for folder in self._directories for path in sorted(folder.glob("*/[!.]*.json"))]
        return [(path, profile) for path in paths if (profile := self._load(path)) is not None]

    def save(self, profile: Profile, *, label: str) -> Path | None:
        """Writes a profile in place of the one with the same key, whose aliases are kept.

        `label` names the model in a new file's name. Where the folder cannot be written to: None, with one warning.
        """
        from filelock import FileLock

        folder = self._write_to / slug(profile.key.gpu)
        base = f"{slug(label)}--{slug(profile.front.workload.slug)}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._write_to / ".lock", timeout=_LOCK_TIMEOUT_S):
                return self._put(folder, base, profile)
        except (OSError, NotImplementedError) as error:
            self._tell(
                logging.WARNING,
                self._write_to,
                f"profile of {label} not saved in {self._write_to}: {files.reason(error, what='profile')}; "
                "the next call searches again. Name a folder that can be written to with profiles=...",
            )
            return None

    def _first(self, gpu: str, text: str, wanted: Callable[[Profile], bool]) -> Profile | None:
        for folder in self._directories:
            for path, profile in self._search(folder / slug(gpu), text):
                if wanted(profile) and self._same_versions(path, profile):
                    return profile
        return None

    def _search(self, folder: Path, text: str) -> Iterator[tuple[Path, Profile]]:
        for path in sorted(folder.glob("[!.]*.json")):
            profile = self._load(path, text)
            if profile is not None:
                yield path, profile

    def _load(self, path: Path, text: str | None = None) -> Profile | None:
        """The profile in that file. One that looks whole and does not mention `text` is skipped unparsed."""
        try:
            data = files.read(path, most_bytes=_LARGEST_BYTES, what="a profile")
            if text is not None and _quoted(text) not in data and _looks_whole(data):
                return None
            return Profile.model_validate_json(data)
        except FileNotFoundError:  # removed since the folder was listed
            return None
        except (OSError, ValidationError) as error:
            self._tell(
                logging.WARNING,
                path,
                f"{path} is ignored: {files.reason(error, what='profile')}. It is kept as it is; "
                "remove it, or write it anew with `autotune profiles build`",
            )
            return None

    def _same_versions(self, path: Path, profile: Profile) -> bool:
        other = other_versions(profile.versions)
        if other:
            self._tell(logging.INFO, path, f"{path} was made with {other}: searching anew")
        return not other

    def _put(self, folder: Path, base: str, profile: Profile) -> Path:
        same_key = ((path, old) for path, old in self._search(folder, profile.key.structural) if old.key == profile.key)
        path, old = next(same_key, (None, None))
        aliases = sorted({*profile.aliases, *(old.aliases if old else ())})
        path = path or next(path for path in _names(folder, base, profile.key) if not os.path.lexists(path))

        files.write(path, _text(profile.model_copy(update={"aliases": tuple(aliases)})))
        return path

    def _tell(self, level: int, path: Path, message: str) -> None:
        if path not in self._told:
            self._told.add(path)
            _log.log(level, "%s", message)


def _names(folder: Path, base: str, key: ProfileKey) -> Iterator[Path]:
    yield folder / f"{base}.json"
    yield folder / f"{base}--{slug(key.options)[:8]}.json"
    for number in count(2):
        yield folder / f"{base}--{slug(key.options)[:8]}-{number}.json"


def _text(profile: Profile) -> bytes:
    text = json.dumps(profile.model_dump(mode="json"), indent=2, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()


def _looks_whole(data: bytes) -> bool:
    version = f'"schema_version": {SCHEMA_VERSION},'.encode()
    return data.startswith(b"{\n") and data.endswith(b"\n}\n") and version in data


def _quoted(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()
