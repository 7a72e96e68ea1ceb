"""`autotune models` and `autotune gpus`: what is known by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from autotune.cli.options import AsJson

__all__ = ["gpus", "models"]

Word = Annotated[str, typer.Argument(help="Only names with this in them.", metavar="[WORD]")]


def models(word: Word = "", *, as_json: AsJson = False) -> None:
    """The models that can be planned for by name, without their files."""
    from autotune.zoo.recipes import matching

    found = matching(word)
    if as_json:
        _print_json(
            {
                "name": recipe.name,
                "hub_id": recipe.hub_id,
                "aliases": list(recipe.aliases),
                "pipeline_class": recipe.pipeline_class,
                "parameters": sum(part.parameters for part in recipe.components),
                "defaults": None if recipe.defaults is None else recipe.defaults.model_dump(mode="json"),
            }
            for recipe in found
        )
        return
    rows = [
        (recipe.name, ", ".join(recipe.aliases), f"{sum(part.parameters for part in recipe.components) / 1e9:.1f} B",
         _call(recipe.defaults), recipe.hub_id)
        for recipe in found
    ]  # fmt: skip
    _show(
        f"{len(rows)} models; any folder with a pipeline's configuration files and any hub id can be named as well",
        ("name", "other names", ">parameters", "usual call", "published as"),
        rows,
        droppable=("other names", "published as", ">parameters"),
        nothing=f"no model has {word!r} in its name; `autotune models` lists all",
    )


def _call(defaults: Any) -> str:
    if defaults is None:
        return ""
    edges = f"{defaults.width}x{defaults.height}" if defaults.width and defaults.height else "its input's size"
    frames = f"x{defaults.frames} frames" if defaults.frames else ""
    return f"{edges}{frames}, {defaults.steps} step{'s' if defaults.steps > 1 else ''}"


def gpus(word: Word = "", *, as_json: AsJson = False) -> None:
    """The cards that can be planned for without being here."""
    from autotune.probe.catalog import listed
    from autotune.records.words import formats
    from autotune.units import size

    found = listed(word)
    if as_json:
        _print_json(card.model_dump(mode="json") for card in found)
        return
    rows = [
        (card.name, size(card.total_bytes), ".".join(map(str, card.compute_capability or ())), formats(card),
         f"{card.bandwidth_bytes_per_s / 1e9:.0f} GB/s", f"{card.fp32_flops_per_s / 1e12:.1f}")
        for card in found
    ]  # fmt: skip
    _show(
        f"{len(rows)} cards, facts from the catalogue",
        ("name", ">memory", "compute", "formats", ">bandwidth", ">fp32 TFLOP/s"),
        rows,
        droppable=(">fp32 TFLOP/s", ">bandwidth", "compute"),
        nothing=f"no card has {word!r} in its name; `autotune gpus` lists all",
    )


def _print_json(entries: Any) -> None:
    from autotune.cli.payload import print_json

    print_json(list(entries))


def _show(
    title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, droppable: tuple[str, ...], nothing: str
) -> None:
    from autotune.cli.show import page, say, show_table

    if rows:
        show_table(page(), title, columns, rows, droppable=droppable)
    else:
        say(page(), nothing)
