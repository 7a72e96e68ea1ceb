"""A pipeline from a local folder that holds only its JSON configuration files (`sources.py`).

It is what `from_pretrained` would make of the same folder with its weights, each component in the precision of its files, where
they are there, or that its configuration states.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.errors import PipelineError, nearest
from autotune.upstream.port import optional_of
from autotune.zoo import untrusted
from autotune.zoo.build import network, quiet
from autotune.zoo.precisions import Wanted, chosen
from autotune.zoo.recipe import DtypeName
from autotune.zoo.sources import INDEX, TOKENIZER, Sources, components_of, described_by, stated_by
from autotune.zoo.tokenizers import stand_in

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["build_folder"]

# A set of files of which a tokenizer can be loaded.
_VOCABULARIES = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"spiece.model"}, {"tokenizer.model"}, {"vocab.txt"})
# Renamed in transformers 5; indexes written before still say the old name, and diffusers reads them.
_RENAMED = {"CLIPFeatureExtractor": "CLIPImageProcessor"}
# Larger lengths in tokenizer_config.json mean "none" (transformers writes 10^30).
_LONGEST_PROMPT = 10**5


def build_folder(sources: Sources, *, dtype: Wanted | None = None) -> DiffusionPipeline:
    """The pipeline on the meta device, as `from_pretrained(path, dtype=dtype)` would load it with its weights.

    Args:
        sources: what `read` found.
        dtype: precision of all networks, or by component with "default" for the others; what neither names is in the
            precision of its files, or that its configuration states, or float32, the libraries' own default.

    Raises:
        PipelineError: a component to load that the pipeline does not have, a class that the installed libraries do not have, a
            configuration that does not fit its class, a component that the pipeline needs and the folder does not name, or a
            tokenizer that needs its files.
    """
    with quiet():
        pipeline_class = _pipeline_class(sources.index["_class_name"])
        parameters = inspect.signature(pipeline_class.__init__).parameters.values()
        required = {parameter.name for parameter in parameters if parameter.default is parameter.empty} - {"self"}
        optional = optional_of(pipeline_class)
        switches = {parameter.name for parameter in parameters} - required - optional - {"self"}
        components = {name: of for name, of in components_of(sources.index).items() if name in required | optional}
        missing = sorted(required - optional - set(components))
        if missing:
            raise PipelineError(
                f"{INDEX} names no {', '.join(missing)}, which {pipeline_class.__name__} needs; "
                f"give the folder of a whole pipeline"
            )
        parts: dict[str, Any] = dict.fromkeys(required)
        found = stated_by(sources)
        asked = chosen(dtype, found, model=f"'{sources.path}'")
        wanted = {name: asked.get("default", stated or "float32") for name, stated in found.items()} | asked
        # Tokenizers last: a stand-in is made for the configuration of its text encoder.
        for name, of in sorted(components.items(), key=lambda item: "Tokenizer" in item[1][1]):
            parts[name] = _part(sources, name, of, wanted, parts)
        parts |= {name: sources.index[name] for name in switches & set(sources.index)}
        pipe = pipeline_class(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _pipeline_class(name: str) -> Any:
    import diffusers

    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        close = nearest(name, [known for known in dir(diffusers) if known.endswith("Pipeline")])
        raise PipelineError(
            f"{INDEX}: '_class_name' is '{name}', which is no pipeline class of diffusers {diffusers.__version__}; "
            f"nearest: {close}"
        )
    return found


def _component_class(name: str, library: str, class_name: str) -> Any:
    import diffusers
    import transformers

    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    found = getattr(module or getattr(diffusers.pipelines, library), _RENAMED.get(class_name, class_name), None)
    bases = (
        diffusers.ConfigMixin,  # models and schedulers
        transformers.PreTrainedModel,
        transformers.PreTrainedTokenizerBase,
        transformers.ImageProcessingMixin,
    )
    if not (isinstance(found, type) and issubclass(found, bases)) or issubclass(found, diffusers.DiffusionPipeline):
        version = getattr(module or diffusers, "__version__", "")
        raise PipelineError(
            f"{INDEX}: '{name}' asks for {class_name} of {library}, which is no model, scheduler, tokenizer or image "
            f"processor of the installed version {version}"
        )
    return found


def _part(sources: Sources, name: str, of: tuple[str, str], wanted: dict[str, DtypeName], parts: dict[str, Any]) -> Any:
    import diffusers
    import transformers

    cls = _component_class(name, *of)
    if issubclass(cls, transformers.PreTrainedTokenizerBase):
        return _tokenizer(sources, name, cls, parts)
    file = f"{name}/{described_by(of[1])}"
    config = sources.configs[file]
    try:
        if issubclass(cls, transformers.ImageProcessingMixin):
            return cls.from_dict(config)
        if issubclass(cls, transformers.PreTrainedModel | diffusers.ModelMixin):
            return network(cls, config, dtype=wanted[name])
        return cls.from_config(config)
    except PipelineError:
        raise
    except Exception as error:  # whatever a constructor makes of values it was not written for
        raise PipelineError(f"{file} does not describe a {cls.__name__}: {type(error).__name__}: {error}") from error


def _tokenizer(sources: Sources, name: str, cls: Any, parts: dict[str, Any]) -> Any:
    folder = Path(sources.path)
    files = [file.name for file in (folder / name).iterdir()] if (folder / name).is_dir() else []
    for file in files:
        untrusted.inside(folder, f"{name}/{file}")
    if any(vocabulary <= set(files) for vocabulary in _VOCABULARIES):
        try:
            return cls.from_pretrained(str(folder / name), local_files_only=True)
        except Exception:  # a vocabulary in a format that needs a package which is not here: made up like a missing one
            pass
    encoder = parts.get(name.replace("tokenizer", "text_encoder"))
    if encoder is None:
        raise PipelineError(f"{INDEX}: '{name}' has no text encoder to go with; give the folder of a whole pipeline")
    config = sources.configs.get(f"{name}/{TOKENIZER}", {})
    length, pad = config.get("model_max_length"), config.get("pad_token")
    return stand_in(
        cls.__name__,
        length if isinstance(length, int) and 0 < length <= _LONGEST_PROMPT else None,
        encoder.config,
        pad_token=pad.get("content") if isinstance(pad, dict) else pad,
    )
