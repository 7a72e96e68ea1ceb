"""The command line: `autotune probe | plan | explore | explain | estimate | profiles`.

Answers go to standard output, all other words to standard error. Exit codes: 0 done, 1 refused, 2 not understood,
3 nothing fits. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from autotune.cli import machine, options
from autotune.cli.call import CallOptions, SetupOptions
from autotune.cli.estimate import estimate
from autotune.cli.groups import with_groups
from autotune.cli.levers import LeverCommand
from autotune.cli.profiles import app as profiles_app
from autotune.errors import AutotuneError, DoesNotFitError

__all__ = ["app", "main"]

REFUSED, NOTHING_FITS = 1, 3


class Commands(TyperGroup):
    """Commands whose expected errors are one sentence and an exit code, not a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command.

        Raises:
            typer.Exit: an `AutotuneError`, after its message was printed.
        """
        try:
            return super().invoke(ctx)
        except AutotuneError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(NOTHING_FITS if isinstance(error, DoesNotFitError) else REFUSED) from error


app = typer.Typer(
    name="autotune",
    cls=Commands,
    help="Makes diffusers pipelines run as fast as they can inside a VRAM cap.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("probe")(machine.probe)
app.command("estimate", cls=LeverCommand)(estimate)
app.add_typer(profiles_app, name="profiles")


@app.command()
@with_groups
def plan(
    model: options.Model,
    *,
    gpu: options.Gpu = None,
    device: options.Device = None,
    max_vram: options.MaxVram = None,
    max_ram: options.MaxRam = None,
    call: CallOptions,
    setup: SetupOptions,
    calls: options.Calls = 1,
    quality: options.Quality = "near",
    objective: options.Objective = "latency",
    keep: options.Keep = None,
    forbid: options.Forbid = None,
    allow: options.Allow = None,
    profiles: options.Profiles = None,
    no_profiles: options.NoProfiles = False,
    no_undo: options.NoUndo = False,
    as_code: options.AsCode = False,
    as_json: options.AsJson = False,
) -> None:
    """The fastest plan under a cap, its reasons, and the front it was chosen from."""
    from autotune.cli.payload import code_for, explanation_json, print_json
    from autotune.cli.progress import watched
    from autotune.cli.show import page, show_explanation, show_ladder
    from autotune.flow.ask import Question, answer

    with watched(model, silent=as_json) as report:
        question = Question(
            model, gpu=gpu, device=device, max_vram=options.size_from(max_vram), max_ram=options.size_from(max_ram),
            workload=call.workload, calls=calls, **setup.question,
            quality=quality, objective=objective, keep=options.kept(keep), forbid=tuple(forbid or ()), allow=tuple(allow or ()),
            profiles=options.profiles_from(profiles, none_at_all=no_profiles), undo=not no_undo, progress=report,
        )  # fmt: skip
        try:
            explained, front = answer(question)
        except DoesNotFitError as error:
            if as_json:
                print_json({"error": str(error), "smallest_bytes": error.smallest_bytes, "phase": error.phase})
            raise
    if as_json:
        code = code_for(explained, card=gpu)
        print_json({**explanation_json(explained), "code": code, "searched": front.searched, "front": front.rows()})
        return
    if as_code:
        typer.echo(code_for(explained, card=gpu))
        return
    console = page()
    show_explanation(console, explained)
    show_ladder(console, front, explained.chosen, quality)


@app.command()
@with_groups
def explore(
    model: options.Model,
    *,
    gpu: options.Gpu = None,
    device: options.Device = None,
    call: CallOptions,
    setup: SetupOptions,
    calls: options.Calls = 1,
    keep: options.Keep = None,
    forbid: options.Forbid = None,
    allow: options.Allow = None,
    profiles: options.Profiles = None,
    no_profiles: options.NoProfiles = False,
    no_undo: options.NoUndo = False,
    as_json: options.AsJson = False,
) -> None:
    """The Pareto front over VRAM, RAM, seconds and quality."""
    from autotune.cli.payload import front_json, print_json
    from autotune.cli.progress import watched
    from autotune.cli.show import page, say, show_front
    from autotune.flow.ask import Question, front_for

    with watched(model, silent=as_json) as report:
        front = front_for(
            Question(
                model,
                gpu=gpu,
                device=device,
                workload=call.workload,
                calls=calls,
                **setup.question,
                keep=options.kept(keep),
                forbid=tuple(forbid or ()),
                allow=tuple(allow or ()),
                profiles=options.profiles_from(profiles, none_at_all=no_profiles),
                undo=not no_undo,
                progress=report,
            )
        )
    if as_json:
        print_json(front_json(front))
        return
    console = page()
    say(console, f"{front.model} {front.workload.label} | {front.device.name}")
    show_front(console, front)


@app.command()
@with_groups
def explain(
    model: options.Model,
    *,
    gpu: options.Gpu = None,
    device: options.Device = None,
    max_vram: options.MaxVram = None,
    call: CallOptions,
    setup: SetupOptions,
    as_json: options.AsJson = False,
) -> None:
    """What a model costs as it is, by phase."""
    from autotune.flow.ask import Question

    workload, stated = call.workload, setup.question
    Question(model, gpu=gpu, device=device, workload=workload, **stated)  # refuses what it can before torch is imported
    from autotune import api
    from autotune.cli.payload import explanation_json, print_json
    from autotune.cli.progress import watched
    from autotune.cli.show import page, show_explanation

    with watched(model, silent=as_json):
        explained = api.explain(
            model,
            gpu=gpu,
            device=device,
            max_vram=options.size_from(max_vram),
            workload=workload,
            **stated,
        )
    if as_json:
        print_json(explanation_json(explained))
        return
    show_explanation(page(), explained)


def main() -> None:
    """Runs the command line of this process."""
    app()
