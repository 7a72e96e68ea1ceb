"""The two tables of seconds in diffusers' guide, side by side with predictions: `python -m benchmarks.guide`.

"Memory and speed" (2022): Stable Diffusion 1 at 512x512, batch 1, with the code that diffusers had then. The first table is
seconds of a call of 50 DDIM steps on a TITAN RTX, each row with the settings of those above it; the second is iterations per
second in half precision, presumably under autocast (see `cases.py`). Its numbers are quoted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from autotune.cli.show import page, show_table
from autotune.probe.catalog import card
from autotune.simulate.latency import Code
from autotune.zoo.build import quiet
from benchmarks.cases import Case, Run
from benchmarks.prediction import predict

__all__ = ["guide_tables"]

_DIFFUSERS = (0, 7)  # the newest when the tables were published, November 2022
_HALF = Case(
    recipe="sd15", vae="", pipeline="StableDiffusionPipeline", denoiser_only=False, dtype="float16", batch=1,
    height=512, width=512, frames=None, guidance=True, attention="vanilla", offload="none", vae_slicing=False,
    vae_tiling=False, channels_last="", quantization=(), fused_qkv=False, safety_checker=True, graphed=False,
    resident_gib=None, diffusers=_DIFFUSERS,
)  # fmt: skip
_AUTOCAST = _HALF._replace(autocast=True)
_NHWC = _HALF._replace(channels_last="unet")
_CALLS: tuple[tuple[str, float, Case, Code], ...] = (
    ("original", 9.50, _HALF._replace(dtype="float32"), "none"),
    ("fp16", 3.61, _HALF, "none"),
    ("channels last", 3.30, _NHWC, "none"),
    ("traced UNet", 3.21, _NHWC, "trace"),
    ("memory-efficient attention", 2.63, _NHWC._replace(attention="xformers"), "trace"),
)
_LOOPS = {
    "Tesla T4": (3.5, 5.5),
    "NVIDIA GeForce RTX 3060 12GB": (4.6, 7.8),
    "NVIDIA A10G": (8.88, 15.6),
    "NVIDIA RTX A6000": (11.7, 21.09),
    "NVIDIA TITAN RTX": (12.51, 18.22),
    "NVIDIA A100-SXM4-40GB": (18.6, 29.0),
    "NVIDIA A100-SXM4-80GB": (18.7, 29.5),
}


class _Pair(NamedTuple):
    """What the guide says and what is predicted."""

    said: float
    predicted: float

    @property
    def error(self) -> str:
        """Predicted over said, minus one."""
        return f"{100 * (self.predicted / self.said - 1):+.0f} %"

    def cells(self, digits: int) -> tuple[str, str, str]:
        """Both, and the error."""
        return f"{self.said:.{digits}f}", f"{self.predicted:.{digits}f}", self.error


def guide_tables() -> str:
    """Both tables for docs/how-good.md."""
    return "\n\n".join(
        "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))
        for head, rows in (
            (("TITAN RTX", *_columns("seconds")), list(_calls())),
            (("card", *_columns("vanilla, it/s")[:3], *_columns("memory-efficient, it/s")), list(_loops())),
        )
    )


def main() -> None:
    """Prints them."""
    for title, head, rows in (
        ("Seconds of a call on a TITAN RTX", ("setting", *_columns("seconds")), _calls()),
        ("Iterations per second", ("card", *_columns("vanilla")[:3], *_columns("memory-efficient")), _loops()),
    ):
        show_table(page(), title, tuple(f">{name}" if name else name for name in head), rows)


_SPEED_UP = ("speed-up", "predicted", "")


def _columns(unit: str) -> tuple[str, ...]:
    return (unit, "predicted", "", *_SPEED_UP)


def _calls() -> Iterator[Sequence[str]]:
    base: _Pair | None = None
    for name, said_s, case, code in _CALLS:
        run = Run(card("NVIDIA TITAN RTX"), 50, code, vae_compiled=False, tf32=False, call_a_step=True)
        with quiet():
            pair = _Pair(said_s, predict(case, [run])[run].call_s)
        base = base or pair
        yield name, *pair.cells(2), *_Pair(base.said / pair.said, base.predicted / pair.predicted).cells(2)


def _loops() -> Iterator[Sequence[str]]:
    runs = {name: Run(card(name), 50, "none", vae_compiled=False, tf32=False, call_a_step=False) for name in _LOOPS}
    with quiet():
        vanilla, efficient = (
            predict(_AUTOCAST._replace(attention=attention), runs.values()) for attention in ("vanilla", "xformers")
        )
    for name, run in runs.items():
        before, after = (
            _Pair(said, 1 / predicted[run].iteration_s)
            for said, predicted in zip(_LOOPS[name], (vanilla, efficient), strict=True)
        )
        speed_up = _Pair(after.said / before.said, after.predicted / before.predicted)
        yield name, *before.cells(1), *after.cells(1), *speed_up.cells(2)


if __name__ == "__main__":
    main()
