"""The format of questions: what is asked, why that is the right answer, and what must be true of it.

A file may come from anyone: what does not keep to the format is refused with the question and the field that is wrong.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

__all__ = ["QUESTIONS", "Against", "BadQuestionsError", "Bounds", "Call", "Question", "Wanted", "read_questions"]

QUESTIONS = Path(__file__).parents[1] / "questions.json"
MODEL = "MODEL"
"""Stands in the words of a question for the folder that `made` names."""

BEST = "BEST"
"""Stands for the best candidate of the pipeline's front where `apply` takes a plan."""

_COMMANDS = ("plan", "explore", "explain", "estimate", "models", "gpus", "probe", "profiles")
_LARGEST_BYTES = 10**7  # a thousand questions are half of it


class BadQuestionsError(ValueError):
    """A file of questions that does not keep to the format."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _ordered(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    if bounds is not None and not 0 <= bounds[0] < bounds[1]:
        raise ValueError(f"bounds are [least, most] with 0 <= least < most, not {list(bounds)}")
    return bounds


class Bounds(_Strict):
    """Figures of a plan, each within [least, most]. GB is 10^9 bytes."""

    needs_gb: tuple[float, float] | None = None
    """VRAM with its error bar: what is compared with the cap."""
    peak_gb: tuple[float, float] | None = None
    """VRAM of the process, as nvidia-smi shows it."""
    live_gb: tuple[float, float] | None = None
    """Live tensors, as `torch.cuda.max_memory_allocated` counts them: what most measurements report."""
    ram_gb: tuple[float, float] | None = None
    """Weights that wait in RAM."""
    seconds: tuple[float, float] | None = None
    """One call."""
    step_s: tuple[float, float] | None = None
    """One denoising step."""
    bar: tuple[float, float] | None = None
    """Error bar of the seconds, relative: 0.35 is 35 % either way."""

    measured_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds that were measured: the error bar of the prediction must reach them."""

    _checked = field_validator("needs_gb", "peak_gb", "live_gb", "ram_gb", "seconds", "step_s", "bar")(
        lambda value: value if value is None else _ordered(value)
    )


Words = Annotated[str, Field(min_length=1, max_length=400)]
Pattern = str | int | bool


class Against(Bounds):
    """What must be true of the plan in the line "against"."""

    levers: dict[str, Pattern | list[Pattern]] = {}
    """As in `Wanted`."""
    fits: bool | None = None
    """Whether it stays under both caps."""


class Wanted(Bounds):
    """What must be true of the answer. What is not said is not looked at, save for the checks that every answer undergoes."""

    outcome: Literal["plan", "does not fit", "refused", "listed"]
    """An estimate or a plan; nothing stays under the caps; an error of any other kind; or a list of names."""
    error: str | None = None
    """The error's class, for example "UnknownGpuError", or "UsageError" of the command line."""
    fits: bool | None = None
    """Whether the plan stays under the caps, for `explain` and `estimate`."""
    lane: Literal["exact", "near", "int8", "int4"] | None = None
    """The plan's quality lane."""
    levers: dict[str, Pattern | list[Pattern]] = {}
    """Values of the plan's levers by name; "group:*" is a pattern, a list names alternatives."""
    not_levers: dict[str, Pattern | list[Pattern]] = {}
    """Values that they must not have."""
    call: dict[str, Any] = {}
    """Fields of the call that was planned: {"steps": 4, "width": 1024, "guidance": false}."""
    cap_gb: tuple[float, float] | None = None
    """The VRAM cap that was kept."""
    smallest_gb: tuple[float, float] | None = None
    """Where nothing fits: the smallest cap that is named."""
    against: Against | None = None
    """The plan that the answer compares itself with."""
    front_has: dict[str, Pattern | list[Pattern]] = {}
    """Levers of which some plan of the front has all."""
    says: list[Words | list[Words]] = []
    """Words that are in the answer; of a list one is enough. Case and spaces do not count."""
    says_not: list[Words] = []
    """Words that are not."""
    details_say: list[Words | list[Words]] = []
    """The same of what `-v` prints."""
    details_say_not: list[Words] = []
    """The same of what `-v` prints."""
    _ordered_too = field_validator("cap_gb", "smallest_gb")(_ordered)

    lines: Annotated[int, Field(ge=1, le=1000)] = 6
    """The most rows of the answer at 100 columns, tables apart; 12 at 80 and 60."""
    timed: bool = True
    """Whether a refusal must come within half a second and without torch."""


class Call(_Strict):
    """A call of the Python package."""

    function: Literal["optimize", "plan", "explore", "explain", "apply", "restore", "Plan"]
    """Of `autotune`."""
    model: str | None = None
    """First argument: a name as it is, or the pipeline that `made` names where this is "MODEL"."""
    arguments: dict[str, Any] = {}
    """The others, by name; plain values only. For `apply`, "BEST" stands for the best candidate of the pipeline's front."""


class Question(_Strict):
    """One question and its right answer."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,79}$")]
    """Its name."""
    why: Annotated[str, Field(min_length=20, max_length=2000)]
    """Where the right answer comes from: a source with its figures, or the arithmetic."""
    ask: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """The words after `autotune` as one types them in a shell."""
    api: Call | None = None
    """A call of the package, where it is not the command line that is asked."""
    made: Annotated[str, Field(max_length=80)] | None = None
    """A pipeline or folder of `benchmarks/answers/made.py` for MODEL to stand for."""
    profiles: Literal["none", "shipped"] = "none"
    """Whether plans that come with autotune may answer."""
    wanted: Wanted
    """The right answer."""

    @property
    def words(self) -> list[str]:
        """The words of the command line."""
        return shlex.split(self.ask or "")

    @model_validator(mode="after")
    def _is_one(self) -> Question:
        if (self.ask is None) == (self.api is None):
            raise ValueError("a question has `ask`, the words of a command line, or `api`, a call of the package")
        try:
            words = self.words
        except ValueError as error:
            raise ValueError(f"`ask` cannot be split into words: {error}") from error
        if self.ask is not None and (not words or (words[0] not in _COMMANDS and not words[0].startswith("-"))):
            raise ValueError(f"`ask` begins with a command: {', '.join(_COMMANDS)}")
        named = MODEL in words or (self.api is not None and self.api.model == MODEL)
        if named != (self.made is not None):
            raise ValueError("`made` says what MODEL stands for, and MODEL says where it goes")
        return self


def read_questions(path: Path) -> list[Question]:
    """The questions of a file: `{"questions": [...]}`.

    Raises:
        BadQuestionsError: says which question is wrong, in which field.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise BadQuestionsError(f"{path}: larger than {_LARGEST_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadQuestionsError(f"{path}: {error}") from error
    listed = document.get("questions") if isinstance(document, dict) else None
    if not isinstance(listed, list) or not listed:
        raise BadQuestionsError(f'{path}: a file of questions is {{"questions": [...]}} with at least one')
    questions: list[Question] = []
    wrong: list[str] = []
    for place, one in enumerate(listed, start=1):
        try:
            questions.append(Question.model_validate(one))
        except ValidationError as error:
            wrong += _told(place, one, error.errors(include_url=False))
    names = [question.id for question in questions]
    wrong += [f"question {name!r}: there are two of that id" for name in sorted(set(names)) if names.count(name) > 1]
    if wrong:
        raise BadQuestionsError(f"{path}:\n" + "\n".join(wrong))
    return questions


def _told(place: int, one: Any, errors: Sequence[Any]) -> list[str]:
    name = one.get("id") if isinstance(one, dict) else None
    who = repr(name[:80]) if isinstance(name, str) else f"number {place}"
    return [f"question {who}: {'.'.join(map(str, e['loc'])) or 'as a whole'}: {e['msg']}" for e in errors]
