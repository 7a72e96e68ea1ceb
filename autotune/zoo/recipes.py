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

from autotune.errors import PipelineError
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
    "require_pipeline",
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
    """Its class in transformers; a processor's where the pipeline takes one."""
    model_max_length: int | None = None
    """Tokens to which prompts are padded and cut; None where the pipeline says so by itself."""
    pad_token: str | None = None
    """The padding token, where it is not the class's own."""


class Defaults(Record):
    """What a call does when it is given a prompt and nothing else."""

    height: int | None = None
    """Pixels; None where other inputs decide."""
    width: int | None = None
    """Pixels; None where other inputs decide."""
    frames: int | None = None
    """Frames of a video; None for images."""
    steps: int
    """Denoising steps."""
    guidance_scale: float | None = None
    """As in the signature of the pipeline's call; None where it has none."""

    @property
    def guidance(self) -> bool | None:
        """Whether `guidance_scale` is above 1, as in `Workload.guidance`."""
        return None if self.guidance_scale is None else self.guidance_scale > 1


class Recipe(Record):
    """A whole pipeline, or networks that are published by themselves to be put into one."""

    name: str
    """The zoo name."""
    hub_id: str
    """Where the model is published."""
    aliases: tuple[str, ...] = ()
    """Other names for it: short ones, and ids under which it was published before."""
    pipeline_class: str | None = None
    """Its class in diffusers; None where it is no pipeline by itself."""
    components: tuple[ComponentRecipe, ...]
    """Its networks."""
    scheduler: SchedulerRecipe | None = None
    """Its scheduler."""
    tokenizers: tuple[TokenizerRecipe, ...] = ()
    """Its tokenizers."""
    image_processors: dict[str, str] = {}
    """Image processors with the defaults of their transformers class: argument of the constructor to class."""
    init_arguments: dict[str, bool] = {}
    """Switches of the pipeline's constructor, as in its published `model_index.json`."""
    defaults: Defaults | None = None
    """The default call."""

    @property
    def source_key(self) -> str:
        """Hash of what is built: the same under every name of the model."""
        no_video = {"frames"} if self.defaults is not None and self.defaults.frames is None else set()
        names: dict[str, Any] = dict.fromkeys(("name", "hub_id", "aliases"), True)
        return content_key(self.model_dump(mode="json", exclude={**names, "defaults": no_video}))

    def component(self, name: str) -> ComponentRecipe:
        """The network of that name.

        Raises:
            PipelineError: the model has no such network.
        """
        for part in self.components:
            if part.name == name:
                return part
        raise PipelineError(f"{self.name} has no {name}; it has {', '.join(part.name for part in self.components)}")


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
    """The zoo names of pipelines, sorted.

    >>> names()[:2]
    ['allegro', 'animatediff-v1-5-2']
    """
    return [name for name, recipe in recipes().items() if recipe.pipeline_class is not None]


def find(name: str) -> Recipe | None:
    """The pipeline of a zoo name, alias or hub id, whatever its case; None if the zoo has no such model.

    Raises:
        PipelineError: the model is no pipeline by itself.

    >>> find("sdxl").hub_id, find("Black-Forest-Labs/FLUX.1-dev").name, find("sd2")
    ('stabilityai/stable-diffusion-xl-base-1.0', 'flux1-dev', None)
    """
    wanted = name.strip().casefold()
    for recipe in recipes().values():
        if wanted in {known.casefold() for known in (recipe.name, recipe.hub_id, *recipe.aliases)}:
            require_pipeline(recipe)
            return recipe
    return None


def require_pipeline(recipe: Recipe) -> None:
    """Refuses a model that is published without a pipeline.

    Raises:
        PipelineError: says what it is instead.

    >>> require_pipeline(recipes()["taesd"])
    Traceback (most recent call last):
    autotune.errors.PipelineError: taesd is a vae (AutoencoderTiny) and no pipeline; load a pipeline and set its vae
    """
    if recipe.pipeline_class is None:
        parts = ", ".join(part.name for part in recipe.components)
        classes = ", ".join(part.class_name for part in recipe.components)
        raise PipelineError(
            f"{recipe.name} is a {parts} ({classes}) and no pipeline; load a pipeline and set its {parts}"
        )
