"""How long one waits for a plan of any zoo model, and which counts disagree: `python -m benchmarks.zoo_planning [--json OUT]`.

Every model is planned in a process of its own, with no profile and no kept trace, on a described card without caps; seconds
are CPU seconds beyond importing torch, diffusers and the pipeline's class. Half an hour on two cores.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.tables import Row, json_argument, publish

_ROOT = Path(__file__).parents[1]
_GPU = "RTX 4060 Ti 16GB"
_OTHER_GPU = "RTX 3060 12GB"
_TIMEOUT_S = 5 * 60
_UNSHIPPED = ["--height", "896", "--width", "896"]  # a size that no profile has which ships
_COUNTED = ("sd15", "sdxl", "flux-dev")
_PLANS = 1000  # whose counts are compared, over all of those
_SEED = 7


def main() -> None:
    """Measures everything."""
    json_path = json_argument((__doc__ or "").splitlines()[0])
    rows = [*_zoo_rows(), *_question_rows(), _second_card_row(), *_search_rows(), *_count_rows(), _shortcut_row()]
    publish("Planning the zoo", rows, json_path)


def _zoo_rows() -> Iterator[Row]:
    from autotune.zoo.recipes import names

    found = {name: _child(f"planned({name!r}, {{}})") for name in names()}
    spent = {name: one["cpu_s"] for name, one in found.items()}
    worst = max(spent, key=lambda name: spent[name])
    yield Row("zoo_cold_median_s", (median(spent.values()),), f"CPU seconds of planning, {len(spent)} models")
    yield Row("zoo_cold_worst_s", (spent[worst],), f"of {worst}")
    yield Row("plan_wan14b_s", (spent["wan2.1-t2v-14b"],), "wan2.1-t2v-14b in its full length")
    yield Row("rss_mb", (max(one["rss_mb"] for one in found.values()),), "the most that a process held")
    for name in spent:
        wall_s = found[name]["wall_s"]
        yield Row(f"{name}_s", (spent[name],), f"wall {wall_s:.1f} s, imports {found[name]['import_s']:.1f} s", False)


def _question_rows() -> Iterator[Row]:
    found = _child("planned('sd15', {'num_images_per_prompt': 32})")
    yield Row("plan_sd15_b32_s", (found["cpu_s"],), "CPU seconds of planning, sd15, 32 images")


def planned(name: str, workload: dict[str, Any]) -> None:
    """Child: seconds of exploring a model, those of its imports apart."""
    import diffusers
    import torch  # noqa: F401

    from autotune.zoo.build import quiet
    from autotune.zoo.recipes import recipes

    with quiet():
        start_s = time.process_time()
        getattr(diffusers, recipes()[name].pipeline_class)
        for library in ("transformers", "accelerate"):
            __import__(library)
        import_s = time.process_time() - start_s
        import autotune

        start_s, wall_s = time.process_time(), time.perf_counter()
        autotune.explore(name, gpu=_GPU, workload=workload or None, profiles=False)
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    spent_s, wall_s = time.process_time() - start_s, time.perf_counter() - wall_s
    _answer(cpu_s=spent_s, wall_s=wall_s, import_s=import_s, rss_mb=rss_mb)


def _second_card_row() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        _plan("sdxl", _GPU, folder, "first")
        if not list(Path(folder, "calls").glob("*.npz")):
            raise RuntimeError("no traces were kept")
        seconds = tuple(_plan("sdxl", _OTHER_GPU, folder, f"profiles-{number}") for number in range(3))
    return Row("second_card_s", seconds, f"`autotune plan sdxl --gpu '{_OTHER_GPU}'` after another card, process")


def _search_rows() -> Iterator[Row]:
    found = _child("searched()")
    yield Row("space_size_sdxl", (found["plans"],), "plans that are allowed")
    yield Row("distinct_programs_sdxl", (found["programs"],), "that differ in what the card's memory does")
    yield Row("front_s", (found["front_s"],), "SDXL's front from its traces")
    yield Row("programs_per_s", (found["programs_per_s"],), "calls on the allocator, one after the other")
    yield Row("estimates_per_s", (found["estimates_per_s"],), "seconds, RAM and live bytes of SDXL's plans")


def searched() -> None:
    """Child: SDXL's space, and how fast it is searched once it was traced."""
    from autotune.flow.fronts import front_from, replayers_of, running
    from autotune.flow.planning import place_for
    from autotune.records.placement import placed
    from autotune.search.grid import Grid

    job, findings = _findings("sdxl")
    space, place = running(findings.space, findings.calls), place_for(job)
    start_s = time.perf_counter()
    front_from(findings, place)
    front_s = time.perf_counter() - start_s
    (replayer,) = replayers_of(findings, space, place)
    grid = Grid(space)
    start_s = time.perf_counter()
    replayer.costs(space.values, grid.codes)
    costs_s = time.perf_counter() - start_s
    whole = [plan.over(space.found) for plan in space.plans()]
    programs = {(plan.execution, str(placed(findings.model, plan))): plan for plan in whole}
    timelines = [replayer.timeline(plan) for plan in random.Random(_SEED).sample(list(programs.values()), 50)]
    for timeline in timelines:
        timeline.run()
    start_s = time.perf_counter()
    for timeline in timelines:
        timeline.run()
    run_s = (time.perf_counter() - start_s) / len(timelines)
    _answer(
        plans=len(grid), programs=len(programs), front_s=front_s, programs_per_s=1 / run_s,
        estimates_per_s=len(grid) / costs_s,
    )  # fmt: skip


def _count_rows() -> Iterator[Row]:
    found = [_child(f"counted({name!r})") for name in _COUNTED]
    plans = sum(one["plans"] for one in found)
    wrong, missing = (sum(one[what] for one in found) for what in ("mismatches", "missing"))
    yield Row("count_mismatches", (wrong,), f"of {plans} plans of {', '.join(_COUNTED)}, two calls and smallest limits")
    yield Row("front_missing", (missing,), "plans of exhaustive fronts that the search does not bring")


def counted(name: str) -> None:
    """Child: plans whose count differs from the reference's, and plans of the exhaustive front that the search has lost."""
    from autotune.flow.fronts import replayers_of, running
    from autotune.flow.planning import place_for
    from autotune.search.front import pareto
    from autotune.search.study import search
    from autotune.simulate.allocator_settings import Settings
    from benchmarks.reference.call import Reference

    job, findings = _findings(name)
    space, place = running(findings.space, findings.calls), place_for(job)
    settings = (None, Settings(expandable_segments=True), Settings(roundup_power2_divisions=(8,) * 16))
    everything = list(space.plans())
    sample = random.Random(_SEED).sample(everything, min(len(everything), _PLANS // len(_COUNTED)))
    by_setting = {one: replayers_of(findings, space, place._replace(settings=one))[0] for one in settings}
    mismatches = 0
    for number, (plan, one) in enumerate(zip(sample, settings * len(sample), strict=False)):
        whole, timeline = plan.over(space.found), by_setting[one].timeline(plan)
        reference = Reference(
            findings.calls[0].traces[plan.execution], model=findings.model, plan=whole, device=job.device,
            attention=whole.attention or "sdpa", settings=one,
        )  # fmt: skip
        mismatches += any(timeline.run(calls=calls) != reference.run(calls=calls) for calls in (1, 2))
        if number % 20 == 0:
            limit = timeline.smallest_limit()
            mismatches += timeline.run(limit, calls=2) != reference.run(limit, calls=2)
    replayer = by_setting[None]
    found = search(space, replayer, lambda values, codes: replayer.costs(values, codes))
    whole_front = pareto(search(space, replayer).evaluated)
    brought = {candidate.plan.id for candidate in found.front}
    _answer(plans=len(sample), mismatches=mismatches, missing=sum(one.plan.id not in brought for one in whole_front))


def _shortcut_row() -> Row:
    from benchmarks.reference.traces import LOOPING

    wrong = [f"{name}: {why}" for name in LOOPING for why in _child(f"shortened({name!r})")["differences"]]
    words = f"of {2 * len(LOOPING)} small calls with loops over frames or tiles, against traces without any shortcut"
    return Row("trace_shortcut_mismatches", (len(wrong),), "; ".join([words, *wrong]))


def shortened(name: str) -> None:
    """Child: where traces of a small pipeline differ from those in which all is traced."""
    from autotune.zoo.build import quiet
    from benchmarks.reference.traces import TILE_PX, difference, segments_of, without_memory, without_shortcuts

    found = []
    with quiet():
        for tiling in (None, TILE_PX):
            short = segments_of(name, tiling)
            with without_shortcuts(), without_memory():
                found.append(difference(short, segments_of(name, tiling)))
    _answer(differences=[why for why in found if why])


def _findings(name: str) -> tuple[Any, Any]:
    """The job of a zoo model, and its traces."""
    from autotune.flow.job import job_for
    from autotune.flow.planning import findings_of
    from autotune.probe.catalog import card
    from autotune.zoo.build import quiet
    from autotune.zoo.locate import locate

    with quiet():
        job = job_for(
            locate(name).pipe, device=card(_GPU), workload=None, example=None, calls=1, undo=False, unloaded=True
        )
        return job, findings_of(job)


def _plan(model: str, gpu: str, folder: str, profiles: str) -> float:
    """Seconds of a command with a cache and a folder for profiles of its own."""
    where = ["--profiles", str(Path(folder, profiles))]
    start_s = time.perf_counter()
    _run(
        [sys.executable, "-m", "autotune", "plan", model, "--gpu", gpu, *_UNSHIPPED, *where],
        {"AUTOTUNE_CACHE_DIR": folder},
    )
    return time.perf_counter() - start_s


def _child(call: str) -> dict[str, Any]:
    """What a function of this file answers in a process of its own."""
    text = _run([sys.executable, "-c", f"from benchmarks.zoo_planning import *\n{call}"], {})
    found: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return found


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=_ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _answer(**found: Any) -> None:
    print(json.dumps(found))


__all__ = ["counted", "main", "planned", "searched", "shortened"]

if __name__ == "__main__":
    main()
