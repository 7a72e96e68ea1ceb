"""Models by parts of their names."""

from __future__ import annotations

from autotune.zoo.recipes import Recipe, recipes

__all__ = ["matching"]


def matching(word: str) -> list[Recipe]:
    """The pipelines with this in one of their names, in the order of their names; all of them for an empty word.

    >>> [recipe.name for recipe in matching("schnell")]
    ['flux1-schnell']
    """
    wanted = word.strip().casefold()
    return [
        recipe
        for recipe in recipes().values()
        if recipe.pipeline_class is not None
        and any(wanted in name.casefold() for name in (recipe.name, recipe.hub_id, *recipe.aliases))
    ]
