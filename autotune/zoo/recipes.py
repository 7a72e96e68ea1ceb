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
from autotune.records.halves import DtypeName, HalfPrecision

__all__ = [
    "ComponentRecipe",
    "Defaults",
    "DtypeName",
    "IpAdapter",
    "PlainRecipe",
    "Precisions",
    "Recipe",
    "TokenizerRecipe",
    "content_key",
    "find",
    "names",
    "recipes",
    "require_pipeline",
]

Precisions = dict[str, DtypeName]
"""Precision by component, "default" for those that are not named: the form of diffusers' own `torch_dtype` argument."""
Scalar = bool | int | float | str


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
    init_arguments: dict[str, bool] = {}
    """What its constructor is given beside the configuration."""


class PlainRecipe(Record):
    """What is no network: a scheduler or a guider of diffusers, an image processor of transformers."""

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
    """The call that the model's card or documentation recommends."""

    height: int | None = None
    """Pixels: of the result, or of the input image where the pipeline takes no `height`; None where there is no image."""
    width: int | None = None
    """Pixels, as `height`."""
    frames: int | None = None
    """Frames of a video (`num_frames`); None for images."""
    steps: int
    """Denoising steps."""
    guidance_scale: float | None = None
    """The argument of that name; None where the pipeline's call has none or is left at None."""
    arguments: dict[str, Scalar] = {}
    """Other arguments of the pipeline's call by their own names, for example `true_cfg_scale`."""
    source: str
    """Where that call is written."""
    confirmed: bool
    """Whether it was read there; else it is from memory."""

    @property
    def guidance(self) -> bool | None:
        """Whether `guidance_scale` is above 1, as in `Workload.guidance`."""
        return None if self.guidance_scale is None else self.guidance_scale > 1


class IpAdapter(Record):
    """What an IP-Adapter adds to a pipeline beside its image encoder and its image projection."""

    base: str
    """Zoo name of the model that it is for."""
    subfolder: str
    """Where its file lies in the repository."""
    weight_name: str
    """Its file."""
    attention_parameters: int
    """Parameters of the keys and values that it adds to every cross-attention."""
    parameters: int
    """Parameters of the whole file."""


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
    modular_class: str | None = None
    """Its modular pipeline in diffusers, where that is all there is."""
    components: tuple[ComponentRecipe, ...]
    """Its networks."""
    scheduler: PlainRecipe | None = None
    """Its scheduler."""
    plain: dict[str, PlainRecipe] = {}
    """Further objects without weights: argument of the constructor to what is made for it."""
    tokenizers: tuple[TokenizerRecipe, ...] = ()
    """Its tokenizers."""
    image_processors: dict[str, str | PlainRecipe] = {}
    """Image processors of transformers: argument of the constructor to class, with arguments where those are not its defaults."""
    init_arguments: dict[str, Scalar | tuple[Scalar, ...]] = {}
    """Switches of the pipeline's constructor, as in its published `model_index.json`."""
    requires: tuple[str, ...] = ()
    """Packages that its classes need and diffusers does not bring."""
    ip_adapter: IpAdapter | None = None
    """What it adds, if it is an IP-Adapter."""
    defaults: Defaults | None = None
    """The recommended call."""
    precision: HalfPrecision | None = None
    """What is known about it in half precision."""
    published_runs: bool = True
    """Whether its components run together in the precisions they are published in."""

    @property
    def source_key(self) -> str:
        """Hash of what is built by default: the same under every name of the model, whatever is known about its use."""
        described = {"name", "hub_id", "aliases", "defaults", "precision", "published_runs", "requires"}
        content = self.model_dump(mode="json", exclude=described, exclude_defaults=True)
        return content_key({**content, "as_loaded": self.as_loaded})

    @property
    def published(self) -> Precisions:
        """The precisions of the published files, the commonest as "default"."""
        stated = [part.dtype for part in self.components]
        default = max(stated, key=stated.count)
        return {"default": default, **{part.name: part.dtype for part in self.components if part.dtype != default}}

    @property
    def as_loaded(self) -> Precisions:
        """What is built where nothing else is said: the published precision, if it is one for all and documented use is too."""
        return self.published if self.precision is None or self._is_plain else self.loads[0]

    @property
    def loads(self) -> tuple[Precisions, ...]:
        """The precisions that it can be loaded in and that run: documented use in half precision, as published, float32.

        >>> recipes()["wan2.1-t2v-1.3b"].loads[0]
        {'default': 'bfloat16', 'vae': 'float32'}
        """
        wanted: list[Precisions] = [self.published] if self.published_runs else []
        if self.precision is not None:
            wanted.insert(0, self.precision.documented)
        wanted.append({"default": "float32"})
        kept: list[Precisions] = []
        for one in wanted:
            if all(self.precisions(one) != self.precisions(other) for other in kept):
                kept.append(one)
        return tuple(kept)

    @property
    def _is_plain(self) -> bool:
        return len(self.published) == 1 and self.precision is not None and len(self.precision.documented) == 1

    def precisions(self, wanted: Mapping[str, DtypeName]) -> Precisions:
        """The precision of each component by name; what is neither named nor covered by "default" is as published."""
        return {part.name: wanted.get(part.name, wanted.get("default", part.dtype)) for part in self.components}

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
