"""Precision by component, in the form of diffusers' own `torch_dtype`: a name, or names by component with a "default".

It says what each network's weights are to be, not what they are: "as_is" leaves a network as it was found or published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

__all__ = ["AS_IS", "DEFAULT", "DtypeName", "Precision", "dtype_named", "short"]

DtypeName = Literal["float32", "float16", "bfloat16"]
AS_IS: Final = "as_is"
DEFAULT: Final = "default"
"""Stands for every component that is not named (diffusers/pipelines/pipeline_utils.py `from_pretrained`, `torch_dtype`)."""

_SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_SPELLINGS = {
    **{name: name for name in (*get_args(DtypeName), AS_IS)},
    **{short: name for name, short in _SHORT.items()},
    "half": "float16",
    "float": "float32",
    "full": "float32",
    "single": "float32",
    "asis": AS_IS,
    "as is": AS_IS,
}
# Components as people write them; all others go by their attribute.
_SHOWN = {"vae": "VAE", "unet": "UNet"}
_MOST_COMPONENTS = 32  # published pipelines have up to nine networks
_COMPONENT = re.compile(r"[a-z_][a-z0-9_]{0,63}")


def dtype_named(text: object) -> str:
    """The dtype that people write "fp16", "float16", "half" or "torch.float16"; "as_is" too.

    Raises:
        ValueError: no such precision.

    >>> dtype_named("BF16"), dtype_named("torch.float32")
    ('bfloat16', 'float32')
    """
    spelled = str(text).strip().casefold().removeprefix("torch.").replace("as it is", AS_IS)
    if spelled not in _SPELLINGS:
        raise ValueError(
            f"there are fp32, fp16, bf16 and as_is, each also by component, such as 'fp16, vae=fp32'; got {_cut(text)}"
        )
    return _SPELLINGS[spelled]


def short(dtype: str) -> str:
    """A dtype as people write it.

    >>> short("bfloat16")
    'bf16'
    """
    return _SHORT.get(dtype, "as it is" if dtype == AS_IS else dtype)


class Precision(Mapping[str, str]):
    """Which precision each network is to have; immutable, and equal to its written form.

    Args:
        given: a dtype's name ("fp16", "float16", "as_is"), a mapping by component in which "default" stands for the rest, or
            both written out ("fp16, vae=fp32").

    Raises:
        ValueError: no such precision, or nothing that could be a component's name.

    >>> Precision({"default": "bf16", "vae": "float32"})
    Precision('bfloat16, vae=float32')
    >>> str(Precision("bf16, VAE fp32")), Precision("fp16").of("unet"), Precision("fp16") == "float16"
    ('bf16, VAE fp32', 'float16', True)
    """

    __slots__ = ("_named",)

    def __init__(self, given: str | Mapping[str, Any] = AS_IS) -> None:
        pairs = (
            _written(given) if isinstance(given, str) else [(_component(key), value) for key, value in given.items()]
        )
        if not pairs or len(pairs) > _MOST_COMPONENTS:
            raise ValueError(f"a precision names 1 to {_MOST_COMPONENTS} components, got {len(pairs)}")
        named = {name: dtype_named(value) for name, value in pairs}
        rest = named.pop(DEFAULT, AS_IS)
        others = {name: dtype for name, dtype in sorted(named.items()) if dtype != rest}
        self._named = {DEFAULT: rest, **others}

    def of(self, component: str) -> str:
        """The dtype of a component, "as_is" where it stays as it is."""
        return self._named.get(component, self._named[DEFAULT])

    def over(self, found: Precision) -> Precision:
        """What there is once networks that were found in other precisions are cast to this one.

        >>> str(Precision("transformer=fp16").over(Precision("bf16, vae=fp32")))
        'bf16, transformer fp16, VAE fp32'
        """
        names = {DEFAULT, *self.components, *found.components}
        return Precision({name: found.of(name) if self.of(name) == AS_IS else self.of(name) for name in names})

    @property
    def components(self) -> tuple[str, ...]:
        """The components that are named, for they differ from the rest."""
        return tuple(name for name in self._named if name != DEFAULT)

    @property
    def dtypes(self) -> frozenset[str]:
        """Every dtype that stands in it, "as_is" too."""
        return frozenset(self._named.values())

    @property
    def written(self) -> str:
        """The form that is read back: "float16", or "float16, vae=float32"."""
        return ", ".join([self._named[DEFAULT], *(f"{name}={self._named[name]}" for name in self.components)])

    @property
    def plain(self) -> str | dict[str, str]:
        """As diffusers takes it: one name, or names by component."""
        return dict(self._named) if self.components else self._named[DEFAULT]

    def __getitem__(self, component: str) -> str:
        return self._named[component]

    def __iter__(self) -> Iterator[str]:
        return iter(self._named)

    def __len__(self) -> int:
        return len(self._named)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping):
            return self._named == dict(other)
        return self.written == other

    def __hash__(self) -> int:
        return hash(self.written)

    def __str__(self) -> str:
        rest = self._named[DEFAULT]
        parts = [f"{_SHOWN.get(name, name)} {short(self._named[name])}" for name in self.components]
        return ", ".join([*([] if rest == AS_IS and parts else [short(rest)]), *parts])

    def __repr__(self) -> str:
        return f"Precision({self.written!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validated,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.plain),
            json_schema_input_schema=core_schema.union_schema([core_schema.str_schema(), core_schema.dict_schema()]),
        )


def _validated(value: object) -> Precision:
    if isinstance(value, Precision):
        return value
    if isinstance(value, str | Mapping):
        return Precision(value)
    if str(value).startswith("torch."):  # a torch.dtype
        return Precision(str(value))
    raise ValueError(f"a precision is a name such as 'fp16' or names by component, got {_cut(value)}")


def _written(text: str) -> list[tuple[str, str]]:
    """The pairs of "fp16, VAE fp32" or "fp16, vae=fp32"; what has no component is the default."""
    pairs = []
    for part in text.casefold().replace("as it is", AS_IS).replace("as is", AS_IS).split(","):
        name, _, value = part.strip().rpartition("=") if "=" in part else part.strip().rpartition(" ")
        if not name or part.strip() in _SPELLINGS:
            name, value = DEFAULT, part.strip()
        pairs.append((_component(name), value))
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{_cut(text)} gives a component twice")
    return pairs


def _component(name: object) -> str:
    spelled = str(name).strip().casefold().replace(" ", "_").replace("-", "_")
    if not _COMPONENT.fullmatch(spelled):
        raise ValueError(f"{_cut(name)} cannot name a component; 'vae' can")
    return spelled


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
