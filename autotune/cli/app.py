"""The command line: `autotune probe | plan | explore | explain | estimate | models | gpus | profiles`.

Answers go to standard output, all other words to standard error. Exit codes: 0 done, 1 refused, 2 not understood,
3 nothing fits, 130 interrupted. Nothing heavy is imported before a question is known to make sense.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from autotune.cli import lists, machine, options
from autotune.cli.call import CallOptions, SetupOptions
from autotune.cli.estimate import estimate
from autotune.cli.groups import with_groups
from autotune.cli.levers import LeverCommand
from autotune.cli.outcome import Commands
from autotune.cli.profiles import app as profiles_app
from autotune.errors import DoesNotFitError

__all__ = ["app", "main"]

CODE_HINT = "plain diffusers: --code"

app = typer.Typer(
    name="autotune",
    cls=Commands,
    help="Makes diffusers pipelines run as fast as they can inside a VRAM cap.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("probe")(machine.probe)
app.command("estimate", cls=LeverCommand)(estimate)
app.command("models")(lists.models)
app.command("gpus")(lists.gpus)
app.add_typer(profiles_app, name="profiles")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
) -> None:
    """Makes diffusers pipelines run as fast as they can inside a VRAM cap."""
    if version:
        from autotune import __version__

        typer.echo(f"autotune {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
@with_groups
def plan(
    model: options.Model,
    *,
    place: options.PlaceOptions,
    call: CallOptions,
    setup: SetupOptions,
    search: options.SearchOptions,
    as_code: options.AsCode = False,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> None:
    """The fastest plan under a cap; with -v its reasons, its phases, and what other caps would buy."""
    from autotune.flow.question import Question

    question = Question(model, workload=call.workload, **place.question, **setup.question, **search.question)
    from autotune.cli.payload import code_for, explanation_json, print_json
    from autotune.cli.show import page, show_details, show_ladder, show_lines
    from autotune.flow.ask import answer
    from autotune.report.progress import watched

    with watched(model, silent=as_json) as report:
        explained, front = answer(replace(question, progress=report))
    if as_json:
        code = code_for(explained, card=place.gpu)
        print_json({**explanation_json(explained), "code": code, "searched": front.searched, "front": front.rows()})
        return
    if as_code:
        typer.echo(code_for(explained, card=place.gpu))
        return
    console = page()
    if verbose:
        show_ladder(console, front, explained.chosen, search.quality)
        show_details(console, explained)
    show_lines(console, explained, hint=CODE_HINT if verbose else f"why: -v   {CODE_HINT}")


@app.command()
@with_groups
def explore(
    model: options.Model,
    *,
    place: options.PlaceOptions,
    call: CallOptions,
    setup: SetupOptions,
    search: options.SearchOptions,
    as_json: options.AsJson = False,
) -> None:
    """The Pareto front over VRAM, RAM, seconds and quality, and the best of it under the caps."""
    from autotune.flow.question import Question

    question = Question(model, workload=call.workload, **place.question, **setup.question, **search.question)
    from autotune.cli.payload import explanation_json, front_json, print_json
    from autotune.cli.show import page, say, show_front, show_lines
    from autotune.flow.ask import answer_from, front_for
    from autotune.report.progress import watched

    with watched(model, silent=as_json) as report:
        question = replace(question, progress=report)
        front = front_for(question)
        capped = place.max_vram is not None or place.max_ram is not None
        try:
            explained = answer_from(front, question)
        except DoesNotFitError:
            if capped:
                raise
            explained = None  # the front is an answer, whatever of it this machine can hold
    if as_json:
        print_json({**front_json(front), "best": None if explained is None else explanation_json(explained)})
        return
    console = page()
    if explained is None:
        show_front(console, front, front.candidates)
        return
    shown = [c for c in front.candidates if not capped or c.fits(explained.cap_bytes, explained.ram_cap_bytes)]
    show_front(console, front, shown, explained.chosen)
    say(console)
    show_lines(console, explained)


@app.command()
@with_groups
def explain(
    model: options.Model,
    *,
    place: options.PlaceOptions,
    call: CallOptions,
    setup: SetupOptions,
    verbose: options.Verbose = False,
    as_json: options.AsJson = False,
) -> None:
    """What a model costs as it is; with -v by phase."""
    from autotune.flow.question import Question

    question = Question(model, workload=call.workload, **place.question, **setup.question)
    from autotune.cli.payload import explanation_json, print_json
    from autotune.cli.show import page, show_details, show_lines
    from autotune.flow.ask import as_it_stands
    from autotune.report.progress import watched

    with watched(model, silent=as_json) as report:
        explained = as_it_stands(replace(question, progress=report))
    if as_json:
        print_json(explanation_json(explained))
        return
    console = page()
    if verbose:
        show_details(console, explained)
    show_lines(console, explained, hint="" if verbose else "by phase: -v")


def main() -> None:
    """Runs the command line of this process."""
    app()
