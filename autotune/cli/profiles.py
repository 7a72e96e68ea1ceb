"""`autotune profiles`: what is remembered, and how what ships is made: traces, which answer for every card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.cli.options import AsJson

if TYPE_CHECKING:
    from autotune.flow.question import Progress
    from autotune.records.kept import KeptCall
    from autotune.records.profile import Profile
    from autotune.records.workload import Workload

__all__ = ["app"]

# What ships: traces of these models' default calls, and of one more size of some. 3 MB at most.
EXTRA_SIZES_PX = {"sd15": (768, 768), "sdxl-base-1.0": (768, 768), "flux1-dev": (512, 512)}
SHIPPED = (*EXTRA_SIZES_PX, "sd3.5-medium", "qwen-image", "z-image-turbo")
_ANY_CARD = "RTX 4060 Ti 16GB"  # traced for one, asked by all

Folder = Annotated[
    Path | None,
    typer.Option("--profiles", metavar="DIR", help="A folder of profiles to look in as well, first."),
]

app = typer.Typer(help="Fronts that were searched before and calls that were traced before, as files.")


@app.command("list")
def list_profiles(*, profiles: Folder = None, as_json: AsJson = False) -> None:
    """The profiles that the next call would find."""
    from autotune.cli.payload import print_json
    from autotune.cli.show import page, say, show_table

    found, calls = _entries(profiles), _calls()
    if as_json:
        fronts = [{"name": name, "file": str(path), **_facts(profile)} for name, (path, profile) in found.items()]
        traced = [{"name": name, "file": str(path), **_traced(call)} for name, (path, call) in calls.items()]
        print_json([*fronts, *traced])
        return
    console = page()
    if not found and not calls:
        say(
            console,
            "no profiles; `autotune plan` writes one after a search, `autotune profiles build` the ones that ship",
        )
        return
    columns = ("name", "model", "call", "card", ">plans")
    show_table(
        console,
        "Profiles, simulated",
        columns,
        (
            *(
                (name, p.front.model, p.front.workload.label, p.front.device.name, str(len(p.front)))
                for name, (_, p) in found.items()
            ),
            *((name, _shown(call), call.workload.label, "every card", "") for name, (_, call) in calls.items()),
        ),
        droppable=(">plans", "call", "model"),
    )


@app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="A name as `profiles list` prints it, or a file.", metavar="NAME")],
    *,
    profiles: Folder = None,
    as_json: AsJson = False,
) -> None:
    """The front in a profile, or what was traced of a call."""
    from autotune.cli.payload import front_json, print_json
    from autotune.cli.show import page, say, show_front
    from autotune.errors import AutotuneError, nearest

    found, calls = _entries(profiles), _calls()
    traced = next((entry for known, entry in calls.items() if name in {known, str(entry[0])}), None)
    if traced is not None:
        _show_call(*traced, as_json=as_json)
        return
    match = next((entry for known, entry in found.items() if name in {known, str(entry[0])}), None)
    if match is None:
        names = [*found, *calls]
        known = f"nearest: {nearest(name, names)}" if names else "there are none yet"
        raise AutotuneError(f"no profile {name!r} in the folders that are looked in; {known}")
    path, profile = match
    if as_json:
        print_json({"file": str(path), **_facts(profile), **front_json(profile.front)})
        return
    console = page()
    say(console, f"{profile.front.model} {profile.front.workload.label} | {profile.front.device.name} | {path}")
    show_front(console, profile.front, profile.front.candidates)


@app.command("build")
def build_profiles(
    *,
    model: Annotated[list[str] | None, typer.Option("--model", help="Model to trace. Repeatable.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path("profiles"),
    as_json: AsJson = False,
) -> None:
    """Traces anew the calls that ship, in place of those that are there. They answer for every card."""
    from autotune.cli.payload import print_json
    from autotune.report.progress import watched
    from autotune.zoo.recipes import find

    written = []
    for asked in model or SHIPPED:
        recipe = find(asked)
        name = recipe.name if recipe is not None else asked
        for workload in _workloads(name):
            with watched(f"{name}, {workload.label}", silent=as_json) as report:
                written.append(_build(name, workload, out / "calls", report))
            if not as_json:
                typer.echo(f"wrote {written[-1]}")
    if as_json:
        print_json([str(path) for path in written])


def _entries(folder: Path | None) -> dict[str, tuple[Path, Profile]]:
    """Profiles by the name they are shown under; of two with one name the first folder's."""
    from autotune.store.bundled import directories
    from autotune.store.profiles import ProfileStore

    found: dict[str, tuple[Path, Profile]] = {}
    for path, profile in ProfileStore(*directories(folder)).entries():
        found.setdefault(f"{path.parent.name}/{path.stem}", (path, profile))
    return found


def _calls() -> dict[str, tuple[Path, KeptCall]]:
    """Traced calls by the name they are shown under: those that came with autotune, and this user's."""
    from autotune.store.calls import CallStore, calls_directory, shipped_calls
    from autotune.store.key import other_versions, slug

    folders = [folder for folder in (shipped_calls(), calls_directory()) if folder is not None]
    found: dict[str, tuple[Path, KeptCall]] = {}
    for path, call in (entry for folder in folders for entry in CallStore(folder).entries()):
        if not other_versions(call.versions):
            found.setdefault(f"calls/{slug(call.model.name)}--{slug(call.workload.slug)}", (path, call))
    return dict(sorted(found.items()))


def _show_call(path: Path, call: KeptCall, *, as_json: bool) -> None:
    from autotune.cli.payload import print_json
    from autotune.cli.show import page, say

    if as_json:
        print_json({"file": str(path), **_traced(call)})
        return
    console = page()
    name = _shown(call)
    say(console, f"{name} {call.workload.label} | every card | {path}")
    made = ", ".join(f"{library} {version}" for library, version in call.versions.items())
    say(console, f"traced in {len(call.traces)} ways with {made}; for {len(call.offers)} kinds of cards")
    say(console, f"what it says of one: autotune plan {name} --gpu NAME")


def _shown(call: KeptCall) -> str:
    """The model's name, which comes out of a file."""
    return "".join(character for character in call.model.name if character.isprintable())


def _traced(call: KeptCall) -> dict[str, object]:
    return {
        "model": call.model.name,
        "workload": call.workload.model_dump(mode="json"),
        "traces": len(call.traces),
        "versions": call.versions,
    }


def _facts(profile: Profile) -> dict[str, object]:
    return {
        "model": profile.front.model,
        "gpu": profile.front.device.name,
        "workload": profile.front.workload.model_dump(mode="json"),
        "plans": len(profile.front),
        "versions": profile.versions,
    }


def _workloads(model: str) -> list[Workload]:
    from autotune.records.workload import Workload

    extra = EXTRA_SIZES_PX.get(model)
    return [Workload(), *([Workload(height=extra[0], width=extra[1])] if extra else [])]


def _build(model: str, workload: Workload, folder: Path, report: Progress) -> Path:
    """Traces one call and writes it."""
    from autotune.errors import AutotuneError
    from autotune.flow.ask import job_of, named_call
    from autotune.flow.kept import keep
    from autotune.flow.planning import findings_of, offers_of
    from autotune.flow.question import Question
    from autotune.probe import catalog
    from autotune.store.calls import CallStore, shipped_key

    question = Question(model, gpu=_ANY_CARD, workload=workload, progress=report)
    call, job = named_call(question), job_of(question, catalog.card(_ANY_CARD))
    if call is None:
        raise AutotuneError(f"{model} cannot be named without being built, so its traces would not be found")
    path = folder / f"{shipped_key(call.recipe.source_key, call.workload)}.npz"
    findings = findings_of(job)
    traced = findings.model.name, findings.largest.key
    for one, made in CallStore(folder).entries():  # by other code, or under a key that nothing would ask for
        if (made.model.name, made.workload.key) == traced:
            one.unlink()
    keep(CallStore(folder), path.stem, findings, lambda: offers_of(job, findings))
    if not path.is_file():
        raise AutotuneError(f"nothing was written to {folder}; name a folder that can be written to with --out")
    return path
