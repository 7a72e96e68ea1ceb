"""Host RAM of a plan: weights that wait off the device, and originals that are kept so that `restore` is exact."""

from __future__ import annotations

from autotune.records.model import Model
from autotune.records.plan import Plan, group_offload
from autotune.records.trace import Trace
from autotune.simulate.residency import apart, never_waits

__all__ = ["undo_bytes", "waiting_bytes"]

# Streams want pinned copies, and torch's pinned allocator rounds each tensor up to a power of two (at most twice its size).
_PINNED_SHARE = 1.5


def waiting_bytes(model: Model, plan: Plan, trace: Trace) -> int:
    """Weights that wait beside a card. A VAE has no stream, so nothing of it is pinned."""
    aboard = never_waits(model, plan.offload) - apart(model, plan)
    group = group_offload(plan.offload)
    share = _PINNED_SHARE if group and group.use_stream and not group.low_cpu_mem_usage else 1.0
    vaes = {part.name for part in model.components if part.role == "vae"}
    waiting = {name: size for name, size in trace.weights.items() if name not in aboard}
    return round(sum(size * (1.0 if name in vaes else share) for name, size in waiting.items()))


def undo_bytes(model: Model, plan: Plan) -> int:
    """Originals of lowered weights."""
    if plan.dtype == "as_is":
        return 0
    return sum(part.bytes_by_dtype.get("float32", 0) for part in model.components)
