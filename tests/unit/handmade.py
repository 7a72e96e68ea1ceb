"""Records made by hand, small enough to work out every number on paper."""

from __future__ import annotations

from typing import Any

import numpy as np

from autotune.records.device import Device
from autotune.records.estimate import PHASES, Estimate, Phase
from autotune.records.front import Candidate, Front
from autotune.records.model import Component, Model, role_named
from autotune.records.plan import Plan
from autotune.records.trace import DTYPES, Attention, EventKind, OpClass, Segment, Trace
from autotune.records.workload import Workload

CPU = Device(
    name="CPU",
    kind="cpu",
    torch_device="cpu",
    total_bytes=10**10,
    bandwidth_bytes_per_s=20e9,
    fp32_flops_per_s=100e9,
    bf16_flops_per_s=100e9,
)
CARD = Device(
    name="a card",
    kind="cuda",
    torch_device="cuda:0",
    compute_capability=(8, 6),
    total_bytes=12 * 10**9,
    bandwidth_bytes_per_s=300e9,
    fp32_flops_per_s=10e12,
    tf32_flops_per_s=20e12,
    fp16_flops_per_s=40e12,
    bf16_flops_per_s=40e12,
    pcie_generation=4,
    pcie_width=16,
)


def card(capability: tuple[int, int], **changes: Any) -> Device:
    """The card with another compute capability."""
    return CARD.model_copy(update={"compute_capability": capability, **changes})


def attention(**changes: Any) -> Attention:
    """Unmasked attention in half precision; `changes` say otherwise."""
    usual = {
        "batch": 1, "heads": 1, "query_length": 16, "key_length": 16, "head_dim": 64, "value_dim": 64,
        "masked": False, "dtype": "float16",
    }  # fmt: skip
    return Attention(**{**usual, **changes})


def op(
    op_class: OpClass = OpClass.GEMM,
    *,
    dtype: str = "float32",
    flops: float = 0,
    moved: float = 0,
    conv: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Any, ...]:
    """One row of a segment's table of kernels."""
    return (op_class, DTYPES.index(dtype), flops, moved, 1, conv)


def segment(
    *events: tuple[EventKind, int, int],
    component: str = "unet",
    phase: str = "denoising",
    turn: int = -1,
    ops: tuple[Any, ...] = (),
    attentions: tuple[Attention, ...] = (),
    modules: tuple[str, ...] = ("unet", "unet.a", "unet.b"),
    weights: dict[str, int] | None = None,
) -> Segment:
    """A segment of these events; every row of `ops` runs once at the end unless an event names it."""
    named = {ref for kind, ref, _ in events if kind == EventKind.OP}
    events = (*events, *((EventKind.OP, row, 0) for row in range(len(ops)) if row not in named))
    table = np.array(events, dtype=np.int64).reshape(-1, 3)
    columns = list(zip(*ops, strict=True)) or [()] * 6
    return Segment(
        component=component,
        method="forward" if component else "",
        phase=phase,
        turn=turn,
        kind=table[:, 0].astype(np.int8),
        ref=table[:, 1].astype(np.int32),
        size=table[:, 2].copy(),
        op_class=np.array(columns[0], dtype=np.int8),
        op_dtype=np.array(columns[1], dtype=np.int8),
        op_flops=np.array(columns[2], dtype=np.float64),
        op_bytes=np.array(columns[3], dtype=np.float64),
        op_kernels=np.array(columns[4], dtype=np.int32),
        op_conv_bytes=np.array(columns[5], dtype=np.int64).reshape(-1, 3),
        attentions=attentions,
        modules=modules,
        weights=weights or {},
    )


def trace(*segments: Segment, weights: dict[str, int], calls: int = 2, **changes: Any) -> Trace:
    """A trace of these segments."""
    usual = {
        "resident_buffers": dict.fromkeys(weights, 0),
        "denoiser_calls": calls,
    }
    return Trace(segments=segments, weights=weights, **{**usual, **changes})


def model(
    *names: str,
    sequence: tuple[str, ...] | None = None,
    excluded: tuple[str, ...] = (),
    fp32_bytes: int = 0,
    ungroupable: tuple[str, ...] = (),
) -> Model:
    """A model of these components."""
    components = tuple(
        Component(
            name=name,
            role=role_named(name) or "other",
            class_name="Network",
            parameters=1,
            bytes_by_dtype={"float32": fp32_bytes},
            capabilities=() if name in ungroupable else ("group_offload", "group_offload_by_block"),
        )
        for name in names
    )
    return Model(
        name="a model",
        pipeline_class="Pipeline",
        components=components,
        offload_sequence=sequence,
        excluded_from_offload=excluded,
        structural_key="key",
    )


def estimate(
    *,
    process_bytes: int = 10**9,
    host_ram_bytes: int = 0,
    latency_s: float = 1.0,
    margin_bytes: int = 0,
    **changes: Any,
) -> Estimate:
    """An estimate with these totals; denoising takes all of the time and the memory."""
    phases = tuple(
        Phase(
            name=name,
            peak_bytes=process_bytes if name == "denoising" else 0,
            weights_bytes=0,
            activations_bytes=process_bytes if name == "denoising" else 0,
            workspace_bytes=0,
            overhead_bytes=0,
            compute_s=latency_s if name == "denoising" else 0.0,
            transfer_s=0.0,
            moment="unet",
        )
        for name in PHASES
    )
    usual = {
        "allocated_bytes": process_bytes, "reserved_bytes": process_bytes, "steps": 10, "step_s": latency_s / 10,
        "latency_margin": 0.35,
    }  # fmt: skip
    return Estimate(
        phases=phases,
        process_bytes=process_bytes,
        margin_bytes=margin_bytes,
        host_ram_bytes=host_ram_bytes,
        **{**usual, **changes},
    )


def candidate(plan: Plan | None = None, **totals: Any) -> Candidate:
    """A plan with an estimate of these totals."""
    return Candidate(plan=plan or Plan(), estimate=estimate(**totals))


def front(*candidates: Candidate, **changes: Any) -> Front:
    """A front of these candidates on the card."""
    usual = {
        "model": "a model",
        "device": CARD,
        "workload": Workload(height=512, width=512, steps=10),
        "searched": len(candidates),
    }
    return Front(candidates=candidates, **{**usual, **changes})
