"""What a model is made of and how it is used, as data: the form of the files in `models/`.

Hyper-parameters are those of the published configuration files, reduced to what differs from the defaults of the installed
classes; parameter counts are those of the published checkpoints, and `build` refuses a pipeline that does not have them. Calls
and precisions are those of model cards and documentation, with their source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

from autotune.errors import PipelineError
from autotune.records.base import Record
from autotune.records.halves import DtypeName, HalfPrecision
from autotune.zoo.names import compact, hub_id_in

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
    """Other arguments of the pipeline's call by their own names, for example `true_cfg_scale`; a picture by its size."""
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
    """Image processors of transformers: argument of the constructor to class, with arguments that differ."""
    init_arguments: dict[str, Scalar | tuple[Scalar, ...]] = {}
    """Switches of the pipeline's constructor, as in its published `model_index.json`."""
    vae_tiling: bool = False
    """Whether its documented use decodes in tiles, as its VAE does not run without them."""
    requires: tuple[str, ...] = ()
    """Packages that its classes need and diffusers does not bring."""
    ip_adapter: IpAdapter | None = None
    """What it adds, if it is an IP-Adapter."""
    defaults: Defaults | None = None
    """The recommended call."""
    precision: HalfPrecision | None = None
    """What is known about it in half precision."""
    published_runs: bool = True
    """Whether its components run together in the precisions they are published in: traced, or read in the pipeline's code."""

    @property
    def known_names(self) -> tuple[str, ...]:
        """Everything it is called: zoo name, hub id, the id without its owner, aliases."""
        bare = self.hub_id.partition("/")[2]
        taken = () if self.ip_adapter is not None else (self.hub_id, bare)  # one repository has all of those
        return tuple(dict.fromkeys((self.name, *taken, *self.aliases)))

    def is_called(self, name: str) -> bool:
        """Whether it has this name, however it is spelled, or this address on the hub."""
        wanted = compact(hub_id_in(name) or name)
        return any(wanted == compact(known) for known in self.known_names)

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

        >>> from autotune.zoo.recipes import recipes
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
