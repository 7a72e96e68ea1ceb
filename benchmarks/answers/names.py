"""Whether names of cards and models, as people write them, come to what they mean: one of them, a choice, or a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.answers.questions import BadQuestionsError, Words

__all__ = ["NAMES", "Name", "Names", "read_names", "resolved"]

NAMES = Path(__file__).parents[1] / "names.json"


class Name(BaseModel):
    """A name and what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    written: Words
    outcome: Literal["card", "model", "choice", "sentence"]
    meant: str | None = None
    """The card's driver name, or the model's zoo name."""
    gib: float | None = None
    """Nominal memory of the card."""
    offers: list[Words] = []
    """What a choice names, each word of it."""
    says: list[Words] = []
    """Words of the sentence."""
    says_not: list[Words] = []
    """Words that it does not have."""


class Names(BaseModel):
    """A file of names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    about: str = ""
    cards: list[Name]
    models: list[Name]


def read_names(path: Path) -> Names:
    """The names of a file: `{"cards": [...], "models": [...]}`.

    Raises:
        BadQuestionsError: says which entry is wrong, in which field.
    """
    try:
        return Names.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadQuestionsError(f"{path}: {error}") from error
    except ValidationError as error:
        told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        raise BadQuestionsError(f"{path}:\n" + "\n".join(told)) from error


def resolved(name: Name, *, kind: Literal["card", "model"]) -> str:
    """What is wrong with what the name comes to; empty where that is right."""
    outcome, meant, gib, message = _card(name.written) if kind == "card" else _model(name.written)
    got = f"{outcome} {meant or message!r}"
    if outcome != name.outcome:
        return f"{name.written!r}: wanted: {name.outcome} {name.meant or ''}; got: {got}"
    if name.meant is not None and meant != name.meant:
        return f"{name.written!r}: wanted: {name.meant}; got: {got}"
    # A device reports from 91 % of its nominal memory (A10G) to a little more than it.
    if name.gib is not None and not 0.88 <= gib / name.gib <= 1.02:
        return f"{name.written!r}: wanted: {name.gib:g} GiB; got: {gib:.1f} GiB"
    said = message.casefold()
    lacking = [word for word in (*name.offers, *name.says) if word.casefold() not in said]
    if lacking:
        return f"{name.written!r}: wanted: {', '.join(lacking)} named; got: {message!r}"
    excess = [word for word in name.says_not if word.casefold() in said]
    return f"{name.written!r}: wanted: no {', '.join(excess)}; got: {message!r}" if excess else ""


def _card(written: str) -> tuple[str, str, float, str]:
    from autotune.errors import AutotuneError, UnknownGpuError
    from autotune.probe import catalog
    from autotune.units import GIB

    try:
        card = catalog.card(written)
    except UnknownGpuError as error:
        return ("choice" if error.choices else "sentence"), "", 0.0, str(error)
    except AutotuneError as error:
        return "sentence", "", 0.0, str(error)
    return "card", card.name, card.total_bytes / GIB, " ".join(card.notes)


def _model(written: str) -> tuple[str, str, float, str]:
    from autotune.errors import AutotuneError
    from autotune.flow.question import Question
    from autotune.zoo.recipes import find

    try:
        Question(written, gpu="NVIDIA GeForce RTX 4090", profiles=False)
        recipe = find(written)
    except AutotuneError as error:
        several = "several models" in str(error)
        return ("choice" if several else "sentence"), "", 0.0, str(error)
    return "model", recipe.name if recipe else "", 0.0, ""
