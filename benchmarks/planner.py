"""How long planning takes and how much memory tracing adds: `python -m benchmarks.planner [--json OUT]`.

Every measurement has processes of its own. Nothing is read from a profile but for `hit_s`, and files are in the page cache
already: each command is run once unmeasured. Times are disturbed by whatever else the machine does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.tables import Row, json_argument, publish

_ROOT = Path(__file__).parents[1]
_GPU = "NVIDIA GeForce RTX 3060 12GB"
_SAMPLING_S = 0.002


class _Model(NamedTuple):
    """A zoo model, the class its pipeline has, and a cap that some plan keeps on the card above."""

    name: str
    pipeline_class: str
    max_vram: str


_MODELS = {
    "sd15": _Model("sd15", "StableDiffusionPipeline", "4GB"),
    "sdxl": _Model("sdxl", "StableDiffusionXLPipeline", "8GB"),
    "flux": _Model("flux-dev", "FluxPipeline", "12GB"),
}


def main() -> None:
    """Measures everything, some five minutes."""
    json_path = json_argument(__doc__ or "")
    rows = [row for label, model in _MODELS.items() for row in _planning_rows(label, model)]
    rows += [*_replay_rows(), *_hit_rows(), _import_row(), _help_row(), _rss_row()]
    publish("Planner", rows, json_path)


def _planning_rows(label: str, model: _Model) -> Iterator[Row]:
    asked = ["--gpu", _GPU, "--max-vram", model.max_vram, "--no-profiles", "--json"]
    command = [sys.executable, "-m", "autotune", "plan", model.name, *asked]
    yield Row(f"plan_{label}_s", _timed(command, 3), f"`autotune plan {model.name}` under {model.max_vram}, process")
    inside = tuple(_child(f"plan_beyond_import({label!r})")["plan_s"] for _ in range(3))
    yield Row(f"plan_{label}_beyond_import_s", inside, "the same call, torch and diffusers imported before")


def plan_beyond_import(label: str) -> None:
    """Child: seconds of `autotune.plan`, its own import included, when torch and diffusers are there already."""
    model = _MODELS[label]
    import diffusers
    import torch  # noqa: F401

    getattr(diffusers, model.pipeline_class)
    start_s = time.perf_counter()
    import autotune

    autotune.plan(model.name, gpu=_GPU, max_vram=model.max_vram, profiles=False)
    _answer(plan_s=time.perf_counter() - start_s)


def _replay_rows() -> Iterator[Row]:
    found = [_child("replays()") for _ in range(3)]
    whats = {
        "trace_sdxl_s": "one recording of SDXL at 1024x1024 in fp32, its twin included",
        "replay_live_ms": "live bytes of one plan from that trace, segments summed up before",
        "replay_allocator_ms": "the same call through the allocator, instructions made before",
    }
    yield from (Row(figure, tuple(each[figure] for each in found), what) for figure, what in whats.items())


def replays() -> None:
    """Child: seconds of recording SDXL, milliseconds of replaying it under new plans."""
    from autotune.flow.job import job_for
    from autotune.flow.planning import collecting_no_garbage
    from autotune.flow.recordings import Recordings
    from autotune.probe.catalog import card
    from autotune.records.plan import LEVERS, Plan
    from autotune.search.space import Space
    from autotune.simulate.replay import Replayer
    from autotune.zoo.build import quiet
    from autotune.zoo.locate import locate

    with quiet(), collecting_no_garbage():
        pipe = locate("sdxl").pipe
        job = job_for(pipe, device=card(_GPU), workload=None, example=None, calls=1, undo=True)
        traces: list[Any] = []
        space = Space(values={name: (getattr(Plan(), name),) for name in LEVERS})
        trace_s = _seconds(lambda: traces.append(Recordings(job, job.largest, job.calls[0]).traces(space)))
        replayer = Replayer(traces[0], model=job.model, device=job.device, steps=30, undo=True)
        replayer([Plan(), Plan(offload="model")])
        live_s = _seconds(lambda: replayer([Plan(), Plan(offload="model")] * 50)) / 100
        timeline = replayer.timeline(Plan())
        allocator_s = median(_seconds(timeline.run) for _ in range(5))
    _answer(trace_sdxl_s=trace_s, replay_live_ms=live_s * 1e3, replay_allocator_ms=allocator_s * 1e3)


def _hit_rows() -> Iterator[Row]:
    for size, kind in (("full", "full-size SD 1.5 of random fp32 weights"), ("tiny", "tiny SD")):
        with tempfile.TemporaryDirectory() as folder:
            _child(f"remember({size!r}, {folder!r})")
            found = _child(f"hit({size!r}, {folder!r})")
        first_s, *optimize_s = found["optimize_s"]
        apply_s = found["apply_s"][1:]
        added = tuple(whole_s - apply_s for whole_s, apply_s in zip(optimize_s, apply_s, strict=True))
        headline = size == "full"
        name = "hit" if headline else f"hit_{size}"
        how = f"{kind}, CPU, exact lane"
        yield Row(f"{name}_s", added, f"optimize with a profile minus apply; {how}", headline)
        yield Row(f"{name}_first_s", (first_s - median(apply_s),), f"the same, first call of a process; {how}", False)
        yield Row(f"{name}_optimize_s", tuple(optimize_s), f"optimize with a profile; {how}", False)
        yield Row(f"{name}_apply_s", tuple(apply_s), f"apply of the same plan; {how}", False)


def remember(size: str, folder: str) -> None:
    """Child: writes the profile that `hit` finds."""
    import autotune
    from autotune.zoo.build import quiet
    from benchmarks import tiny

    with quiet():
        front = autotune.explore(tiny.sd() if size == "tiny" else _weightless_sd(), device="cpu", profiles=folder)
    _answer(plans=len(front))


def hit(size: str, folder: str) -> None:
    """Child: seconds of `optimize` with a profile, and of `apply` of the plan it chose.

    The exact lane, because casting weights takes seconds at full size and would drown what is measured.
    """
    import autotune
    from autotune.zoo.build import quiet
    from benchmarks import tiny

    seconds: dict[str, list[float]] = {"optimize_s": [], "apply_s": []}
    with quiet():
        pipe = tiny.sd() if size == "tiny" else full_size_sd()
        asked: dict[str, Any] = {"profiles": folder, "quality": "exact", "device": "cpu"}
        for _ in range(6):
            seconds["optimize_s"].append(_seconds(lambda: autotune.optimize(pipe, **asked)))
            autotune.restore(pipe)
            plan = autotune.plan(pipe, **asked)
            seconds["apply_s"].append(_seconds(lambda plan=plan: autotune.apply(pipe, plan, device="cpu")))
            autotune.restore(pipe)
    _answer(**seconds)


def _import_row() -> Row:
    bare_s = median(_timed([sys.executable, "-c", "pass"], 7))
    with_autotune = _timed([sys.executable, "-c", "import autotune"], 7)
    return Row("import_s", tuple(each - bare_s for each in with_autotune), "`import autotune` minus a bare interpreter")


def _help_row() -> Row:
    return Row("help_s", _timed([sys.executable, "-m", "autotune", "--help"], 5), "`autotune --help`, process")


def _rss_row() -> Row:
    found = tuple(_child("trace_rss()")["rss_bytes"] / 1e6 for _ in range(2))
    return Row("trace_rss_mb", found, f"peak while exploring minus before; full-size SD 1.5, fp32, for {_GPU}")


def trace_rss() -> None:
    """Child: how far resident memory rises while a full-size pipeline is traced for all plans and searched."""
    import autotune
    from autotune.zoo.build import quiet

    with quiet():
        pipe = full_size_sd()
        with _peak_rss() as rss:
            autotune.explore(pipe, gpu=_GPU, profiles=False)
    _answer(rss_bytes=max(rss) - rss[0])


def full_size_sd() -> Any:
    """Stable Diffusion 1.5 in its own size with random fp32 weights in memory."""
    import torch

    pipe = _weightless_sd()
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.to_empty(device="cpu")
            for parameter in part.parameters():
                parameter.data.uniform_(-0.05, 0.05)
            for buffer in part.buffers():
                buffer.zero_()
    return pipe


def _weightless_sd() -> Any:
    from autotune.zoo.locate import locate

    return locate("sd15").pipe


@contextmanager
def _peak_rss() -> Iterator[list[int]]:
    """Resident bytes of this process, sampled by a thread; the first is from before the block."""
    import psutil

    process, samples, done = psutil.Process(), [], threading.Event()
    samples.append(process.memory_info().rss)

    def watch() -> None:
        while not done.wait(_SAMPLING_S):
            samples.append(process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _seconds(call: Callable[[], object]) -> float:
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


def _timed(command: list[str], repeats: int) -> tuple[float, ...]:
    """Wall seconds of a process, after one unmeasured run."""

    def once() -> None:
        subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)

    once()
    return tuple(_seconds(once) for _ in range(repeats))


def _child(call: str) -> dict[str, Any]:
    """What a function of this module measures in a process of its own."""
    command = [sys.executable, "-c", f"from benchmarks import planner; planner.{call}"]
    environment = os.environ | {"TRANSFORMERS_VERBOSITY": "error"}  # its advice on importing is no result
    done = subprocess.run(command, cwd=_ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _answer(**values: Any) -> None:
    print(json.dumps(values))


if __name__ == "__main__":
    main()
