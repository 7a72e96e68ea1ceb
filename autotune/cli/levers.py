"""An option for each lever of a plan, in the words of the plan's own fields."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from autotune.records.plan import Plan

__all__ = ["Attention", "BatchSplit", "ChannelsLast", "Compile", "Dtype", "FeedForwardChunks", "LeverCommand", "Offload",
           "TextEncoders", "Tf32", "VaeFramewise", "VaeSlicing", "VaeTiling", "lever_descriptions", "plan_from"]  # fmt: skip

BY_ITSELF = "auto"
"""The value of `--vae-tiling` where none is given."""

_ITS_TILE = "Without a number: the largest usual edge that is smaller than the image."
_TRUTH = {**dict.fromkeys(("true", "yes", "on"), True), **dict.fromkeys(("false", "no", "off", "none"), False)}


def _option(flag: str, **more: Any) -> Any:
    """Its help begins with the docstring of the field, which `LeverCommand` puts in."""
    return typer.Option(flag, rich_help_panel="The plan; without these the pipeline is left as it is", **more)


Dtype = Annotated[str | None, _option("--dtype")]
Tf32 = Annotated[bool | None, _option("--tf32/--no-tf32")]
ChannelsLast = Annotated[bool | None, _option("--channels-last/--no-channels-last")]
Attention = Annotated[str | None, _option("--attention")]
FeedForwardChunks = Annotated[int | None, _option("--feed-forward-chunks")]
BatchSplit = Annotated[int | None, _option("--batch-split")]
VaeSlicing = Annotated[bool | None, _option("--vae-slicing/--no-vae-slicing")]
VaeTiling = Annotated[str | None, _option("--vae-tiling", metavar="[PIXELS]")]
VaeFramewise = Annotated[bool | None, _option("--vae-framewise/--no-vae-framewise")]
Compile = Annotated[str | None, _option("--compile")]
Offload = Annotated[str | None, _option("--offload")]
TextEncoders = Annotated[str | None, _option("--text-encoders")]


class LeverCommand(TyperCommand):
    """A command whose options for levers say what the levers' fields say. `--vae-tiling` may stand without a number."""

    def describe(self) -> None:
        """Writes the help of its options: only who asks for it waits for the records to be read."""
        described = lever_descriptions()
        for option in (parameter for parameter in self.params if parameter.name in described):
            more = f" {_ITS_TILE}" if option.name == "vae_tiling" else ""
            option.help = described[option.name] + more  # type: ignore[attr-defined] # of options, which all of these are
            option.metavar = option.metavar or "|".join(_choices(option.name)) or None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help, described."""
        self.describe()
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads `--tf32 true` like `--tf32`, `--tf32 off` like `--no-tf32`, and puts in the value that `--vae-tiling` has where
        none follows."""
        flags = {
            "--vae-tiling",
            *(flag for option in self.params if getattr(option, "is_flag", False) for flag in option.opts),
        }
        off = {flag: option.secondary_opts[:1] for option in self.params for flag in option.opts}
        words = [part for word in args for part in (word.split("=", 1) if word.split("=")[0] in flags else [word])]
        spelled: list[str] = []
        while words:
            word = words.pop(0)
            truth = _TRUTH.get(words[0].casefold()) if word in flags and words else None
            if truth is not None:
                words.pop(0)
            if word == "--vae-tiling" and truth is False:
                spelled += [word, "off"]
            elif word == "--vae-tiling" and (truth or not words or words[0].startswith("-")):
                spelled += [word, BY_ITSELF]
            elif truth is False:
                spelled += off.get(word, ())
            else:
                spelled.append(word)
        return super().parse_args(ctx, spelled)


@cache
def lever_descriptions() -> dict[str, str]:
    """What stands below the field of each lever in `Plan`, without line breaks.

    pydantic would read it too (`use_attribute_docstrings`), but whenever the record is imported: a tenth of a refusal's time.

    >>> lever_descriptions()["vae_slicing"]
    'Decode a batch one image at a time.'
    """
    import ast
    import inspect

    from autotune.records.plan import LEVERS, Plan

    record: Any = ast.parse(inspect.getsource(Plan)).body[0]
    below = {
        ast.unparse(field.target): " ".join(ast.literal_eval(words.value).split())
        for field, words in pairwise(record.body)
        if isinstance(field, ast.AnnAssign) and isinstance(words, ast.Expr)
    }
    return {name: below[name] for name in LEVERS}


def plan_from(levers: Mapping[str, Any], *, kept: Mapping[str, Any] | None = None) -> Plan:
    """The plan with these values; None stands for what was not said by an option of its own, and may have been `kept`.

    Raises:
        PlanError: a value that the lever does not have.

    >>> plan_from({"offload": "model", "vae_tiling": "512", "compile": None}).changes
    {'vae_tiling': 512, 'offload': 'model'}
    >>> plan_from({"offload": None, "tf32": True}, kept={"offload": "model", "tf32": False}).changes
    {'tf32': True, 'offload': 'model'}
    """
    from autotune.records.plan import Plan

    said = {name: value for name, value in levers.items() if value is not None}
    return Plan(**{**(kept or {}), **said})


def _choices(name: str) -> list[str]:
    """The values of a lever that has a few words and no others."""
    from autotune.records.values import kinds_of

    return [word for kind in kinds_of(name) for word in kind.get("enum", ())]
