"""What the zoo can add to a model: ControlNets and IP-Adapters by name. Needs no torch; `additions.py` builds them."""

from __future__ import annotations

from pathlib import Path

from autotune.errors import PipelineError, nearest
from autotune.zoo.recipes import Recipe, recipes

__all__ = ["CONFIG", "adapter_named", "all_adapters", "all_controlnets", "controlnet_named"]

CONFIG = "config.json"
"""What a ControlNet's folder holds."""


def all_controlnets() -> list[Recipe]:
    """The recipes that have a ControlNet, by name."""
    return [recipe for recipe in recipes().values() if any(part.name == "controlnet" for part in recipe.components)]


def all_adapters() -> list[Recipe]:
    """The recipes that are IP-Adapters, by name."""
    return [recipe for recipe in recipes().values() if recipe.ip_adapter is not None]


def controlnet_named(name: str) -> Recipe | Path:
    """The zoo's ControlNet of that name, or the folder of one.

    Raises:
        PipelineError: it is neither.

    >>> controlnet_named("controlnet-sdxl-canny").hub_id
    'diffusers/controlnet-canny-sdxl-1.0'
    """
    known = all_controlnets()
    for recipe in known:
        if recipe.is_called(name):
            return recipe
    folder = Path(name)
    if _is_file(folder / CONFIG):
        return folder
    raise PipelineError(
        f"no ControlNet {name!r}: it is no folder here that holds {CONFIG}, and no name in the zoo; "
        f"nearest: {nearest(name, [recipe.name for recipe in known])}"
    )


def adapter_named(name: str) -> Recipe:
    """The zoo's IP-Adapter of that name.

    Raises:
        PipelineError: there is none.
    """
    known = all_adapters()
    for recipe in known:
        if recipe.is_called(name):
            return recipe
    raise PipelineError(f"no IP-Adapter {name!r}; nearest: {nearest(name, [recipe.name for recipe in known])}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a null byte in it
        return False
