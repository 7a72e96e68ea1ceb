"""What `make demo` runs: the main job with no GPU, no network and no weights. Reads and writes no profile.

First a plan for a card that is not here, all of it simulated; then a small real pipeline is optimised, run and restored on
this machine.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import torch

import autotune
from autotune.cli.show import page, say, show_ladder, show_table
from autotune.records.words import lever_words, plan_words
from autotune.report.text import six_lines
from autotune.units import both_sizes, duration, size
from autotune.zoo.build import quiet

_GPU, _CAP = "NVIDIA GeForce RTX 3060 12GB", "4GB"
_KEPT = {"dtype": "bfloat16", "vae_tiling": 32}  # a pipeline this small needs no change: two are asked for


def main() -> int:
    """Runs both halves; 0 if the restored weights are bit-equal and the output is finite."""
    logging.getLogger("autotune").addHandler(logging.NullHandler())  # its words are printed below, in their place
    with quiet():
        _plan_for_a_card()
        return _run_here()


def _plan_for_a_card() -> None:
    console = page()
    say(console, "1. Stable Diffusion 1.5 on a card that is not here. Every figure is simulated: no GPU, no weights.\n")
    say(console, f'>>> plan = autotune.plan("sd15", gpu="{_GPU}", max_vram="{_CAP}", profiles=False)')
    start_s = time.perf_counter()
    plan = autotune.plan("sd15", gpu=_GPU, max_vram=_CAP, profiles=False)
    say(console, f"    {plan_words(plan)}   (planned in {duration(time.perf_counter() - start_s)})")
    levers = ((name, lever_words(name, value), plan.reasons.get(name, "")) for name, value in plan.values.items())
    show_table(console, "Levers", ("lever", "value", "reason"), levers)

    say(console, f'\n>>> front = autotune.explore("sd15", gpu="{_GPU}", profiles=False)')
    front = autotune.explore("sd15", gpu=_GPU, profiles=False)
    show_ladder(console, front, front[plan.id], "near")
    estimate = front[plan.id].estimate
    phases = (
        (phase.name, both_sizes(phase.peak_bytes), duration(phase.latency_s), phase.moment) for phase in estimate.phases
    )
    show_table(console, f"{plan.id} by phase, simulated", ("phase", ">peak", ">time", "at"), phases)
    say(console, f"\nneeds {size(estimate.needed_bytes)} with its error bar; the cap is {_CAP}\n")


def _run_here() -> int:
    from benchmarks import tiny

    console = page()
    say(
        console,
        "2. A small Stable Diffusion of random weights on this machine: optimised, run and restored for real.\n",
    )
    pipe, call = tiny.sd(), tiny.CALLS["sd"]
    before = _weights(pipe)
    say(console, f">>> call, keep = {call}, {_KEPT}")
    say(console, '>>> pipe = autotune.optimize(pipe, max_vram="1GB", workload=call, keep=keep, profiles=False)')
    pipe = autotune.optimize(pipe, max_vram="1GB", workload=call, keep=_KEPT, profiles=False)
    for line in six_lines(autotune.explain(pipe)):
        say(console, f"    {line}")

    image = tiny.generate("sd", pipe)
    finite = bool(torch.isfinite(image).all())
    say(console, '>>> pipe("a cat")')
    say(console, f"    image {tuple(image.shape)} of {pipe.unet.dtype} weights, {'finite' if finite else 'NOT FINITE'}")

    after = _weights(autotune.restore(pipe))
    same = before.keys() == after.keys() and all(_bit_equal(before[name], after[name]) for name in before)
    say(console, ">>> autotune.restore(pipe)")
    say(console, f"    {len(after)} weights of {pipe.unet.dtype}, {'bit-equal' if same else 'CHANGED'}")
    return 0 if finite and same else 1


def _bit_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _weights(pipe: Any) -> dict[str, torch.Tensor]:
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {
        f"{name}.{path}": tensor.detach().cpu().clone()
        for name, part in parts.items()
        for path, tensor in part.state_dict().items()
    }


if __name__ == "__main__":
    sys.exit(main())
