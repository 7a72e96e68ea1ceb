"""Which models are known, and by which names. Knows no torch: a recipe is data.

A recipe is one JSON file in `models/`; adding a model is adding its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib import resources

from autotune.errors import PipelineError
from autotune.zoo.names import has_words, words_of
from autotune.zoo.recipe import Recipe

__all__ = [
    "BEST_KNOWN",
    "Recipe",
    "find",
    "matching",
    "names",
    "nearest_to",
    "pipelines",
    "recipes",
    "require_pipeline",
]

# Our own order, by how often people ask about them.
BEST_KNOWN = (
    "flux1-dev",
    "sdxl-base-1.0",
    "sd15",
    "z-image-turbo",
    "qwen-image",
    "wan2.2-ti2v-5b",
    "wan2.2-t2v-a14b",
    "wan2.2-i2v-a14b",
    "wan2.1-t2v-1.3b",
    "wan2.1-t2v-14b",
    "flux1-schnell",
    "flux1-kontext-dev",
    "flux2-klein-4b",
    "flux2-dev",
    "sd3.5-large",
    "sd3.5-medium",
    "sd3-medium",
    "sdxl-turbo",
    "qwen-image-edit-2511",
    "ltx-2",
    "ltx-video-0.9.7-13b",
    "hunyuanvideo-1.5-480p-t2v",
    "hunyuanvideo",
    "cogvideox-5b",
    "sana-1600m-1024",
)


# How alike two spellings are that a slip of the keyboard explains (difflib's own default).
_CLOSE = 0.6


@cache
def recipes() -> Mapping[str, Recipe]:
    """Every recipe by zoo name, read from the package's data once."""
    files = (
        file for file in resources.files("autotune.zoo").joinpath("models").iterdir() if file.name.endswith(".json")
    )
    read = (Recipe.model_validate_json(file.read_bytes()) for file in files)
    return {recipe.name: recipe for recipe in sorted(read, key=lambda recipe: recipe.name)}


def pipelines() -> list[Recipe]:
    """Those that are pipelines by themselves, by name."""
    return [recipe for recipe in recipes().values() if recipe.pipeline_class is not None]


def names() -> list[str]:
    """The zoo names of pipelines, sorted.

    >>> names()[:2]
    ['allegro', 'animatediff-v1-5-2']
    """
    return [recipe.name for recipe in pipelines()]


def find(name: str) -> Recipe | None:
    """The pipeline of a zoo name, alias, hub id or address on the hub; None if the zoo has no such model.

    Case, spaces, dashes and dots do not count. A word that only names a family is no name of a model (`matching`).

    Raises:
        PipelineError: the model is no pipeline by itself.

    >>> find("sdxl").hub_id, find("FLUX.1 dev").name, find("sd2")
    ('stabilityai/stable-diffusion-xl-base-1.0', 'flux1-dev', None)
    """
    for recipe in recipes().values():
        if recipe.is_called(name):
            require_pipeline(recipe)
            return recipe
    return None


def matching(word: str | None = None) -> list[Recipe]:
    """The pipelines of which a name has all these words, the best known first; all of them, by name, without a word.

    >>> [recipe.name for recipe in matching("flux 2")], matching("no such thing")
    (['flux2-klein-4b', 'flux2-dev', 'flux2-klein-9b'], [])
    """
    if word is None or not word.strip():
        return pipelines()
    return _best_first([recipe for recipe in pipelines() if any(has_words(one, word) for one in recipe.known_names)])


def nearest_to(name: str, count: int = 3) -> list[str]:
    """The names nearest to one that means no model: of its family, then by letters, then by any of its words.

    A family is all with the name's first word; of those with most of its words, the best known go first.

    >>> nearest_to("flux pro"), nearest_to("sdlx"), nearest_to("hunyan video")[0]
    (['flux1-dev', 'flux1-schnell', 'flux1-kontext-dev'], ['sdxl-base-1.0', 'svd-xt'], 'hunyuanvideo')
    """
    words = words_of(name)
    by_words = {
        recipe.name: [any(has_words(one, word) for one in recipe.known_names) for word in words]
        for recipe in _best_first(pipelines())
    }
    family = {model: hits for model, hits in by_words.items() if hits[:1] == [True]}
    nearest = _most_hit(family) or _by_letters(name) or _most_hit(by_words) or BEST_KNOWN
    return list(nearest[:count])


def _most_hit(by_words: Mapping[str, list[bool]]) -> list[str]:
    most = max(map(sum, by_words.values()), default=0)
    return [model for model, hits in by_words.items() if sum(hits) == most > 0]


def _by_letters(name: str) -> list[str]:
    spelled = {one.casefold(): recipe.name for recipe in pipelines() for one in recipe.known_names}
    close = get_close_matches(name.casefold(), spelled, n=len(spelled), cutoff=_CLOSE)
    return list(dict.fromkeys(spelled[one] for one in close))


def _best_first(known: list[Recipe]) -> list[Recipe]:
    place = {name: rank for rank, name in enumerate(BEST_KNOWN)}
    return sorted(known, key=lambda recipe: place.get(recipe.name, len(place)))


def require_pipeline(recipe: Recipe) -> None:
    """Refuses a model that is published without a pipeline.

    Raises:
        PipelineError: says what it is instead.

    >>> require_pipeline(recipes()["taesd"])
    Traceback (most recent call last):
    autotune.errors.PipelineError: taesd is a vae (AutoencoderTiny) and no pipeline; load a pipeline and set its vae
    """
    if recipe.pipeline_class is not None:
        return
    if recipe.ip_adapter is not None:
        raise PipelineError(
            f"{recipe.name} is an IP-Adapter and no pipeline; load {recipe.ip_adapter.base} and add it with load_ip_adapter"
        )
    if recipe.modular_class is not None:
        raise PipelineError(
            f"{recipe.name} is published as a modular pipeline ({recipe.modular_class}) only, which cannot be planned for yet"
        )
    parts = ", ".join(part.name for part in recipe.components)
    classes = ", ".join(part.class_name for part in recipe.components)
    raise PipelineError(f"{recipe.name} is a {parts} ({classes}) and no pipeline; load a pipeline and set its {parts}")
