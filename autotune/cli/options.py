"""The options that several commands share, and how their words become values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

__all__ = ["Allow", "AsCode", "AsJson", "Calls", "Device", "Forbid", "Gpu", "Keep", "MaxRam", "MaxVram", "Model",
           "NoProfiles", "NoUndo", "Objective", "Profiles", "Quality", "kept", "profiles_from", "size_from"]  # fmt: skip

_ASKED, _CALL, _SEARCH = "What for", "The call to plan for", "The search"

AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else there.")]

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

Gpu = Annotated[
    str | None,
    typer.Option("--gpu", help="A card from the catalogue, which need not be here.", rich_help_panel=_ASKED),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="A torch device of this machine: cuda, cuda:1, cpu. Without it the current CUDA device, or the CPU.",
        rich_help_panel=_ASKED,
    ),
]
MaxVram = Annotated[
    str | None,
    typer.Option("--max-vram", help="Ceiling of the process on the device: 4GB, 3.7GiB.", rich_help_panel=_ASKED),
]
MaxRam = Annotated[
    str | None,
    typer.Option("--max-ram", help="Ceiling of weights kept in RAM: 16GB.", rich_help_panel=_ASKED),
]

Calls = Annotated[int, typer.Option("--calls", min=1, help="How many calls are to come.", rich_help_panel=_CALL)]

Quality = Annotated[
    Literal["exact", "near", "int8", "int4"],
    typer.Option("--quality", help="The lane that may be used.", rich_help_panel=_SEARCH),
]
Objective = Annotated[
    Literal["latency", "memory"],
    typer.Option("--objective", help="The fastest plan under the cap, or the smallest.", rich_help_panel=_SEARCH),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep", metavar="LEVER=VALUE", help="Fix a lever: vae_tiling=false. Repeatable.", rich_help_panel=_SEARCH
    ),
]
Forbid = Annotated[
    list[str] | None,
    typer.Option("--forbid", metavar="LEVER", help="Leave a lever alone. Repeatable.", rich_help_panel=_SEARCH),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="NAME", help="Look at an approximation too: sage. Repeatable.", rich_help_panel=_SEARCH
    ),
]
Profiles = Annotated[
    Path | None,
    typer.Option(
        "--profiles", metavar="DIR", help="Folder of profiles, asked first and written to.", rich_help_panel=_SEARCH
    ),
]
NoProfiles = Annotated[
    bool, typer.Option("--no-profiles", help="Neither read nor write profiles.", rich_help_panel=_SEARCH)
]
NoUndo = Annotated[
    bool,
    typer.Option("--no-undo", help="Keep no originals in RAM for an exact restore.", rich_help_panel=_SEARCH),
]

_WORDS = {"true": True, "false": False}


_DIGITS = 20  # longer numbers are no sizes, and Python refuses to read some


def size_from(text: str | None) -> str | int | None:
    """A size as the library takes it: digits alone are bytes."""
    return int(text) if text is not None and text.isdecimal() and len(text) < _DIGITS else text


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


def profiles_from(folder: Path | None, *, none_at_all: bool) -> Path | Literal[False] | None:
    """The library's `profiles` argument."""
    if folder is not None and none_at_all:
        raise typer.BadParameter(
            "it says where profiles are, --no-profiles that there are none; give one", param_hint="--profiles"
        )
    return False if none_at_all else folder
