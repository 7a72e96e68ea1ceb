"""The JSON configuration of a pipeline folder, read and checked without torch: a profile is found before anything is built.

What only the weights could tell, the precision where no configuration states it, is read from the headers of their files.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from autotune.errors import PipelineError
from autotune.records.base import Record
from autotune.zoo import untrusted
from autotune.zoo.agreed import agreed
from autotune.zoo.recipe import DtypeName, content_key
from autotune.zoo.stored import stored_dtype

__all__ = [
    "CONFIG_FILES",
    "INDEX",
    "TOKENIZER",
    "Sources",
    "components_of",
    "described_by",
    "networks",
    "read",
    "source_key",
    "stated_by",
]

INDEX = "model_index.json"
MODEL, SCHEDULER, PROCESSOR = "config.json", "scheduler_config.json", "preprocessor_config.json"
TOKENIZER = "tokenizer_config.json"
CONFIG_FILES = (MODEL, SCHEDULER, PROCESSOR, TOKENIZER)


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
    for name, (_, class_name) in components_of(index).items():
        present = [file for file in CONFIG_FILES if (folder / name / file).is_file()]
        for file in present:
            configs[f"{name}/{file}"] = untrusted.load(folder, f"{name}/{file}", unbounded=file == SCHEDULER)
        found = stored_dtype(folder, name) if described_by(class_name) == MODEL else None
        stored |= {name: found} if found else {}
        needed = described_by(class_name)
        if needed != TOKENIZER and needed not in present:
            missing.append(f"{name}/{needed}")
    if missing:
        raise PipelineError(
            f"'{path}' lacks {', '.join(missing)}, named by its {INDEX}; copy the JSON files of the whole pipeline"
        )
    return Sources(path=str(path), index=index, configs=configs, stored=stored)


def networks(sources: Sources) -> dict[str, DtypeName]:
    """The names of the networks, each with a precision: as the folder says, or else as near to that as is known to run."""
    return agreed(sources.index["_class_name"], stated_by(sources))


def stated_by(sources: Sources) -> dict[str, DtypeName | None]:
    """The networks that the index names, with the precision of their files or configuration; None where neither says."""
    names = [
        name for name, (_, class_name) in components_of(sources.index).items() if described_by(class_name) == MODEL
    ]
    return {name: sources.stored.get(name) or _stated_dtype(sources, name) for name in names}


def components_of(index: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of each component that the index names, once every entry has been checked."""
    if not isinstance(index.get("_class_name"), str):
        raise PipelineError(
            f"{INDEX}: '_class_name' is {index.get('_class_name')!r}; it must name a pipeline class of diffusers"
        )
    found = {}
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
        found[name] = (value[0], value[1])
    return found


def _is_known_library(name: str) -> bool:
    """diffusers, transformers, or a pipeline package of diffusers ("stable_diffusion" has the safety checker)."""
    spec = find_spec("diffusers")  # found, not imported
    roots = spec.submodule_search_locations if spec is not None and name.isidentifier() else None
    return name in {"diffusers", "transformers"} or any(
        (Path(root) / "pipelines" / name).is_dir() for root in roots or ()
    )


def described_by(class_name: str) -> str:
    if "Tokenizer" in class_name:
        return TOKENIZER
    if class_name.endswith("Scheduler"):
        return SCHEDULER
    return PROCESSOR if "ImageProcessor" in class_name or "FeatureExtractor" in class_name else MODEL


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
