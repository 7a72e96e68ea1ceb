"""Which published model a loaded pipeline is, or was made from: what is known of that model is then known of it."""

from __future__ import annotations

from collections.abc import Mapping

from autotune.records.model import role_named
from autotune.zoo.recipe import Recipe
from autotune.zoo.recipes import BEST_KNOWN, pipelines

__all__ = ["known_as"]

Parts = Mapping[str, tuple[str, int]]
"""Class and number of parameters of each network by name."""


def known_as(hub_id: str | None, parts: Parts) -> Recipe | None:
    """The model whose denoisers these are, by class and number of parameters; None where there is none.

    The model of that hub id is preferred, and then only the classes have to agree: adapters add parameters. Of models with
    equal denoisers it is the one with the most other networks in common, then the best known.

    Args:
        hub_id: what the pipeline calls itself (`name_or_path`), if anything.
        parts: its networks.

    >>> known_as(None, {"transformer": ("FluxTransformer2DModel", 11901408320)}).name
    'flux1-dev'
    """
    denoisers = {name: part for name, part in parts.items() if role_named(name) == "denoiser"}
    if not denoisers:
        return None
    place = {name: rank for rank, name in enumerate(BEST_KNOWN)}
    found: list[tuple[tuple[bool, int, int], Recipe]] = []
    for recipe in pipelines():
        own = {part.name: (part.class_name, part.parameters) for part in recipe.components}
        named = hub_id is not None and recipe.is_called(hub_id)
        if all(
            own.get(name) == part or (named and own.get(name, ("",))[0] == part[0]) for name, part in denoisers.items()
        ):
            equal = sum(own.get(name) == part for name, part in parts.items())
            found.append(((not named, -equal, place.get(recipe.name, len(place))), recipe))
    return min(found, key=lambda one: one[0])[1] if found else None
