"""Which models are known by name, and exactly what each is made of. Knows no torch: a recipe is data.

A recipe is one JSON file in `models/`; adding a model is adding its file. Hyper-parameters are those of the published
configuration files, reduced to what differs from the defaults of the installed classes; parameter counts are those of
the published checkpoints, and `build` refuses a pipeline that does not have them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any, Literal

from autotune.records.base import Record

__all__ = [
    "ComponentRecipe",
    "Defaults",
    "DtypeName",
    "Recipe",
    "SchedulerRecipe",
    "TokenizerRecipe",
    "content_key",
    "find",
    "names",
    "recipes",
]

DtypeName = Literal["float32", "float16", "bfloat16"]


class ComponentRecipe(Record):
    """One neural network."""

    name: str
    """Its argument of the pipeline's constructor, for example "unet"."""
    library: Literal["diffusers", "transformers"]
    """Where its class lives."""
    class_name: str
    """Its class."""
    module: str | None = None
    """Full name of the module that defines the class, where the library does not export it."""
    arguments: dict[str, Any]
    """Configuration values that differ from the class's defaults."""
    parameters: int
    """Number of parameters of the published checkpoint, tied ones once."""
    dtype: DtypeName
    """Precision of the published checkpoint."""


class SchedulerRecipe(Record):
    """The scheduler, always a diffusers class."""

    class_name: str
    """Its class."""
    arguments: dict[str, Any]
    """Configuration values that differ from the class's defaults."""


class TokenizerRecipe(Record):
    """What a stand-in needs to take the place of the published tokenizer."""

    name: str
    """Its argument of the pipeline's constructor; "tokenizer_2" serves "text_encoder_2"."""
    class_name: str
    """Its class in transformers."""
    model_max_length: int
    """Tokens to which prompts are padded and cut."""
    pad_token: str | None = None
    """The padding token, where it is not the class's own."""


class Defaults(Record):
    """What a call does when it is given a prompt and nothing else."""

    height: int
    """Pixels."""
    width: int
    """Pixels."""
    steps: int
    """Denoising steps."""
    guidance_scale: float
    """As in the signature of the pipeline's call."""

    @property
    def guidance(self) -> bool:
        """Whether `guidance_scale` is above 1, as in `Workload.guidance`."""
        return self.guidance_scale > 1


class Recipe(Record):
    """A whole pipeline."""

    name: str
    """The zoo name."""
    hub_id: str
    """Where the model is published."""
    aliases: tuple[str, ...] = ()
    """Other names for it: short ones, and ids under which it was published before."""
    pipeline_class: str
    """Its class in diffusers."""
    components: tuple[ComponentRecipe, ...]
    """Its networks."""
    scheduler: SchedulerRecipe
    """Its scheduler."""
    tokenizers: tuple[TokenizerRecipe, ...]
    """Its tokenizers."""
    image_processors: dict[str, str]
    """Image processors with the defaults of their transformers class: argument of the constructor to class."""
    init_arguments: dict[str, bool]
    """Switches of the pipeline's constructor, as in its published `model_index.json`."""
    defaults: Defaults
    """The default call."""

    @property
    def source_key(self) -> str:
        """Hash of what is built: the same under every name of the model."""
        return content_key(self.model_dump(mode="json", exclude={"name", "hub_id", "aliases"}))


def content_key(content: object) -> str:
    """SHA-256 of the canonical JSON of `content`.

    >>> content_key({"b": 1, "a": 2}) == content_key({"a": 2, "b": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


@cache
def recipes() -> Mapping[str, Recipe]:
    """Every recipe by zoo name, read from the package's data once."""
    files = (
        file for file in resources.files("autotune.zoo").joinpath("models").iterdir() if file.name.endswith(".json")
    )
    read = (Recipe.model_validate_json(file.read_bytes()) for file in files)
    return {recipe.name: recipe for recipe in sorted(read, key=lambda recipe: recipe.name)}


def names() -> list[str]:
    """The zoo names, sorted.

    >>> names()
    ['flux1-dev', 'sd15', 'sdxl-base-1.0']
    """
    return list(recipes())


def find(name: str) -> Recipe | None:
    """The recipe of a zoo name, alias or hub id, whatever its case; None if the zoo has no such model.

    >>> find("sdxl").hub_id, find("Black-Forest-Labs/FLUX.1-dev").name, find("sd2")
    ('stabilityai/stable-diffusion-xl-base-1.0', 'flux1-dev', None)
    """
    wanted = name.strip().casefold()
    for recipe in recipes().values():
        if wanted in {known.casefold() for known in (recipe.name, recipe.hub_id, *recipe.aliases)}:
            return recipe
    return None
