"""From what a person types to a pipeline on the meta device: a zoo name, a folder of configurations, or a hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from autotune.errors import PipelineError, nearest
from autotune.zoo.recipes import find, names

__all__ = ["Located", "locate"]


class Located(NamedTuple):
    """A model that was found and built without weights."""

    pipe: Any
    name: str
    source_key: str


def locate(model: str | Path, *, dtype: Any = None) -> Located:
    """Builds the model on the meta device, in the precision it is published in or else in that one.

    Raises:
        PipelineError: neither a zoo name nor a folder nor a hub id that can be reached; says what would work.

    >>> locate("sd15").pipe.unet.device.type
    'meta'
    """
    text = str(model)
    recipe = find(text)
    if recipe is not None:
        from autotune.zoo.build import build

        return Located(build(recipe, dtype=dtype), recipe.name, recipe.source_key)
    if _is_folder(text):
        return _folder(Path(text), Path(text).resolve().name, dtype)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        from autotune.zoo.hub import download

        return _folder(download(text), text, dtype)
    shown = shortened(text)
    raise PipelineError(
        f"no model {shown!r}: it is no folder here and no name in the zoo; nearest: {nearest(shown, names())}; "
        "a hub id has the form owner/name"
    )


def shortened(text: str) -> str:
    """At most 80 characters, for messages."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:  # too long for a name
        return False


def _folder(path: Path, name: str, dtype: Any) -> Located:
    from autotune.zoo.build import common
    from autotune.zoo.folder import build_folder, read, source_key

    sources = read(path)
    pipe = build_folder(sources, dtype=dtype)
    stated = {str(part.dtype).removeprefix("torch.") for part in pipe.components.values() if hasattr(part, "dtype")}
    if len(stated) > 1:  # loaded as found, encoders in half precision and the rest in fp32 do not run together
        pipe = build_folder(sources, dtype=common(stated))
    return Located(pipe, name, source_key(sources))
