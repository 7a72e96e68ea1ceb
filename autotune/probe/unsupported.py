"""Names of what is not planned for: other makers' accelerators, Jetson boards, and cards that torch no longer runs.

It knows families of names, not each product. It is asked about names that are no card of the catalogue.
"""

from __future__ import annotations

import re

from autotune.errors import AutotuneError, NoAcceleratorError, UnknownGpuError
from autotune.probe.names import LONGEST, shown

__all__ = ["refusal"]

_WORKS = "plans are made for NVIDIA cards of compute capability 5.0 and later"

# Words of a name in lower case, spaced or glued to their number. The first that is found counts.
_OTHERS = {
    "an NVIDIA Jetson or DRIVE board": r"jetson|\borin|xavier|tegra|\bagx\b|\bthor\b|\bnano\b|\btx[12]\b",
    "an AMD GPU": (
        r"\bamd\b|radeon|\brx ?\d|\brx\b|instinct|\bmi ?\d{2,3}[axp]?\b|\d{4} ?(?:xtx?|gre)\b|firepro|\bvega\b|\brocm\b|\bgfx\d"
        r"|ryzen|strix|\b[6789]\d0m\b|\bw[57]\d00\b|\bv620\b|\b(?:6[3-9][05]0|7[6-9]00|90[67]0)\b|\bhip\b"
    ),
    "an Intel GPU": (
        r"\bintel\b|\barc\b|\biris\b|\buhd\b|\bxpu\b|\bxe\b|gaudi|ponte vecchio|\bdata cent(?:er|re) gpu max\b|\bgpu max\b"
        r"|\ba[3-7][1578]0m?\b|\bb5[78]0\b|\bb[56]0\b|battlemage|alchemist|\bflex 1[47]0\b"
    ),
    "an Apple GPU": r"\bapple\b|\bm[1-9]\b|\bm[1-9](?:pro|max|ultra)\b|\bmps\b|\bmetal\b|macbook|\bmac\b|iphone|ipad|bionic",
    "another maker's accelerator": (
        r"\bv?tpu\b|\btpu ?v\d|\bv[2-6][ep]\b|trainium|inferentia|ascend|\b910[abc]\b|\bmtt\b|moore threads|adreno|snapdragon"
        r"|\bmali\b|\bnpu\b|cambricon|hexagon|habana|cerebras|groq|graphcore|\bipu\b"
    ),
}
_HERE = re.compile(r"cpu|cuda(?::\d+)?|gpu(?::\d+)?")
# Kepler and Fermi: compute capability 2.x and 3.x. CUDA 12 dropped both, and torch 2.9 is built with CUDA 12.6 or later.
_TOO_OLD = re.compile(
    r"\b[cm]20[579][05]\b|\bk(?:8|10|20[cmx]?m?|40[cmst]?|80|(?!620)[1-6]\d0m?|[1-6]000m?|[345]200)\b|\bgrid k[12]\b"
    r"|\bgt[sx]? ?(?:[4-6]\d{2}|7[1-46-8]0)m?(?: ?ti)?\b|\btitan (?:black|z)\b|\bkepler\b|\bfermi\b"
)


def refusal(name: str) -> AutotuneError | None:
    """Why a name is not planned for; None for names of which that is not known.

    >>> print(refusal("RX 6800"))
    gpu='RX 6800' is an AMD GPU, which is not supported yet; plans are made for NVIDIA cards of compute capability 5.0 and later
    """
    plain = re.sub(r"[\s_\-]+", " ", name[:LONGEST].casefold()).strip()
    asked = f"gpu={shown(name)}"
    if _HERE.fullmatch(plain):
        return NoAcceleratorError(
            f"{asked} is a device of this machine and not a card's name; write device={plain!r} for it, without gpu"
        )
    if _TOO_OLD.search(plain):
        return UnknownGpuError(
            f"{asked} is older than compute capability 5.0, and the torch that is required no longer runs it; {_WORKS}"
        )
    for what, pattern in _OTHERS.items():
        if re.search(pattern, plain):
            return NoAcceleratorError(f"{asked} is {what}, which is not supported yet; {_WORKS}")
    return None
