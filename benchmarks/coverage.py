"""Which pipelines are traced fully, and why the others fall back: `python -m benchmarks.coverage`, or `--check`.

Traced are every pipeline of the zoo at full size, and the 40 classes of `coverage_classes.py`, shrunk. Writes
`docs/coverage.md`; with `--check` it writes nothing and exits 1 where that table would come out otherwise.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from autotune.errors import AutotuneError
from autotune.flow.job import job_for
from autotune.flow.recordings import Recordings
from autotune.probe.gpu import cpu_device
from autotune.probe.inputs import needs_image, parameters_of
from autotune.records.workload import Workload
from autotune.zoo.build import build, quiet
from autotune.zoo.recipes import names, recipes
from benchmarks.coverage_classes import CLASSES, shrunk

__all__ = ["TABLE", "Row", "rows", "table", "traced"]

TABLE = Path(__file__).parents[1] / "docs" / "coverage.md"
EDGE_PX, FRAMES = 256, 9
STEPS = 10  # of which image-to-image runs a share, 0.3 by default in SDXL
_OTHERS = "not reached"  # how a trace calls components after the one that failed


class Row(NamedTuple):
    """One pipeline and how it was traced."""

    name: str
    """A zoo name or a class of diffusers."""
    of: str
    """The pipeline's class, or the zoo model whose networks the class was shrunk from."""
    reason: str
    """Why it falls back; empty where everything was traced."""


def traced(make: Callable[[], Any]) -> str:
    """Traces one small call of the pipeline that this makes; says what fell back and why, or nothing.

    >>> from autotune.zoo.recipes import find
    >>> traced(lambda: build(find("sd15")))
    ''
    """
    try:
        untraced = _untraced(make())
    except AutotuneError as error:
        return str(error).partition(";")[0]  # after it stands what a caller can do
    return "; ".join(f"{name}: {reason}" for name, reason in untraced.items() if not reason.startswith(_OTHERS))


def _untraced(pipe: Any) -> dict[str, str]:
    parameters = parameters_of(pipe)
    sized = {"height", "width"} <= parameters.keys() or needs_image(pipe)
    workload = Workload(
        height=EDGE_PX if sized else None,
        width=EDGE_PX if sized else None,
        frames=FRAMES if "num_frames" in parameters else None,
        steps=STEPS if "num_inference_steps" in parameters else None,
    )
    with quiet():
        job = job_for(pipe, device=cpu_device(), workload=workload, example=None, calls=1, undo=False)
        trace = Recordings(job, job.largest, job.calls[0]).whole()
    return trace.untraced or ({} if trace.denoiser_calls else {"the denoiser": "was never called"})


def rows() -> Iterator[Row]:
    """Every pipeline, the zoo's first."""
    for name in names():
        recipe = recipes()[name]
        yield Row(name, recipe.pipeline_class or "", traced(partial(build, recipe)))
    for known in CLASSES:
        yield Row(known.pipeline_class, known.relative, traced(partial(shrunk, known)))


def table(found: Iterable[Row]) -> str:
    """The rows as the text of `docs/coverage.md`."""
    listed = list(found)
    zoo, classes = listed[: len(names())], listed[len(names()) :]
    lines = [
        "# Which pipelines are traced fully",
        "",
        f"Made by `python -m benchmarks.coverage`: a call of each at {EDGE_PX}x{EDGE_PX} pixels, {FRAMES} frames of a video.",
        f"{_share(listed)} are traced fully. Where a part falls back, it is estimated by its weights and a margin.",
        "",
        f"## The zoo at full size: {_share(zoo)}",
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
    cells = (f"| {name} | {of} | {'falls back' if why else 'full'} | {why} |" for name, of, why in listed)
    return [f"| {first} | {second} | traced | why not |", "|---|---|---|---|", *cells]


def main() -> int:
    """Writes or checks the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the table is stale")
    check = parser.parse_args().check
    text = table(rows())
    print(text)
    if not check:
        TABLE.write_text(text, encoding="utf-8")
    stale = text != TABLE.read_text(encoding="utf-8")
    if stale:
        print(f"{TABLE.name} is stale; run `python -m benchmarks.coverage`")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
