"""What autotune predicts beside what a card does: `python -m benchmarks.gpu --out DIR [--minutes 8] [--models ...]`.

Needs no weights and no network. What is found goes to `DIR/results.json` after every part; the most telling parts come first,
so that a time limit cuts the others. With `--device cpu` the same code runs with nothing to count.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from math import isfinite
from pathlib import Path

from autotune.errors import AutotuneError
from autotune.units import duration
from benchmarks.gpu.again import again
from benchmarks.gpu.calibration import calibration
from benchmarks.gpu.calls import Calls
from benchmarks.gpu.card import Card
from benchmarks.gpu.grid import Setting, further, telling
from benchmarks.gpu.history import history
from benchmarks.gpu.kernels import LAYOUTS, attentions, convolutions
from benchmarks.gpu.models import DEFAULT, DEFAULT_ON_CPU, load, model_name
from benchmarks.gpu.probes import DTYPES, context, cublas
from benchmarks.gpu.results import Found, Part, Results, environment
from benchmarks.gpu.seconds import Predictions
from benchmarks.gpu.show import show

__all__ = ["main"]

_MINUTES = 8.0
_HISTORY_OF = "sd15"


def main(arguments: Sequence[str] | None = None) -> int:
    """Finds out what it can in the time it has; 1 where it cannot begin."""
    asked = _asked(arguments)
    logging.getLogger("autotune").addHandler(logging.NullHandler())
    try:
        if asked.again:
            show(again(asked.again))
        else:
            _run(asked.out, asked.minutes, asked.models, asked.device)
    except (AutotuneError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _asked(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="where results.json is written")
    where.add_argument("--again", type=Path, metavar="FILE", help="predict results.json anew; needs no card")
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="no part begins later (default: %(default)g)")
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="zoo names, or tiny-sd and its like")
    parser.add_argument("--device", help='"cuda", "cuda:1" or "cpu"; the current card if not given')
    return parser.parse_args(arguments)


def _run(folder: Path, minutes: float, models: Sequence[str] | None, device: str | None) -> None:
    end_s = time.perf_counter() + 60 * minutes
    if not isfinite(minutes) or minutes < 0:
        raise AutotuneError(f"--minutes {minutes:g} is no time; write for example --minutes 8")
    asked = None if models is None else list(dict.fromkeys(map(model_name, models)))
    card = Card(device or "cuda")
    chosen = asked or list(DEFAULT if card.is_cuda else DEFAULT_ON_CPU)
    parts = list(_parts(card, chosen, folder))
    about: Found = {"minutes": minutes, "models": chosen, "environment": environment(card)}
    results = Results(folder, about=about, parts=[part.name for part in parts])
    for part in parts:
        if time.perf_counter() >= end_s:
            break
        found = results.add(part)
        print(f"{duration(found['part_s']):>8}  {part.name}{_why(found)}", flush=True)
    show(results.content)


def _parts(card: Card, chosen: Sequence[str], folder: Path) -> Iterator[Part]:
    """Everything there is to find out, the most valuable first."""
    predictions = Predictions()
    calls = _OneInRam(card, predictions)

    def compared(name: str, setting: Setting) -> Part:
        return Part(f"{name}: {setting.label}", lambda found: calls.of(name).compare(setting, found))

    def calibrated(found: Found) -> None:
        predictions.calibrate(calibration(card, folder / "speeds.json", found))

    yield Part("context", partial(context, card))
    yield Part("cublas", partial(cublas, card))
    yield from (compared(name, setting) for name, setting in telling(chosen))
    yield Part("calibration", calibrated)
    for layout in LAYOUTS:
        for dtype in DTYPES:
            yield Part(f"convolutions in {dtype}, {layout}", partial(convolutions, card, dtype, layout))
    for dtype in DTYPES:
        yield Part(f"attention in {dtype}", partial(attentions, card, dtype))
    recorded = _HISTORY_OF if _HISTORY_OF in chosen else chosen[0]
    path = folder / f"history-{recorded}.json"
    yield Part(f"{recorded}: history", lambda found: history(card, calls.of(recorded), path, found))
    yield from (compared(name, setting) for name, setting in further(chosen))


class _OneInRam:
    """Pipelines by name. The one before is dropped for the next."""

    def __init__(self, card: Card, predictions: Predictions) -> None:
        self._card, self._predictions = card, predictions
        self._calls: Calls | None = None

    def of(self, name: str) -> Calls:
        if self._calls is None or self._calls.name != name:
            self._calls = None
            self._card.settle()
            self._calls = Calls(self._card, load(name), self._predictions)
        return self._calls


def _why(found: Found) -> str:
    return f"  ({found['error']['kind']}: {found['error']['message']})" if "error" in found else ""


if __name__ == "__main__":
    sys.exit(main())
