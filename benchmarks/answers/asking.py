"""Puts a question as a user would and keeps all that came back: JSON, text at three widths, details, exit code, error.

A question is planned once: the command line runs several times, to print it otherwise, and the planning is remembered.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.answers.made import made_folder, made_pipeline
from benchmarks.answers.questions import BEST, MODEL, Call, Question

__all__ = ["WIDTHS", "Answer", "ask"]

WIDTHS = (100, 80, 60)
_DETAILS_COLUMNS = 160
_PLANNED = ("answer", "answer_from", "front_for", "as_it_stands")
_SEARCHES = ("plan", "explore")


@dataclass
class Answer:
    """What came back."""

    code: int
    """Exit code; 0 and 1 for a call of the package."""
    document: Any = None
    """What --json printed; None if that was no JSON."""
    text: dict[int, str] = field(default_factory=dict)
    """The answer by columns: six lines or a refusal, without progress."""
    details: str = ""
    """What -v printed."""
    error: str = ""
    """Class of the error."""
    message: str = ""
    """Its sentence."""
    seconds: float = 0.0
    """Wall time of the first asking."""
    explained: Any = None
    """The record behind the answer, if there is one."""
    front: Any = None
    """The front it was chosen from, if there was a search."""


def ask(question: Question) -> Answer:
    """Asks in an empty folder, with empty caches."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):  # its handler keeps the standard error of the moment it is made
        library.utils.logging.get_logger()
    with tempfile.TemporaryDirectory() as place, _alone(Path(place)), _remembered() as known:
        folder = Path(place) / "model"
        if question.api is not None:
            return _call(question.api, question.made, known)
        words = question.words
        if question.made is not None:
            made_folder(question.made, folder)
            words = [str(folder) if word == MODEL else word for word in words]
        if words[0] in _SEARCHES and question.profiles == "none" and "--no-profiles" not in words:
            words = [*words, "--no-profiles"]
        return _command(words, known, details=bool(question.wanted.details_say or question.wanted.details_say_not))


def _command(words: list[str], known: dict[str, Any], *, details: bool) -> Answer:
    begun = time.perf_counter()
    plain = [word for word in words if word != "--json"]
    document, code, _ = _run([*plain, "--json"] if words[0][:1] != "-" else plain, WIDTHS[0])
    answer = Answer(code=code, seconds=time.perf_counter() - begun)
    with contextlib.suppress(json.JSONDecodeError):
        answer.document = json.loads(document)
    told = answer.document.get("error") if isinstance(answer.document, dict) else None
    if told:
        answer.error, answer.message = str(told.get("kind")), str(told.get("message"))
    for width in WIDTHS:
        out, _, err = _run(plain, width)
        answer.text[width] = _last_lines(out, err, refused=code != 0)
    if details:
        answer.details = _run([*plain, "-v"], _DETAILS_COLUMNS)[0]
    answer.explained, answer.front = _records(known)
    return answer


def _run(words: list[str], columns: int) -> tuple[str, int, str]:
    from typer.testing import CliRunner

    from autotune.cli.app import app

    result = CliRunner().invoke(app, words, env={"COLUMNS": str(columns)}, prog_name="autotune")
    return result.stdout, result.exit_code, result.stderr


def _last_lines(out: str, err: str, *, refused: bool) -> str:
    """The answer without progress and tables: what comes after the last empty line, or the refusal."""
    if not refused:
        return out.rstrip("\n").rpartition("\n\n")[2]
    lines = err.splitlines()
    begun = [place for place, line in enumerate(lines) if line.startswith("error:")]
    return "\n".join(lines[begun[-1] :]) if begun else err


def _call(call: Call, made: str | None, known: dict[str, Any]) -> Answer:
    import autotune
    from autotune.cli.payload import explanation_json
    from autotune.errors import AutotuneError, DoesNotFitError
    from autotune.report.text import six_lines

    pipe = made_pipeline(made) if made is not None else None
    first = [] if call.model is None else [pipe if call.model == MODEL else call.model]
    answer = Answer(code=0)
    begun = time.perf_counter()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            arguments = dict(call.arguments)
            if arguments.get("plan") == BEST:
                arguments["plan"] = autotune.explore(*first, profiles=False, workload=arguments.get("workload")).best()
            result = getattr(autotune, call.function)(*first, **arguments)
    except DoesNotFitError as error:
        answer.code, answer.error, answer.message = 3, type(error).__name__, str(error)
        answer.document = {"error": {"kind": answer.error, "message": str(error), "nearest": list(error.nearest),
                                     "smallest_bytes": error.smallest_bytes, "phase": error.phase}}  # fmt: skip
    except AutotuneError as error:
        answer.code, answer.error, answer.message = 1, type(error).__name__, str(error)
        answer.document = {"error": {"kind": answer.error, "message": str(error), "nearest": list(error.nearest)}}
    except Exception as error:  # what a user would get as a traceback is an answer too, and a wrong one
        answer.code, answer.error, answer.message = 1, "internal", f"{type(error).__name__}: {error}"
        answer.document = {"error": {"kind": "internal", "message": answer.message, "nearest": []}}
    else:
        answer.explained, answer.front = _records(known)
        if answer.explained is not None:
            answer.document = explanation_json(answer.explained)
            answer.text = {width: "\n".join(six_lines(answer.explained, width)) for width in WIDTHS}
        else:
            answer.document, answer.text = {"result": repr(result)}, dict.fromkeys(WIDTHS, repr(result))
    answer.seconds = time.perf_counter() - begun
    if answer.code:
        from autotune.report.lines import refusal_rows

        answer.text = {width: "\n".join(refusal_rows(answer.message, width)) for width in WIDTHS}
        answer.explained, answer.front = None, _records(known)[1]
    return answer


def _records(known: dict[str, Any]) -> tuple[Any, Any]:
    """The explanation and the front among what was planned."""
    found = {name: result for name, (result, error) in known.items() if error is None}
    explained, front = found.get("answer", (None, None))
    if "written_out" in found:
        explained = found["written_out"][0]
    return explained or found.get("answer_from") or found.get("as_it_stands"), front or found.get("front_for")


@contextlib.contextmanager
def _remembered() -> Iterator[dict[str, Any]]:
    """What plans is done once, by name: its result or the error it raised."""
    import autotune.api
    from autotune.flow import ask as asking
    from autotune.flow import estimating

    known: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        places = [(asking, name) for name in _PLANNED] + [(estimating, "written_out")]
        places += [(autotune.api, name) for name in ("answer", "as_it_stands", "front_for")]
        for module, name in places:
            stack.enter_context(mock.patch.object(module, name, _once(name, getattr(module, name), known)))
        yield known


def _once(name: str, function: Callable[..., Any], known: dict[str, Any]) -> Callable[..., Any]:
    def called(*args: Any, **named: Any) -> Any:
        if name not in known:
            try:
                known[name] = (function(*args, **named), None)
            except Exception as error:
                known[name] = (None, error)
        result, raised = known[name]
        if raised is not None:
            raise raised
        return result

    return called


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Nobody's profiles, speeds and measurements."""
    with contextlib.chdir(place), mock.patch.dict("os.environ", {"AUTOTUNE_CACHE_DIR": str(place / "cache")}):
        yield
