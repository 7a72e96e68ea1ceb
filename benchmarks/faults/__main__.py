"""`python -m benchmarks.faults --json OUT`: some thousands of faults, and what is left of the pipeline after each.

For two families and one exception every point of applying a plan of every lever is tried, for the others a sample by chance, in
every phase and with every exception. Then: what is still there once a pipeline is let go, how long the look before a call
takes, and whether memory grows from cycle to cycle.
"""

from __future__ import annotations

import gc
import json
import random
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import diffusers
import psutil
import torch

from autotune.guard.standing import Standing
from autotune.records.plan import Plan
from autotune.zoo.locate import locate
from benchmarks.faults.inject import ERRORS
from benchmarks.faults.plans import FAMILIES, scenes_of
from benchmarks.faults.scenes import PHASES, Counts, Point, Scene

EVERY = ("sd", "flux")
"""The families in which every point of the plan of every lever is tried."""
_WARM_CYCLES, _CYCLES = 5, 50
_LOOKS = 50  # the fastest counts: a machine that is busy with something else says nothing of the look
_IMAGE_EVERY = 4  # of the exhaustive points; the tensors are compared at each


def sample(scene: Scene, count: int, chance: random.Random) -> Iterator[Point]:
    """So many points, as many in each phase as in any other, with exceptions in turn."""
    sizes = {phase: scene.count(phase) for phase in PHASES}
    errors = list(ERRORS)
    for number in range(count):
        phase = list(PHASES)[number % len(PHASES)]
        if sizes[phase]:
            also = chance.randrange(8) if phase == "rollback" else 0
            yield Point(phase, chance.choice(errors), chance.randrange(sizes[phase]), also)


def every(scene: Scene) -> Iterator[Point]:
    """Each point of applying and of restoring, broken off by one exception."""
    for phase in ("apply", "undo"):
        for at in range(scene.count(phase)):
            yield Point(phase, "KeyboardInterrupt", at)


def faults(counts: Counts, *, per_scene: int, seed: int, families: tuple[str, ...], whole: bool) -> dict[str, Any]:
    """Tries them; gives back what stays of pipelines that are let go."""
    unfreed = leaked_bytes = 0
    for family in families:
        for name, scene in scenes_of(family):
            chance = random.Random(f"{seed} {family} {name}")
            for point in sample(scene, per_scene, chance):
                scene.suffer(point, counts)
            if whole and family in EVERY and name == "everything":
                for number, point in enumerate(every(scene)):
                    scene.suffer(point, counts, look=number % _IMAGE_EVERY == 0)
            kept, left_bytes = scene.unfreed() if name != "traced" else (0, 0)  # torch.jit.trace keeps what it traced
            unfreed, leaked_bytes = unfreed + kept, leaked_bytes + left_bytes
    return {"leaked_bytes": leaked_bytes, "unfreed_pipelines": unfreed}


def guard_ms() -> dict[str, float]:
    """How long the look before a call takes on structures of full size, in milliseconds."""
    took: dict[str, float] = {}
    for name in ("sdxl", "flux-dev"):
        pipe = locate(name)[0]
        standing = Standing(pipe, Plan())
        took_s = []
        for _ in range(_LOOKS):
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
    parser.add_argument("--per-scene", type=int, default=40, help="points by chance for each plan of each family")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--families", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument(
        "--sample-only", action="store_true", help="leave out the families in which every point is tried"
    )
    asked = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    start_s = perf_counter()
    counts = Counts()
    growth = growth_pct()
    left = faults(
        counts,
        per_scene=asked.per_scene,
        seed=asked.seed,
        families=tuple(asked.families),
        whole=not asked.sample_only,
    )
    looks = guard_ms()
    figures = {
        **{name: value for name, value in asdict(counts).items() if name != "said"},
        **left,
        "guard_ms": max(looks.values()),
        "guard_ms_by_model": looks,
        "rss_growth_pct": growth,
        "seed": asked.seed,
        "torch": torch.__version__,
        "seconds": round(perf_counter() - start_s),
    }
    for line in counts.said:
        print(line)
    print(json.dumps(figures, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(figures | {"said": counts.said}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
