"""A pipeline from a local folder that holds only its JSON configuration files.

`read` checks the files without torch, so that a profile is found before anything is built; `build_folder` makes what
`from_pretrained` would make of the same folder with its weights, each component in the precision of its files, where they
are there, or that its configuration states. `networks` says in which of these the components run together.
"""

from __future__ import annotations

import inspect
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from autotune.errors import PipelineError, nearest
from autotune.records.base import Record
from autotune.zoo import untrusted
from autotune.zoo.agreed import agreed
from autotune.zoo.build import network, quiet
from autotune.zoo.precisions import Wanted, chosen
from autotune.zoo.recipe import DtypeName, content_key
from autotune.zoo.stored import stored_dtype
from autotune.zoo.tokenizers import stand_in

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

__all__ = ["CONFIG_FILES", "INDEX", "Sources", "build_folder", "networks", "read", "source_key"]

INDEX = "model_index.json"
MODEL, SCHEDULER, PROCESSOR = "config.json", "scheduler_config.json", "preprocessor_config.json"
TOKENIZER = "tokenizer_config.json"
CONFIG_FILES = (MODEL, SCHEDULER, PROCESSOR, TOKENIZER)

# A set of files of which a tokenizer can be loaded.
_VOCABULARIES = ({"tokenizer.json"}, {"vocab.json", "merges.txt"}, {"spiece.model"}, {"tokenizer.model"}, {"vocab.txt"})
# Renamed in transformers 5; indexes written before still say the old name, and diffusers reads them.
_RENAMED = {"CLIPFeatureExtractor": "CLIPImageProcessor"}
# Larger lengths in tokenizer_config.json mean "none" (transformers writes 10^30).
_LONGEST_PROMPT = 10**5


class Sources(Record):
    """The configuration of a pipeline as it was found: checked, and nothing built yet."""

    path: str
    """The folder."""
    index: dict[str, Any]
    """`model_index.json`."""
    configs: dict[str, dict[str, Any]]
    """The components' files by relative name, for example "unet/config.json"."""
    stored: dict[str, DtypeName] = {}
    """The precision of the components' weights, of those that are there."""


def source_key(sources: Sources) -> str:
    """Hash of the configuration files and stored precisions as found; needs no torch."""
    return content_key({INDEX: sources.index, **sources.configs, **({"": sources.stored} if sources.stored else {})})


def read(path: str | Path) -> Sources:
    """The configuration files of a pipeline folder, checked; needs no torch.

    Raises:
        PipelineError: no such folder, files missing, or an entry that is refused.

    >>> read("no-such-folder")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    autotune.errors.PipelineError: 'no-such-folder' is not a folder; give one that holds model_index.json and the ...
    """
    folder = Path(path)
    if not folder.is_dir():
        raise PipelineError(f"'{path}' is not a folder; give one that holds {INDEX} and the files it names")
    if not (folder / INDEX).is_file():
        raise PipelineError(f"'{path}' holds no {INDEX}; give the folder of a whole pipeline, not of one component")
    index = untrusted.load(folder, INDEX)
    configs: dict[str, dict[str, Any]] = {}
    stored: dict[str, DtypeName] = {}
    missing = []
    for name, (_, class_name) in _components(index).items():
        present = [file for file in CONFIG_FILES if (folder / name / file).is_file()]
        for file in present:
            configs[f"{name}/{file}"] = untrusted.load(folder, f"{name}/{file}", unbounded=file == SCHEDULER)
        found = stored_dtype(folder, name) if _described_by(class_name) == MODEL else None
        stored |= {name: found} if found else {}
        needed = _described_by(class_name)
        if needed != TOKENIZER and needed not in present:
            missing.append(f"{name}/{needed}")
    if missing:
        raise PipelineError(
            f"'{path}' lacks {', '.join(missing)}, named by its {INDEX}; copy the JSON files of the whole pipeline"
        )
    return Sources(path=str(path), index=index, configs=configs, stored=stored)


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
        optional = set(pipeline_class._optional_components)
        switches = {parameter.name for parameter in parameters} - required - optional - {"self"}
        components = {name: of for name, of in _components(sources.index).items() if name in required | optional}
        missing = sorted(required - optional - set(components))
        if missing:
            raise PipelineError(
                f"{INDEX} names no {', '.join(missing)}, which {pipeline_class.__name__} needs; "
                f"give the folder of a whole pipeline"
            )
        parts: dict[str, Any] = dict.fromkeys(required)
        asked = chosen(dtype, list(_stated(sources)), model=f"'{sources.path}'")
        wanted = {name: asked.get("default", stated or "float32") for name, stated in _stated(sources).items()} | asked
        # Tokenizers last: a stand-in is made for the configuration of its text encoder.
        for name, of in sorted(components.items(), key=lambda item: "Tokenizer" in item[1][1]):
            parts[name] = _part(sources, name, of, wanted, parts)
        parts |= {name: sources.index[name] for name in switches & set(sources.index)}
        pipe = pipeline_class(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def networks(sources: Sources) -> dict[str, DtypeName]:
    """The names of the networks, each with a precision: as the folder says, or else as near to that as is known to run."""
    return agreed(sources.index["_class_name"], _stated(sources))


def _stated(sources: Sources) -> dict[str, DtypeName | None]:
    """The networks that the index names, with the precision of their files or configuration; None where neither says."""
    names = [name for name, (_, class_name) in _components(sources.index).items() if _described_by(class_name) == MODEL]
    return {name: sources.stored.get(name) or _stated_dtype(sources, name) for name in names}


def _components(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of each component that the index names, once every entry has been checked."""
    if not isinstance(index.get("_class_name"), str):
        raise PipelineError(
            f"{INDEX}: '_class_name' is {index.get('_class_name')!r}; it must name a pipeline class of diffusers"
        )
    components = {}
    for name, value in index.items():
        if not name.isidentifier():
            raise PipelineError(f"{INDEX}: {name!r} cannot name a component; a plain name such as 'unet' can")
        if name.startswith("_") or not isinstance(value, list | dict) or value == [None, None]:
            continue
        if not (isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)):
            raise PipelineError(f"{INDEX}: '{name}' is {value!r}; it must be [library, class] or [null, null]")
        if not _is_known_library(value[0]):
            raise PipelineError(
                f"{INDEX}: '{name}' asks for {value[1]} of '{value[0]}'; only classes of diffusers and transformers "
                f"are built, never code that comes with a model"
            )
        components[name] = (value[0], value[1])
    return components


def _is_known_library(name: str) -> bool:
    """diffusers, transformers, or a pipeline package of diffusers ("stable_diffusion" has the safety checker)."""
    spec = find_spec("diffusers")  # found, not imported
    roots = spec.submodule_search_locations if spec is not None and name.isidentifier() else None
    return name in {"diffusers", "transformers"} or any(
        (Path(root) / "pipelines" / name).is_dir() for root in roots or ()
    )


def _described_by(class_name: str) -> str:
    if "Tokenizer" in class_name:
        return TOKENIZER
    if class_name.endswith("Scheduler"):
        return SCHEDULER
    return PROCESSOR if "ImageProcessor" in class_name or "FeatureExtractor" in class_name else MODEL


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
    file = f"{name}/{_described_by(of[1])}"
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


def _stated_dtype(sources: Sources, name: str) -> DtypeName | None:
    """What the configuration states: transformers loads in that (PreTrainedModel.from_pretrained, dtype="auto")."""
    file = f"{name}/{MODEL}"
    config = sources.configs[file]
    stated = config.get("dtype") or config.get("torch_dtype")
    for known in get_args(DtypeName):
        if stated in {known, f"torch.{known}"}:
            return known  # type: ignore[no-any-return]
    if stated is None:
        return None
    raise PipelineError(f"{file}: the dtype is {stated!r}; {', '.join(get_args(DtypeName))} can be built")


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
