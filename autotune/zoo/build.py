"""From a recipe to a pipeline whose weights have shapes and no storage. Reads no file and no network.

Networks are made by their own constructors on torch's meta device, in the published precision and in evaluation mode,
as `from_pretrained` leaves them. What is no network stays real: scheduler, tokenizers, image processors.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any

from autotune.errors import PipelineError
from autotune.records.halves import DtypeName
from autotune.upstream.port import optional_of
from autotune.zoo.precisions import Wanted, chosen
from autotune.zoo.recipe import ComponentRecipe, PlainRecipe, Recipe
from autotune.zoo.recipes import require_pipeline
from autotune.zoo.tokenizers import stand_in

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

__all__ = ["assemble", "build", "class_of", "component", "network", "quiet"]


def build(recipe: Recipe, *, dtype: Wanted | None = None) -> DiffusionPipeline:
    """The recipe's pipeline on the meta device, silent and without a progress bar.

    Args:
        recipe: what to build.
        dtype: precision of all networks, or by component with "default" for those that are not named (else they are as
            published); None for `Recipe.as_loaded`.

    Raises:
        PipelineError: the model is no pipeline, needs a package that is not installed or has no such component, or the
            installed libraries build a component with another number of parameters.

    >>> from autotune.zoo.recipes import find
    >>> pipe = build(find("sd15"))
    >>> pipe.device.type, pipe.unet.num_parameters()
    ('meta', 859520964)
    """
    require_pipeline(recipe)
    _require_packages(recipe)
    wanted = chosen(dtype, [part.name for part in recipe.components], model=recipe.name) or recipe.as_loaded
    precisions = recipe.precisions(wanted)
    return assemble(recipe, {name: component(recipe, name, dtype=precision) for name, precision in precisions.items()})


def _require_packages(recipe: Recipe) -> None:
    missing = [package for package in recipe.requires if find_spec(package) is None]
    if missing:
        raise PipelineError(
            f"{recipe.name} needs the package {missing[0]}, which is not installed; pip install {' '.join(missing)}"
        )


def assemble(recipe: Recipe, networks: Mapping[str, Any]) -> DiffusionPipeline:
    """The recipe's pipeline around these networks: scheduler, tokenizers and image processors made, the optional left out."""
    with quiet():
        import diffusers
        import transformers

        parts = dict(networks)
        for tokenizer in recipe.tokenizers:
            parts[tokenizer.name] = stand_in(
                tokenizer.class_name,
                tokenizer.model_max_length,
                _encoder_of(tokenizer.name, parts).config,
                pad_token=tokenizer.pad_token,
            )
        for name, made in recipe.image_processors.items():
            described = made if isinstance(made, PlainRecipe) else PlainRecipe(class_name=made, arguments={})
            parts[name] = getattr(transformers, described.class_name)(**described.arguments)
        parts |= {name: _plain(described) for name, described in recipe.plain.items()}
        if recipe.scheduler is not None:
            parts["scheduler"] = _plain(recipe.scheduler)
        pipeline_class = getattr(diffusers, recipe.pipeline_class or "")
        absent = dict.fromkeys(signature(pipeline_class.__init__).parameters.keys() & optional_of(pipeline_class))
        pipe = pipeline_class(**{**absent, **parts}, **recipe.init_arguments)
    if recipe.vae_tiling:
        pipe.vae.enable_tiling()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _encoder_of(tokenizer: str, parts: Mapping[str, Any]) -> Any:
    """The network that reads what this tokenizer writes: "tokenizer_2" is named like its encoder, "pe_tokenizer" after it."""
    names = (tokenizer.replace("tokenizer", "text_encoder"), tokenizer.removesuffix("_tokenizer"), "text_encoder")
    return next(parts[name] for name in (*names, "text_encoder_2") if name in parts)


def _plain(described: PlainRecipe) -> Any:
    import diffusers

    return getattr(diffusers, described.class_name).from_config(deepcopy(described.arguments))


def component(recipe: Recipe, name: str, *, dtype: DtypeName | None = None) -> torch.nn.Module:
    """One of the recipe's networks on the meta device, in that precision or else the published one.

    Raises:
        PipelineError: the model has no such network, or the installed libraries build it with another number of parameters.

    >>> from autotune.zoo.recipes import recipes
    >>> component(recipes()["taesd"], "vae").num_parameters()
    2445063
    """
    with quiet():
        part = recipe.component(name)
        module = network(class_of(part), part.arguments, dtype=dtype or part.dtype, **part.init_arguments)
    found = sum(parameter.numel() for parameter in module.parameters())
    if found != part.parameters:
        version = import_module(part.library).__version__
        raise PipelineError(
            f"{recipe.name} {name}: {part.class_name} should have {part.parameters} parameters, but "
            f"{part.library} {version} builds it with {found}; load the pipeline itself and pass that instead"
        )
    return module


def class_of(part: ComponentRecipe) -> Any:
    """The class of a recipe's network."""
    return getattr(import_module(part.module or part.library), part.class_name)


def network(cls: Any, configuration: Mapping[str, Any], *, dtype: str, **init_arguments: bool) -> torch.nn.Module:
    """A diffusers or transformers model on the meta device, in the precisions `from_pretrained(dtype=...)` gives it."""
    import torch
    from transformers import PreTrainedModel

    values = deepcopy(dict(configuration))  # transformers edits nested configurations in place
    wanted: torch.dtype = getattr(torch, dtype)
    module: torch.nn.Module
    with _default_dtype(wanted), torch.device("meta"):
        if issubclass(cls, PreTrainedModel):
            config = cls.config_class.from_dict(values)
            for part in (config, *(getattr(config, name) for name in config.sub_configs)):
                if part is not None:
                    part.dtype = wanted  # a part that is made from its own configuration takes its type from there
            module = cls(config, **init_arguments)
        elif hasattr(cls, "from_config"):
            module = cls.from_config(values)
        else:  # a part of a network, such as the projection of an IP-Adapter
            module = cls(**values)
    for parameter in _kept_fp32(module, wanted):
        parameter.data = parameter.data.float()
    if any(parameter.device.type != "meta" for parameter in module.parameters()):
        module.to("meta")  # a few classes make parameters from Python numbers, which ignores the default device
    return module.eval()


def _kept_fp32(module: Any, dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """What `from_pretrained` keeps in float32 when it loads in half precision.

    diffusers matches parts of the name, for both half precisions (load_model_dict_into_meta); transformers searches the
    name, one list for float16 and one for both (PreTrainedModel._get_dtype_plan).
    """
    import torch
    from transformers import PreTrainedModel

    if dtype is torch.float32:
        return []
    from autotune.upstream import internals

    patterns = internals.named_in_fp32(module)
    if not isinstance(module, PreTrainedModel):
        return [weight for name, weight in module.named_parameters() if not patterns.isdisjoint(name.split("."))]
    strict = internals.strictly_in_fp32(module)
    kept = [pattern.replace("*", ".*") for pattern in (patterns | strict if dtype is torch.float16 else strict)]
    return [weight for name, weight in module.named_parameters() if any(re.search(one, name) for one in kept)]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Holds back the libraries' advice (a missing torchvision, outdated configurations): no one here can act on it."""
    import diffusers
    import transformers

    # Their import sets these levels, so they are read after it.
    loggers = [logging.getLogger(library.__name__) for library in (diffusers, transformers)]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
