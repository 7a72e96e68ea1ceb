"""Precisions in which the components of a folder run together, where not all of them say theirs.

A pipeline hands tensors from one component to the next; whether it casts them on the way is its class's own affair. Which mixes
run is known from the zoo's pipelines of that class, each of which was traced in them; of other classes nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from autotune.records.halves import DtypeName
from autotune.zoo.precisions import common
from autotune.zoo.recipes import recipes

__all__ = ["agreed"]


def agreed(pipeline_class: str, stated: Mapping[str, DtypeName | None]) -> dict[str, DtypeName]:
    """A precision for each component: the stated ones where they run together, else one for all.

    Args:
        pipeline_class: the pipeline's class in diffusers.
        stated: what each component's files or configuration say; None where they say nothing.

    >>> agreed("WanPipeline", {"transformer": None, "vae": "float32", "text_encoder": "bfloat16"})
    {'transformer': 'bfloat16', 'vae': 'float32', 'text_encoder': 'bfloat16'}
    >>> agreed("UnknownPipeline", {"transformer": None, "vae": "float32", "text_encoder": "bfloat16"})
    {'transformer': 'bfloat16', 'vae': 'bfloat16', 'text_encoder': 'bfloat16'}
    """
    said = {name: dtype for name, dtype in stated.items() if dtype is not None}
    if not said:
        return dict.fromkeys(stated, "float32")  # the libraries' own default
    level = dict.fromkeys(stated, common(set(said.values())))
    mixes = _known_mixes(pipeline_class, list(stated))
    return next((mix for mix in (*mixes, level) if all(mix[name] == dtype for name, dtype in said.items())), level)


def _known_mixes(pipeline_class: str, components: list[str]) -> Iterator[dict[str, DtypeName]]:
    for recipe in recipes().values():
        if recipe.pipeline_class != pipeline_class:
            continue
        for load in recipe.loads:
            known = recipe.precisions(load)
            if known.keys() >= set(components):
                yield {name: known[name] for name in components}
