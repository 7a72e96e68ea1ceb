"""Seconds: what must be true whatever the constants are."""

from __future__ import annotations

import pytest

from autotune.records.trace import EventKind, OpClass
from autotune.simulate.latency import moved_s, segment_time
from tests.unit.handmade import CARD, CPU, attention, op, segment

BIG = 10**13


def seconds(*rows, device=CARD, tf32=False, attentions=()):
    inside = [(kind, n, 0) for n in range(len(attentions)) for kind in (EventKind.ATTENTION, EventKind.ATTENTION_END)]
    return segment_time(segment(*inside, ops=rows, attentions=attentions), device, tf32=tf32).compute_s


@pytest.mark.parametrize("op_class", [OpClass.GEMM, OpClass.CONV, OpClass.NORM, OpClass.POINTWISE, OpClass.COPY])
def test_more_work_takes_longer(op_class):
    assert seconds(op(op_class, flops=2 * BIG)) > seconds(op(op_class, flops=BIG))
    assert seconds(op(op_class, moved=2e12)) > seconds(op(op_class, moved=1e12))
    assert seconds(op(op_class, flops=BIG), op(op_class, flops=BIG)) > seconds(op(op_class, flops=BIG))


def test_a_kernel_waits_for_the_slower_of_arithmetic_and_memory():
    both, moving = op(flops=1, moved=3e12), op(moved=3e12)
    assert seconds(both) == pytest.approx(seconds(moving))
    assert seconds(moving) == pytest.approx(3e12 / (300e9 * 0.8), rel=1e-3)


@pytest.mark.parametrize("rate", ["fp32_flops_per_s", "bandwidth_bytes_per_s", "fp16_flops_per_s"])
def test_a_better_card_is_not_slower(rate):
    better = CARD.model_copy(update={rate: 2 * getattr(CARD, rate)})
    rows = (op(flops=BIG), op(OpClass.CONV, dtype="float16", flops=BIG), op(OpClass.POINTWISE, moved=1e12))
    assert seconds(*rows, device=better) < seconds(*rows)


def test_half_precision_uses_tensor_cores():
    assert seconds(op(dtype="float16", flops=BIG)) < seconds(op(flops=BIG))


def test_a_type_the_card_lacks_is_computed_in_fp32():
    old = CARD.model_copy(update={"bf16_flops_per_s": None})
    assert seconds(op(dtype="bfloat16", flops=BIG), device=old) == seconds(op(flops=BIG), device=old)


def test_tf32_speeds_up_fp32_matrix_products_only():
    assert seconds(op(flops=BIG), tf32=True) < seconds(op(flops=BIG))
    for row in (op(dtype="float16", flops=BIG), op(OpClass.CONV, flops=BIG), op(OpClass.POINTWISE, moved=1e12)):
        assert seconds(row, tf32=True) == seconds(row)


def test_many_small_kernels_wait_for_the_host():
    timing = segment_time(segment(ops=(op(OpClass.POINTWISE),) * 1000), CARD, tf32=False)
    assert timing == (pytest.approx(1000 * 18e-6), 1000)


def test_kernels_that_are_queued_still_have_a_gap_between_them():
    one, many = seconds(op(OpClass.COPY, moved=1e12)), seconds(*[op(OpClass.COPY, moved=1e9)] * 1000)
    assert many - one == pytest.approx(999 * 2e-6)


def test_attention_counts_once_however_the_cpu_does_it():
    events = ((EventKind.ATTENTION, 0, 0), (EventKind.OP, 0, 0), (EventKind.ATTENTION_END, 0, 0))
    rows = (op(flops=BIG, moved=1e12),)
    one = segment_time(segment(*events, ops=rows, attentions=(attention(),)), CARD, tf32=False)
    assert one == (pytest.approx(18e-6), 1)


def test_longer_attention_takes_longer_and_the_math_kernel_longest():
    long, longer = (attention(heads=8, query_length=n, key_length=n) for n in (8192, 16384))
    assert seconds(attentions=(longer,)) > 3 * seconds(attentions=(long,))
    bfloat16 = long.model_copy(update={"dtype": "bfloat16"})
    turing = CARD.model_copy(update={"compute_capability": (7, 5)})
    assert seconds(attentions=(bfloat16,), device=turing) > seconds(attentions=(long,), device=turing)


def test_moving_weights_depends_on_the_link():
    gigabyte = moved_s(CARD, 1e9)
    assert moved_s(CARD, 2e9) == pytest.approx(2 * gigabyte)
    assert moved_s(CARD, 1e9, by_tensor=True) > gigabyte
    assert moved_s(CARD, 1e9, modules=100) == pytest.approx(gigabyte + 100 * 50e-6)
    assert moved_s(CARD.model_copy(update={"pcie_width": 4}), 1e9) == pytest.approx(4 * gigabyte)
    assert moved_s(CARD.model_copy(update={"pcie_generation": 3}), 1e9) > gigabyte
    assert moved_s(CARD.model_copy(update={"pcie_generation": None, "pcie_width": None}), 1e9) > gigabyte


def test_on_the_cpu_nothing_moves():
    assert moved_s(CPU, 1e9) == 0.0
    assert moved_s(CPU, 1e9, modules=2) == pytest.approx(100e-6)


def test_pinned_memory_is_faster_than_pageable():
    assert moved_s(CARD, 1e9, pinned=True) < moved_s(CARD, 1e9)


def test_convolutions_in_the_order_of_tensor_cores_are_faster():
    assert seconds(op(OpClass.CONV_NHWC, flops=BIG)) < seconds(op(OpClass.CONV, flops=BIG))


def test_compiled_blocks_move_less_between_pointwise_kernels():
    rows = segment(ops=(op(OpClass.POINTWISE, moved=1e12),))
    plain, traced, blocks = (segment_time(rows, CARD, tf32=False, code=c) for c in ("none", "trace", "blocks"))
    assert plain == traced
    assert blocks.compute_s == pytest.approx(plain.compute_s / 2, rel=1e-3)


def test_the_kernel_that_a_plan_names_is_the_one_that_counts():
    row = attention(heads=8, query_length=8192, key_length=8192)
    events = segment((EventKind.ATTENTION, 0, 0), (EventKind.ATTENTION_END, 0, 0), attentions=(row,))
    flash, xformers, math = (
        segment_time(events, CARD, tf32=False, attention=a).compute_s
        for a in ("as_is", "xformers", "backend:_native_math")
    )
    assert flash < xformers < math
