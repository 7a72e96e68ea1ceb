"""From what a person types to a pipeline on the meta device: a zoo name, a folder of configurations, or a hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from autotune.errors import PipelineError
from autotune.zoo.names import hub_name
from autotune.zoo.precisions import Wanted
from autotune.zoo.recipe import Recipe, content_key
from autotune.zoo.recipes import find, matching, nearest_to

__all__ = ["Located", "locate"]

# Members of a family that a message names.
_NAMED = 6


class Located(NamedTuple):
    """A model that was found and built without weights."""

    pipe: Any
    name: str
    source_key: str
    recipe: Recipe | None
    """The published model that it is, or whose denoisers it has."""


def locate(model: str | Path, dtype: Wanted | None = None) -> Located:
    """Builds the model on the meta device.

    Args:
        model: a zoo name, a folder, a hub id or its address.
        dtype: the precision that it is loaded in, or precisions by component with "default" for the others; what neither
            names is as it is built by default.

    Raises:
        PipelineError: neither a zoo name nor a folder nor a hub id that can be reached, or a component to load that the model
            does not have; says what would work.

    >>> locate("sd15").pipe.unet.device.type, locate("sd15", {"vae": "fp16"}).pipe.vae.dtype
    ('meta', torch.float16)
    """
    text = str(model)
    recipe = find(text)
    if recipe is not None:
        from autotune.zoo.build import build

        return Located(build(recipe, dtype=dtype), recipe.name, _key(recipe.source_key, dtype), recipe)
    if _is_folder(text):
        return _folder(Path(text), Path(text).resolve().name, dtype)
    if not text.startswith((".", "/", "~")) and (on_hub := hub_name(text)) is not None:
        from autotune.zoo.hub import download

        return _folder(download(on_hub.hub_id, revision=on_hub.revision), on_hub.hub_id, dtype)
    raise PipelineError(_unknown(shortened(text)))


def _unknown(shown: str) -> str:
    family = matching(shown)
    if len(family) > 1:
        more = f" and {len(family) - _NAMED} more" if len(family) > _NAMED else ""
        return f"{shown!r} is several models; name one of {', '.join(one.name for one in family[:_NAMED])}{more}"
    close = ", ".join(nearest_to(shown))
    return (
        f"no model {shown!r}: it is no folder here and no name in the zoo; nearest: {close}; "
        "a hub id has the form owner/name"
    )


def shortened(text: str) -> str:
    """At most 80 characters, for messages."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):  # too long for a name, or with a zero byte in it
        return False


def _folder(path: Path, name: str, dtype: Wanted | None) -> Located:
    from autotune.zoo.folder import build_folder
    from autotune.zoo.precisions import chosen
    from autotune.zoo.recognise import known_as
    from autotune.zoo.sources import networks, read, source_key

    sources = read(path)
    asked = chosen(dtype, networks(sources), model=f"'{path}'")
    pipe = build_folder(sources, dtype={**networks(sources), **asked} if "default" not in asked else asked)
    parts = {
        part: (type(net).__name__, sum(weight.numel() for weight in net.parameters()))
        for part, net in pipe.components.items()
        if hasattr(net, "parameters")
    }
    return Located(pipe, name, _key(source_key(sources), dtype), known_as(name, parts))


def _key(source_key: str, dtype: Wanted | None) -> str:
    """Another precision is another pipeline."""
    return source_key if dtype is None else content_key({"source": source_key, "dtype": dtype})
