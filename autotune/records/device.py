"""Where a plan runs: a card that is here, a card that is only described, or the CPU."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from autotune.records.base import Record
from autotune.records.measurement import Multipliers
from autotune.records.speed import Speed

__all__ = ["Device"]


class Device(Record):
    """Facts about one device. Rates are dense peaks in FLOP per second; `None` where the hardware lacks the format."""

    name: str
    """The name NVML gives, for example "NVIDIA GeForce RTX 3060", or "CPU"."""
    kind: Literal["cuda", "cpu"]
    """What runs there. Other accelerators are recognised by the probe and refused."""
    torch_device: str
    """How torch calls it: "cuda:0", "cpu"."""
    compute_capability: tuple[int, int] | None = None
    """For example (8, 6); None on the CPU."""
    consumer: bool = False
    """A GeForce or laptop card: in a machine of its owner's rather than in a server or workstation."""
    sm_count: int | None = None
    """Streaming multiprocessors."""
    total_bytes: int
    """All of its memory."""
    free_bytes: int | None = None
    """What is free to this process now, with what it holds itself and can use again; None for a card that is not here."""
    shares_ram: bool = False
    """The host's RAM is this same memory (GB10): one budget for both, and offloading frees nothing."""
    bandwidth_bytes_per_s: float
    """Peak memory bandwidth."""
    fp32_flops_per_s: float
    """Dense fp32 rate without tensor cores."""
    tf32_flops_per_s: float | None = None
    """Dense TF32 rate."""
    fp16_flops_per_s: float | None = None
    """Dense fp16 rate with fp32 accumulation (what cuBLAS and cuDNN use)."""
    bf16_flops_per_s: float | None = None
    """Dense bf16 rate with fp32 accumulation."""
    fp8_flops_per_s: float | None = None
    """Dense fp8 rate with fp32 accumulation."""
    fp16_fails: bool = False
    """Known to compute NaN in fp16, which gives black images (GTX 16 and its kin, Turing without tensor cores)."""
    pcie_generation: int | None = None
    """Link generation."""
    pcie_width: int | None = None
    """Link lanes; on a card that is here, the current width, which may be less than the slot's."""
    driver: str | None = None
    """Driver version, where a driver was asked."""
    power_limit_w: float | None = None
    """Enforced power limit in watts; the board's default where no driver was asked or it does not say."""
    speed: Speed | None = None
    """What it sustains, where that was measured; None to go by its architecture."""
    learned: Multipliers | None = None
    """What calls on it have taught, which is in `speed` already; None for a card as it was described or measured."""
    source: Literal["catalogue", "probed", "assumed"] = "catalogue"
    """Where the facts come from: the catalogue, this machine, or a guess from the compute capability."""
    notes: tuple[str, ...] = ()
    """What a reader should know about these facts."""

    @model_validator(mode="before")
    @classmethod
    def _without_flag(cls, data: Any) -> Any:
        """Profiles written before this rate was kept hold a bool `fp8` in its place."""
        if isinstance(data, dict) and isinstance(data.get("fp8"), bool):
            return {field: value for field, value in data.items() if field != "fp8"}
        return data

    @property
    def is_here(self) -> bool:
        """Whether it is in this machine: what is free of it is known."""
        return self.kind == "cpu" or self.free_bytes is not None

    @property
    def fp8(self) -> bool:
        """Tensor cores take fp8 (compute capability 8.9 and later)."""
        return self.fp8_flops_per_s is not None

    @property
    def supports_bf16(self) -> bool:
        """bf16 arithmetic in hardware (emulated before compute capability 8.0)."""
        return self.kind == "cpu" or (self.compute_capability or (0, 0)) >= (8, 0)

    @property
    def supports_tf32(self) -> bool:
        """TF32 tensor cores (compute capability 8.0 and later)."""
        return self.kind == "cuda" and (self.compute_capability or (0, 0)) >= (8, 0)

    def _repr_html_(self) -> str:
        from autotune.records.html import device_html

        return device_html(self)
