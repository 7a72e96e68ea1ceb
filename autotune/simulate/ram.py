"""Host RAM of a plan: weights that wait off the device, and originals that are kept so that `restore` is exact."""

from __future__ import annotations

from autotune.records.model import Model
from autotune.records.plan import Plan, group_offload
from autotune.records.trace import Trace
from autotune.simulate.allocator_settings import Settings
from autotune.simulate.residency import apart, never_waits

__all__ = ["undo_bytes", "waiting_bytes"]


def waiting_bytes(model: Model, plan: Plan, trace: Trace, settings: Settings | None = None) -> int:
    """Weights that wait beside a card.

    Streams want pinned copies, whose every tensor torch rounds up to a power of two. A VAE has no stream, so nothing of it is
    pinned.
    """
    aboard = never_waits(model, plan.offload) - apart(model, plan)
    group = group_offload(plan.offload)
    streamed = group is not None and group.use_stream and not group.low_cpu_mem_usage
    pinned = {part.name for part in model.components if part.role != "vae"} if streamed else set()
    waiting = {name: size for name, size in trace.weights.items() if name not in aboard}
    limit_bytes = (settings or Settings()).pinned_max_round_bytes
    return sum(_pinned_bytes(trace, name, limit_bytes) if name in pinned else size for name, size in waiting.items())


def _pinned_bytes(trace: Trace, component: str, limit_bytes: int | None) -> int:
    """Each of its tensors at the next power of two (`PowerOf2Ceil`), larger ones than the limit as they are."""
    sizes = [size for path, own in trace.tensors.items() if path.split(".")[0] == component for size in own]
    rounded = (1 << max(0, size - 1).bit_length() for size in sizes)
    return sum(
        size if limit_bytes is not None and size > limit_bytes else up for size, up in zip(sizes, rounded, strict=True)
    )


def undo_bytes(model: Model, plan: Plan) -> int:
    """Originals of lowered weights."""
    if plan.dtype == "as_is":
        return 0
    return sum(part.bytes_by_dtype.get("float32", 0) for part in model.components)
