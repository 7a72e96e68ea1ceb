"""The options that several commands share, and how their words become values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = ["AsCode", "AsJson", "Keep", "Model", "PlaceOptions", "SearchOptions", "Verbose", "kept"]

_PLACE, _SEARCH = "The machine and its caps", "The search"

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else there.")]

Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", help="Tables before the answer: levers with their reasons, phases, what caps buy."),
]

AsCode = Annotated[
    bool,
    typer.Option(
        "--code",
        help="The plan as plain diffusers code on standard output, and nothing else there. JSON has it in any case.",
    ),
]

Model = Annotated[
    str,
    typer.Argument(
        help="A zoo name such as sd15, a folder with the configuration files of a pipeline (weights are not needed), "
        "or a hub id such as owner/name.",
        metavar="MODEL",
    ),
]

Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="LEVER=VALUE",
        help="Fix a lever: vae_tiling=false, dtype=fp16. Repeatable.",
        rich_help_panel=_SEARCH,
    ),
]


def _of_place(flag: str, **more: Any) -> Any:
    return typer.Option(flag, rich_help_panel=_PLACE, **more)


def _of_search(flag: str, **more: Any) -> Any:
    return typer.Option(flag, rich_help_panel=_SEARCH, **more)


@dataclass(frozen=True)
class PlaceOptions:
    """Where it is to run, and how much of that it may take."""

    gpu: Annotated[
        str | None,
        _of_place(
            "--gpu",
            help="A card that need not be here, by name (autotune gpus lists them) or described: '8.9,16GB,RTX 4000 Ada'.",
        ),
    ] = None
    device: Annotated[
        str | None,
        _of_place(
            "--device",
            help="A torch device of this machine: cuda, cuda:1, cpu. Without it the current CUDA device, or the CPU.",
        ),
    ] = None
    max_vram: Annotated[
        str | None, _of_place("--max-vram", help="Ceiling of the process on the device: 4GB, 3.7GiB, 4g.")
    ] = None
    max_ram: Annotated[str | None, _of_place("--max-ram", help="Ceiling of weights kept in RAM: 16GB.")] = None
    ram: Annotated[
        str | None,
        _of_place("--ram", help="RAM of a machine that is not here; what is usual beside such a card, if not said."),
    ] = None

    @property
    def question(self) -> dict[str, Any]:
        """These as arguments of a `Question`."""
        return dict(vars(self))


@dataclass(frozen=True)
class SearchOptions:
    """What may be chosen, and what is already known."""

    calls: Annotated[int, _of_search("--calls", min=1, help="How many calls are to come.")] = 1
    quality: Annotated[
        Literal["exact", "near", "int8", "int4"],
        _of_search(
            "--quality", help="How far images may differ: exact to float noise, near in half precision, 8 or 4 bits."
        ),
    ] = "near"
    objective: Annotated[
        Literal["latency", "memory"], _of_search("--objective", help="The fastest plan under the cap, or the smallest.")
    ] = "latency"
    keep: Keep = None
    forbid: Annotated[
        list[str] | None, _of_search("--forbid", metavar="LEVER", help="Leave a lever alone. Repeatable.")
    ] = None
    allow: Annotated[
        list[str] | None,
        _of_search("--allow", metavar="NAME", help="Look at an approximation too: sage. Repeatable."),
    ] = None
    profiles: Annotated[
        Path | None, _of_search("--profiles", metavar="DIR", help="Folder of profiles, asked first and written to.")
    ] = None
    no_profiles: Annotated[bool, _of_search("--no-profiles", help="Neither read nor write profiles.")] = False
    no_undo: Annotated[bool, _of_search("--no-undo", help="Keep no originals in RAM for an exact restore.")] = False

    @property
    def question(self) -> dict[str, Any]:
        """These as arguments of a `Question`."""
        if self.profiles is not None and self.no_profiles:
            raise typer.BadParameter(
                "it says where profiles are, --no-profiles that there are none; give one", param_hint="--profiles"
            )
        return {
            "calls": self.calls,
            "quality": self.quality,
            "objective": self.objective,
            "keep": kept(self.keep),
            "forbid": tuple(self.forbid or ()),
            "allow": tuple(self.allow or ()),
            "profiles": False if self.no_profiles else self.profiles,
            "undo": not self.no_undo,
        }


_WORDS = {"true": True, "false": False}
_DIGITS = 20  # longer numbers are no levers' values, and Python refuses to read some


def kept(pairs: list[str] | None) -> dict[str, Any]:
    """Levers to fix, by name. Which names and values there are is for the question to say.

    Raises:
        typer.BadParameter: no LEVER=VALUE.

    >>> kept(["vae_tiling=512", "tf32=true", "offload=model"])
    {'vae_tiling': 512, 'tf32': True, 'offload': 'model'}
    """
    values: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = (part.strip() for part in pair.partition("="))
        if not equals or not name or not text:
            raise typer.BadParameter(
                f"{pair!r} is not LEVER=VALUE; write for example vae_tiling=false", param_hint="--keep"
            )
        values[name] = int(text) if text.isdecimal() and len(text) < _DIGITS else _WORDS.get(text.casefold(), text)
    return values
