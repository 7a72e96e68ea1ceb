"""In which precision each component is to be built: one name for all, or a mapping in the form of diffusers' `torch_dtype`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, get_args

from autotune.errors import PipelineError, nearest
from autotune.records.precision import AS_IS, DtypeName, dtype_named

__all__ = ["Wanted", "chosen", "common"]

Wanted = str | Mapping[str, str]
"""A precision, or precisions by component with "default" for the others; "fp16", "bf16" and "fp32" are understood too."""


def chosen(wanted: Wanted | None, components: Collection[str], *, model: str) -> dict[str, DtypeName]:
    """The precisions that are asked for, by component; "default" is left in for those that are not named.

    Args:
        wanted: what a person asked for; None for nothing.
        components: the names of the model's networks.
        model: its name, for messages.

    Raises:
        PipelineError: a component that the model does not have, or a precision that is not one of the three.

    >>> chosen({"default": "bf16", "vae": "float32"}, ["unet", "vae"], model="a model")
    {'default': 'bfloat16', 'vae': 'float32'}
    """
    asked = {} if wanted is None else wanted if isinstance(wanted, Mapping) else {"default": wanted}
    for name in asked:
        if name != "default" and name not in components:
            close = nearest(str(name), list(components), 1)
            raise PipelineError(f"{model} has no component {name!r} to load in {asked[name]}; nearest: {close}")
    return {name: _named(value) for name, value in asked.items()}


def _named(value: Any) -> DtypeName:
    try:
        dtype = dtype_named(value)
    except ValueError:
        dtype = AS_IS
    for name in get_args(DtypeName):
        if name == dtype:
            return name  # type: ignore[no-any-return]
    raise PipelineError(f"{value!r} is not a precision that a model can be loaded in; fp32, fp16, bf16 are")


def common(dtypes: Collection[str]) -> DtypeName:
    """The precision in which networks that are published in these run together: half, if any of them is.

    >>> common({"float32", "bfloat16"})
    'bfloat16'
    """
    return next(name for name in ("bfloat16", "float16", "float32") if name in dtypes)
