"""What a plan is expected to cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autotune.records.base import Record
from autotune.units import size

__all__ = ["PHASES", "AttentionUse", "Estimate", "Phase", "PhaseName"]

PhaseName = Literal["encoding", "denoising", "decoding"]
PHASES: tuple[PhaseName, ...] = ("encoding", "denoising", "decoding")


class Phase(Record):
    """The peak of one phase of a call, and its time."""

    name: PhaseName
    """Encoding ends with the first denoiser call; decoding starts after the last."""
    peak_bytes: int
    """Process peak within the phase: the sum of the parts below."""
    weights_bytes: int
    """Weights on the device at that moment."""
    activations_bytes: int
    """Live tensors that are no weights at that moment."""
    workspace_bytes: int
    """Kernel temporaries at that moment: convolution workspaces, attention buffers."""
    overhead_bytes: int
    """Device context, library workspaces and what the allocator holds beyond live tensors."""
    compute_s: float
    """Time spent computing."""
    transfer_s: float
    """Time spent moving weights."""
    moment: str
    """The module at the peak."""
    components: dict[str, int] = {}
    """The part of `weights_bytes` that is each component's."""

    @property
    def latency_s(self) -> float:
        """Compute and transfers; without a prefetch stream they do not overlap."""
        return self.compute_s + self.transfer_s


class AttentionUse(Record):
    """Which kernels the attentions of a call take on the device, and what they write out.

    >>> AttentionUse(kernels=("flash", "efficient")).words
    'fused (flash, efficient)'
    """

    kernels: tuple[str, ...]
    """The fused ones, those with the most arithmetic first: "flash", "efficient", "cpu"."""
    scores_bytes: int = 0
    """The most that one without a fused kernel holds while it runs: its score matrix in fp32 and copies; 0 if all are fused."""
    unfused: str = ""
    """Why that one is not fused."""
    component: str = ""
    """Whose it is."""

    @property
    def words(self) -> str:
        """For reasons and refusals."""
        fused = f"fused ({', '.join(self.kernels)})" if self.kernels else ""
        scores = (
            f"{self.unfused}: scores of the {self.component} take {size(self.scores_bytes)}" if self.unfused else ""
        )
        return ", but ".join(part for part in (fused, scores) if part)


class Estimate(Record):
    """Bytes and seconds of one call under one plan on one device."""

    phases: tuple[Phase, ...] = Field(min_length=3, max_length=3)
    """Encoding, denoising, decoding."""
    allocated_bytes: int
    """Peak of live tensors, as `torch.cuda.max_memory_allocated` counts them."""
    reserved_bytes: int
    """Peak of the allocator's segments."""
    process_bytes: int
    """What the process takes of the device: context + reserved + library workspaces. On the CPU: weights + activations."""
    margin_bytes: int
    """Error bar of `process_bytes`: "fits" means fits with it."""
    host_ram_bytes: int
    """The most RAM at once for weights that wait off the device and for originals kept so that `restore` is exact."""
    undo_bytes: int = 0
    """The part of `host_ram_bytes` that is the price of an exact `restore`."""
    pinned_bytes: int = 0
    """The part of `host_ram_bytes` that is pinned, so that a stream can copy it beside computing."""
    installing_bytes: int = 0
    """The part of `host_ram_bytes` that is gone once hooks are installed: till then weights stand beside pinned copies."""
    setup_s: float = 0.0
    """Seconds that the first call takes longer: tracing, compiling."""
    steps: int
    """Denoising steps in `latency_s`."""
    step_s: float
    """One denoising step."""
    latency_margin: float
    """Relative error bar of the times: 0.25 is up to 25 % longer, and as much shorter where nothing else is said."""
    latency_margin_less: float | None = None
    """How much shorter, where that is not as much: what moves over the link may take several times as long."""
    attention: AttentionUse | None = None
    """Kernels of attention; None where every attention is computed step by step."""
    source: Literal["catalogue", "calibrated", "measured"] = "catalogue"
    """Where rates and constants come from."""
    untraced: tuple[str, ...] = ()
    """Components that could not be traced: they count by their weights, and `margin_bytes` holds a guess at the rest."""
    notes: tuple[str, ...] = ()
    """What a reader should know: parts that could not be traced, facts that were assumed."""

    @property
    def peak_phase(self) -> Phase:
        """The phase that needs the most memory."""
        return max(self.phases, key=lambda phase: phase.peak_bytes)

    @property
    def needed_bytes(self) -> int:
        """The smallest cap this plan is believed to keep: the process peak with its error bar."""
        return self.process_bytes + self.margin_bytes

    @property
    def steady_ram_bytes(self) -> int:
        """RAM from the first call on."""
        return self.host_ram_bytes - self.installing_bytes

    @property
    def one_memory_bytes(self) -> int:
        """What it takes where the device and the host share one memory: both during calls, or RAM while hooks are installed."""
        return max(self.host_ram_bytes, self.steady_ram_bytes + self.needed_bytes)

    @property
    def latency_s(self) -> float:
        """One call, from prompt to image."""
        return sum(phase.latency_s for phase in self.phases)

    @property
    def latency_range_s(self) -> tuple[float, float]:
        """One call with its error bar: the fewest seconds and the most."""
        less = self.latency_margin if self.latency_margin_less is None else self.latency_margin_less
        return max(0.0, self.latency_s * (1 - less)), self.latency_s * (1 + self.latency_margin)

    def per_call_s(self, calls: int) -> float:
        """One call of so many, with its share of what the first takes longer."""
        return self.latency_s + self.setup_s / calls

    @property
    def transfer_s(self) -> float:
        """Time of one call spent moving weights."""
        return sum(phase.transfer_s for phase in self.phases)

    def phase(self, name: str) -> Phase:
        """The phase of that name."""
        return next(phase for phase in self.phases if phase.name == name)
