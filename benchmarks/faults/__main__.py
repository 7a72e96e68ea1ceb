"""`python -m benchmarks.faults --json OUT`: some thousands of faults, and what is left of the pipeline after each.

For two families and one exception every point of applying a plan of every lever is tried, of taking it back, and of a rollback;
for the others a sample by chance, in every phase and with every exception. Then: what is still there once a pipeline is let go,
how long the look before a call takes, and whether memory grows from cycle to cycle.
"""

from __future__ import annotations

import gc
import json
from argparse import ArgumentParser
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, sleep

import psutil
import torch

from autotune.guard.standing import Standing
from autotune.records.plan import Plan
from autotune.zoo.locate import locate
from benchmarks.faults.family import suffered
from benchmarks.faults.plans import FAMILIES, scenes_of

_WARM_CYCLES, _CYCLES = 5, 50
# The fastest counts, of several bursts: a machine that is busy with something else says nothing of the look.
_BURSTS, _LOOKS, _PAUSE_S = 6, 50, 0.3
_SUMS = ("points", "wrong_images", "half_applied", "not_reached")


def guard_ms() -> dict[str, float]:
    """How long the look before a call takes on structures of full size, in milliseconds."""
    took: dict[str, float] = {}
    for name in ("sdxl", "flux-dev"):
        pipe = locate(name)[0]
        standing = Standing(pipe, Plan())
        took_s = []
        for number in range(_BURSTS * _LOOKS):
            if number % _LOOKS == 0:
                sleep(_PAUSE_S)
            start_s = perf_counter()
            changes = standing.changes(pipe)
            took_s.append(perf_counter() - start_s)
            assert changes == []
        took[name] = round(min(took_s) * 1e3, 3)
    return took


def growth_pct(family: str = "sd") -> float:
    """How much more memory the process has after 50 cycles of build, optimise, call and drop than after 5."""
    sizes: dict[int, int] = {}
    scenes = [scene for name, scene in scenes_of(family) if name != "traced"]
    for cycle in range(1, _CYCLES + 1):
        scenes[cycle % len(scenes)].unfreed()
        if cycle in {_WARM_CYCLES, _CYCLES}:
            gc.collect()
            sizes[cycle] = psutil.Process().memory_info().rss
    return round(100 * (sizes[_CYCLES] / sizes[_WARM_CYCLES] - 1), 2)


def main() -> None:
    """The command."""
    parser = ArgumentParser(prog="benchmarks.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--per-scene", type=int, default=30, help="points by chance for each plan of each family")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--jobs", type=int, default=2, help="processes, a family each")
    parser.add_argument(
        "--sample-only", action="store_true", help="leave out the families in which every point is tried"
    )
    asked = parser.parse_args()
    start_s = perf_counter()
    looks, growth = guard_ms(), growth_pct()
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("spawn")) as pool:
        whole = not asked.sample_only
        running = [pool.submit(suffered, family, asked.per_scene, asked.seed, whole) for family in asked.families]
        found = [one.result() for one in running]
    said = [line for counts, _, _ in found for line in counts.said]
    figures = {
        **{name: sum(getattr(counts, name) for counts, _, _ in found) for name in _SUMS},
        "unfreed_pipelines": sum(unfreed for _, unfreed, _ in found),
        "leaked_bytes": sum(leaked_bytes for _, _, leaked_bytes in found),
        "guard_ms": max(looks.values()),
        "guard_ms_by_model": looks,
        "rss_growth_pct": growth,
        "seed": asked.seed,
        "torch": torch.__version__,
        "seconds": round(perf_counter() - start_s),
    }
    for line in said:
        print(line)
    print(json.dumps(figures, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(figures | {"said": said}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
