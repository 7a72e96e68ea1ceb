"""`autotune profiles`: what is remembered, and how the profiles that ship are made."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autotune.cli.options import AsJson

if TYPE_CHECKING:
    from autotune.flow.question import Progress
    from autotune.records.front import Front
    from autotune.records.profile import Profile
    from autotune.records.workload import Workload

__all__ = ["app"]

# What ships: each model at its default size and at one more.
EXTRA_SIZES_PX = {"sd15": (768, 768), "sdxl-base-1.0": (768, 768), "flux1-dev": (512, 512)}
CARDS = ("NVIDIA GeForce RTX 3060 12GB", "NVIDIA GeForce RTX 4070", "Tesla T4")

Folder = Annotated[
    Path | None,
    typer.Option("--profiles", metavar="DIR", help="A folder of profiles to look in as well, first."),
]

app = typer.Typer(help="Fronts that were searched before, as files.")


@app.command("list")
def list_profiles(*, profiles: Folder = None, as_json: AsJson = False) -> None:
    """The profiles that the next call would find."""
    from autotune.cli.payload import print_json
    from autotune.cli.show import page, say, show_table

    found = _entries(profiles)
    if as_json:
        print_json([{"name": name, "file": str(path), **_facts(profile)} for name, (path, profile) in found.items()])
        return
    console = page()
    if not found:
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
            (name, p.front.model, p.front.workload.label, p.front.device.name, str(len(p.front)))
            for name, (_, p) in found.items()
        ),
    )


@app.command("show")
def show_profile(
    name: Annotated[str, typer.Argument(help="A name as `profiles list` prints it, or a file.", metavar="NAME")],
    *,
    profiles: Folder = None,
    as_json: AsJson = False,
) -> None:
    """The front in a profile."""
    from autotune.cli.payload import front_json, print_json
    from autotune.cli.show import page, say, show_front
    from autotune.errors import AutotuneError, nearest

    found = _entries(profiles)
    match = next((entry for known, entry in found.items() if name in {known, str(entry[0])}), None)
    if match is None:
        known = f"nearest: {nearest(name, list(found))}" if found else "there are none yet"
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
    model: Annotated[list[str] | None, typer.Option("--model", help="Model to search. Repeatable.")] = None,
    gpu: Annotated[list[str] | None, typer.Option("--gpu", help="Card of the catalogue. Repeatable.")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path("profiles"),
    as_json: AsJson = False,
) -> None:
    """Searches anew and writes the profiles that ship, in place of those that are there."""
    from autotune.cli.payload import print_json
    from autotune.report.progress import watched
    from autotune.zoo.recipes import find

    written = []
    for asked in model or EXTRA_SIZES_PX:
        recipe = find(asked)
        name = recipe.name if recipe is not None else asked
        for workload in _workloads(name):
            for card in gpu or CARDS:
                with watched(f"{name}, {workload.label}, {card}", silent=as_json) as report:
                    written.append(_build(name, workload, card, out, report))
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


def _build(model: str, workload: Workload, card: str, out: Path, report: Progress) -> Path:
    """Searches and writes one profile. A store that looks nowhere finds nothing, so it always searches."""
    from autotune.errors import AutotuneError
    from autotune.flow.ask import job_of
    from autotune.flow.planning import front_of
    from autotune.flow.question import Question
    from autotune.flow.recall import recalled
    from autotune.probe import catalog
    from autotune.store.key import hash_workload
    from autotune.store.profiles import ProfileStore

    device = catalog.card(card)
    job = job_of(Question(model, gpu=card, workload=workload, progress=report), device)

    def held() -> list[Path]:
        wanted = (job.model.name, catalog.slug(device), hash_workload(job.largest.key))
        entries = ProfileStore([out], write_to=out).entries()
        return [path for path, p in entries if (p.front.model, p.key.gpu, p.key.workload) == wanted]

    def searched() -> Front:
        front = front_of(job)
        for (
            path
        ) in held():  # made by other rates or another structure: answers that nothing would ask for, under our name
            path.unlink()
        return front

    recalled(ProfileStore([], write_to=out), job, searched)
    written = held()
    if not written:
        raise AutotuneError(f"no profile was written to {out}; name a folder that can be written to with --out")
    return written[0]
