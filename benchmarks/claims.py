"""What diffusers' guide to memory says of Stable Diffusion 1.5, against predictions: `python -m benchmarks.claims`.

The guide ("Memory and speed", diffusers 0.15) names sizes and neither a card nor how they were measured. They are taken as GiB,
of what the allocator has given out or, where they hold even so, of the whole process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from autotune.cli.show import page, show_table
from autotune.flow.estimating import Estimated, estimate_of
from autotune.flow.job import job_for
from autotune.probe.catalog import card
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from autotune.units import GIB
from autotune.zoo.build import quiet
from autotune.zoo.locate import locate

__all__ = ["CLAIMS", "claimed", "claims_table"]

_GPU = "NVIDIA GeForce RTX 3060 12GB"


class Claim(NamedTuple):
    """One sentence of the guide."""

    said: str
    limit_bytes: int
    levers: dict[str, Any]
    call: dict[str, Any]


_HALF = {"dtype": "float16"}
CLAIMS = (
    Claim("attention slicing: as little as 3.2 GB", round(3.2 * GIB), _HALF | {"attention": "sliced:auto"}, {}),
    Claim("sequential offload: < 3 GB", 3 * GIB, _HALF | {"offload": "sequential"}, {}),
    Claim(
        "sequential offload and attention_slicing(1): < 2 GB",
        2 * GIB,
        _HALF | {"offload": "sequential", "attention": "sliced:1"},
        {},
    ),
    Claim(
        "VAE tiling and memory-efficient attention: 3840x2224 in 8 GB",
        8 * GIB,
        _HALF | {"vae_tiling": 512},
        {"width": 3840, "height": 2224},
    ),
    Claim("VAE slicing: 32 images at once (12 GB card)", 12 * GIB, _HALF | {"vae_slicing": True}, {"batch": 32}),
)


def main() -> None:
    """Prints the table."""
    show_table(page(), "Claims", ("claim", ">allocated", ">smallest cap", "holds"), _rows())


def claims_table() -> str:
    """The table for docs/how-good.md."""
    lines = ["| the guide says | allocated peak | smallest cap | |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row)} |" for row in _rows()]
    return "\n".join(lines)


def claimed(claim: Claim) -> Estimated:
    """What the claim's call needs."""
    with quiet():
        pipe = locate("sd15").pipe
        workload = Workload(**claim.call)
        job = job_for(pipe, device=card(_GPU), workload=workload, example=None, calls=1, undo=False)
        return estimate_of(job, Plan(**claim.levers))


def _rows() -> Iterator[tuple[str, str, str, str]]:
    for claim in CLAIMS:
        found = claimed(claim)
        allocated, cap = found.estimate.allocated_bytes, found.smallest_cap_bytes
        fits, counted = cap <= claim.limit_bytes, allocated <= claim.limit_bytes
        verdict = "holds" if fits else "holds for tensors, not for the process" if counted else "no"
        yield claim.said, f"{allocated / GIB:.2f} GiB", f"{cap / GIB:.2f} GiB", verdict


if __name__ == "__main__":
    main()
