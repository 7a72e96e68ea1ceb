"""Which pipelines are traced fully, and why the others fall back: `python -m benchmarks.coverage`, or `--check`.

Traced are every pipeline of the zoo with its published networks, in the call that its card recommends but small, and the 40
classes of `coverage_classes.py`, shrunk. Writes `docs/coverage.md`; with `--check` it writes nothing and exits 1 where that
table would come out otherwise. With names it traces these alone and leaves the other rows as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from autotune.errors import AutotuneError
from autotune.flow.job import Job, job_for
from autotune.flow.recordings import Recordings
from autotune.probe.gpu import cpu_device
from autotune.probe.inputs import needs_image
from autotune.records.workload import Workload
from autotune.upstream.port import parameters_of
from autotune.zoo.build import build, quiet
from autotune.zoo.card_call import card_call
from autotune.zoo.recipes import names, recipes
from benchmarks.coverage_classes import CLASSES, shrunk

__all__ = ["TABLE", "Row", "kept", "rows", "small_job", "table", "traced"]

TABLE = Path(__file__).parents[1] / "docs" / "coverage.md"
EDGE_PX, FRAMES = 256, 9
STEPS = 10  # of which image-to-image runs a share, 0.3 by default in SDXL
_OTHERS = "not reached"  # how a trace calls components after the one that failed
_KNOWN = {known.pipeline_class: known for known in CLASSES}


class Row(NamedTuple):
    """One pipeline and how it was traced."""

    name: str
    """A zoo name or a class of diffusers."""
    of: str
    """The pipeline's class, or the zoo model whose networks the class was shrunk from."""
    call: str
    """The call that was traced: its size as it is computed, steps, guidance and inputs."""
    reason: str
    """Why it falls back; empty where everything was traced."""


def traced(name: str) -> Row:
    """Traces one small call of a zoo model or a class, shrunk.

    >>> traced("sd15")
    Row(name='sd15', of='StableDiffusionPipeline', call='256x256, 50 steps', reason='')
    """
    known = _KNOWN.get(name)
    of = known.relative if known else recipes()[name].pipeline_class or ""
    try:
        with quiet():
            job = small_job(name)
            recordings = Recordings(job, job.largest, job.calls[0])
            trace = recordings.whole()
    except AutotuneError as error:
        return Row(name, of, "", str(error).partition(";")[0])  # after it stands what a caller can do
    untraced = trace.untraced or ({} if trace.denoiser_calls else {"the denoiser": "was never called"})
    reasons = (f"{part}: {why}" for part, why in untraced.items() if not why.startswith(_OTHERS))
    return Row(name, of, recordings.made.label, "; ".join(reasons))


def small_job(name: str, *, frames: int = FRAMES) -> Job:
    """A small call of a zoo model as its card recommends, or of a class, shrunk."""
    if name not in _KNOWN:
        recipe = recipes()[name]
        return _small(build(recipe), card_call(recipe), frames)
    pipe = shrunk(_KNOWN[name])
    return _small(pipe, Workload(steps=STEPS if "num_inference_steps" in parameters_of(pipe) else None), frames)


def _small(pipe: Any, usual: Workload, frames: int) -> Job:
    parameters = parameters_of(pipe)
    edge_px = EDGE_PX if {"height", "width"} <= parameters.keys() or needs_image(pipe) else None
    small = Workload(height=edge_px, width=edge_px, frames=frames if "num_frames" in parameters else None)
    return job_for(pipe, device=cpu_device(), workload=small, defaults=usual, example=None, calls=1, undo=False)


def rows(wanted: Iterable[str] = ()) -> Iterator[Row]:
    """Every pipeline, the zoo's first. What is not wanted, if anything is named, stays as the table has it, and so do models
    that need packages which are not installed here.
    """
    only, before = frozenset(wanted), kept()
    for name in (*names(), *_KNOWN):
        stays = name in before and ((only and name not in only) or _lacks_packages(name))
        yield before[name] if stays else traced(name)


def _lacks_packages(name: str) -> bool:
    return name in recipes() and any(find_spec(package) is None for package in recipes()[name].requires)


def kept() -> dict[str, Row]:
    """The rows of the table as it is, by name."""
    lines = (line.strip("| \n").split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines())
    cells = (line for line in lines if line[0] in _KNOWN or line[0] in recipes())
    return {name: Row(name, of, call, why[0] if why else "") for name, of, call, _, *why in cells}


def table(found: Iterable[Row]) -> str:
    """The rows as the text of `docs/coverage.md`."""
    listed = list(found)
    zoo, classes = listed[: len(names())], listed[len(names()) :]
    lines = [
        "# Which pipelines are traced fully",
        "",
        f"Made by `python -m benchmarks.coverage`: a call of each at {EDGE_PX}x{EDGE_PX} pixels, {FRAMES} frames of a video,",
        "or the size it has whatever is asked for; of the zoo's in all else as its card recommends.",
        f"{_share(listed)} are traced fully. Where a part falls back, it is estimated by its weights and a margin.",
        "",
        f"## The zoo, with its published networks: {_share(zoo)}",
        "",
        *_lines("model", "class", zoo),
        "",
        f"## Classes of diffusers, shrunk from the zoo's configurations: {_share(classes)}",
        "",
        *_lines("class", "shrunk from", classes),
    ]
    return "\n".join(lines) + "\n"


def _share(listed: list[Row]) -> str:
    full = sum(not row.reason for row in listed)
    return f"{full} of {len(listed)} ({100 * full / len(listed):.0f} %)"


def _lines(first: str, second: str, listed: list[Row]) -> list[str]:
    cells = (
        f"| {name} | {of} | {call} | {'falls back' if why else 'full'} | {why} |" for name, of, call, why in listed
    )
    return [f"| {first} | {second} | call | traced | why not |", "|---|---|---|---|---|", *cells]


def main() -> int:
    """Writes or checks the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="zoo models and classes to trace; all of them if none is named")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the table is stale")
    options = parser.parse_args()
    text = table(rows(options.names))
    print(text)
    if not options.check:
        TABLE.write_text(text, encoding="utf-8")
    stale = text != TABLE.read_text(encoding="utf-8")
    if stale:
        print(f"{TABLE.name} is stale; run `python -m benchmarks.coverage`")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
