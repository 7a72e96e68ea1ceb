"""How a command ends: an exit code, one sentence for a person, and with --json one document for a program, always."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from autotune.errors import AutotuneError, DoesNotFitError

__all__ = ["INTERRUPTED", "NOTHING_FITS", "NOT_UNDERSTOOD", "REFUSED", "Commands"]

REFUSED, NOT_UNDERSTOOD, NOTHING_FITS, INTERRUPTED = 1, 2, 3, 130

_UsageError: Any = typer.BadParameter.__base__  # of the click that typer runs on, which is not always the installed one


class Commands(TyperGroup):
    """Commands of which every end is told in the same way."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **named: Any) -> NoReturn:
        """Runs the command line and leaves with its exit code."""
        words = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in words
        try:
            code = super().main(words, *rest, **{**named, "standalone_mode": False})
        except AutotuneError as error:
            code = NOTHING_FITS if isinstance(error, DoesNotFitError) else REFUSED
            _tell(error, type(error).__name__, str(error), as_json=as_json)
        except _UsageError as error:
            code = NOT_UNDERSTOOD
            if error.ctx is not None:
                typer.echo(error.ctx.get_usage(), err=True)
            _tell(error, "UsageError", error.format_message(), as_json=as_json)
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except Exception as error:  # the last that can be said of it, for a program too
            code = REFUSED
            traceback.print_exc()
            _tell(error, "internal", f"{type(error).__name__}: {error}", as_json=as_json)
        if code == INTERRUPTED:
            _tell(None, "interrupted", "interrupted", as_json=as_json)
        sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Any, kind: str, message: str, *, as_json: bool) -> None:
    """The sentence on standard error, and the document on standard output where one was asked for."""
    from autotune.report.lines import columns_of, refusal_rows

    terminal = sys.stderr.isatty()
    for row in refusal_rows(message, columns_of(os.environ, os.get_terminal_size(2).columns if terminal else None)):
        typer.echo(row, err=True)
    if as_json:
        from autotune.cli.payload import print_json

        document: dict[str, Any] = {"kind": kind, "message": message, "nearest": _nearest(error)}
        if isinstance(error, DoesNotFitError):
            document |= {"smallest_bytes": error.smallest_bytes, "phase": error.phase}
        print_json({"error": document})


def _nearest(error: Any) -> list[str]:
    """What could be written instead; an unknown option has that from the parser."""
    if isinstance(error, AutotuneError):
        return list(error.nearest)
    return list(getattr(error, "possibilities", None) or ())
