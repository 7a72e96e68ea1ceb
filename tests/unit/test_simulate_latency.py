"""Seconds: each term on paper, with a speed made by hand."""

from __future__ import annotations

import pytest

from autotune.records.speed import Speed
from autotune.records.trace import EventKind, OpClass
from autotune.simulate.latency import moved_s, segment_time, setup_s
from tests.unit.handmade import CARD, CPU, attention, op, segment

SPEED = Speed(
    products_flops_per_s={"float32": 1e12, "tf32": 2e12, "float16": 4e12, "int8": 8e12},
    convolutions_flops_per_s={"float32": 1e11, "tf32": 2e11, "float16": 4e11},
    attention_flops_per_s={
        "flash": 4e12, "efficient": 2e12, "efficient_float32": 1e12, "xformers_float32": 5e11, "math": 1e11, "cpu": 1e11,
    },
    pointwise_bytes_per_s=1e11,
    norm_bytes_per_s=5e10,
    copy_bytes_per_s=2e10,
    kernel_s=1e-6,
    product_s=1e-5,
    convolution_s=2e-5,
    host_s=1e-4,
    hook_s=1e-3,
    pinned_bytes_per_s=2e10,
    pageable_bytes_per_s=1e10,
    back_bytes_per_s=5e9,
    reused_bytes_per_s=1e10,
    tensor_s=1e-2,
    pictures_bytes_per_s=5e9,
)  # fmt: skip
FAST_HOST = SPEED.model_copy(update={"host_s": 1e-12})
HERE = CARD.model_copy(update={"speed": FAST_HOST})
EXACT = 1e-9


def seconds(*rows, device=HERE, tf32=False, attentions=(), code="none", chosen="sdpa", **where):
    inside = [(kind, n, 0) for n in range(len(attentions)) for kind in (EventKind.ATTENTION, EventKind.ATTENTION_END)]
    events = segment(*inside, ops=rows, attentions=attentions, **where)
    return segment_time(events, device, tf32=tf32, attention=chosen, code=code).compute_s


@pytest.mark.parametrize(
    ("row", "work_s"),
    [
        (op(flops=1e12), 1.0 + 1e-5),
        (op(dtype="float16", flops=1e12), 0.25 + 1e-5),
        (op(dtype="int8", flops=1e12), 0.125 + 1e-5),
        (op(dtype="float8", flops=1e12), 0.25 + 1e-5),  # no rate of its own here
        (op(dtype="bfloat16", flops=1e12), 1.0 + 1e-5),
        (op(dtype="float64", flops=1e12), 32.0 + 1e-5),
        (op(OpClass.CONV_NHWC, dtype="float16", flops=1e12), 2.5 + 2e-5),
        (op(OpClass.CONV, flops=1e12), 5.0 + 2e-5),  # TF32: torch allows it to cuDNN
        (op(OpClass.POINTWISE, moved=1e11), 1.0),
        (op(OpClass.NORM, moved=1e11), 2.0),
        (op(OpClass.COPY, moved=1e11), 5.0),
        (op(flops=1e9, moved=1e11), 1.0),  # a product that is bound by traffic
    ],
)
def test_a_kernel_takes_the_longer_of_arithmetic_and_traffic(row, work_s):
    assert seconds(row) == pytest.approx(work_s + 1e-6, rel=EXACT)


def test_nothing_takes_nothing():
    assert seconds() == 0.0


def test_tf32_speeds_up_fp32_matrix_products_only():
    assert seconds(op(flops=1e12), tf32=True) == pytest.approx(0.5, rel=1e-4)
    for row in (op(dtype="float16", flops=1e12), op(OpClass.CONV, flops=1e12), op(OpClass.POINTWISE, moved=1e12)):
        assert seconds(row, tf32=True) == seconds(row)


def test_tensor_cores_want_another_layout_in_half_precision_alone():
    sizes = (10**10, 10**10, 10**12)  # of the weight nothing is copied
    half, single = op(OpClass.CONV, dtype="float16", conv=sizes), op(OpClass.CONV, conv=sizes)
    assert seconds(half) == pytest.approx(3.4 * 2e10 / 2e10, rel=1e-4)
    assert seconds(single) < 1e-4
    assert seconds(half, device=HERE.model_copy(update={"compute_capability": (6, 1)})) < 1e-4


def test_many_small_kernels_wait_for_the_host():
    slow_host = CARD.model_copy(update={"speed": SPEED})
    timing = segment_time(segment(ops=(op(OpClass.POINTWISE),) * 1000), slow_host, tf32=False)
    assert timing == (pytest.approx(1000 * 1e-4 + 1e-6), 1000)


def test_the_host_runs_ahead_of_long_kernels_and_not_of_short_ones():
    slow_host = CARD.model_copy(update={"speed": SPEED})
    long, short = op(OpClass.POINTWISE, moved=1e11), op(OpClass.POINTWISE)
    work_s, many = 1.0 + 1e-6, 5000
    first = seconds(long, *[short] * many, device=slow_host)
    last = seconds(*[short] * many, long, device=slow_host)
    assert first == pytest.approx(1e-4 + work_s + many * 1e-6)  # launches go on behind it
    assert last == pytest.approx((many + 1) * 1e-4 + work_s)


def test_a_cpu_computes_and_dispatches_in_turn():
    here = CPU.model_copy(update={"speed": SPEED})
    assert seconds(op(OpClass.POINTWISE, moved=1e9), device=here) == pytest.approx(1e-2 + 1e-6 + 1e-4)


def test_kernels_that_are_queued_still_have_a_gap_between_them():
    one, many = seconds(op(OpClass.COPY, moved=1e12)), seconds(*[op(OpClass.COPY, moved=1e9)] * 1000)
    assert many - one == pytest.approx(999e-6)


def test_attention_counts_once_however_the_cpu_does_it():
    events = ((EventKind.ATTENTION, 0, 0), (EventKind.OP, 0, 0), (EventKind.ATTENTION_END, 0, 0))
    rows = (op(flops=1e13, moved=1e12),)
    one = segment_time(segment(*events, ops=rows, attentions=(attention(),)), HERE, tf32=False)
    assert one == (pytest.approx(1e-5 + 1e-6, rel=0.01), 1)


@pytest.mark.parametrize(
    ("chosen", "dtype", "head_dim", "rate"),
    [
        ("sdpa", "float16", 64, 4e12),
        ("sdpa", "float16", 40, 4e12 * 40 / 64),  # tiles of 32
        ("xformers", "float16", 64, 2e12),
        ("xformers", "float16", 40, 2e12 * 40 / 64),
        ("xformers", "float16", 80, 2e12 * 80 / 128),
        ("sdpa", "float32", 64, 1e12),
        ("xformers", "float32", 64, 5e11),
        ("backend:_native_math", "float16", 64, 1e11),
    ],
)
def test_attention_by_the_kernel_that_is_taken(chosen, dtype, head_dim, rate):
    length = 65536
    row = attention(query_length=length, key_length=length, head_dim=head_dim, value_dim=head_dim, dtype=dtype)
    taken = seconds(attentions=(row,), chosen=chosen)
    assert taken == pytest.approx(4 * length**2 * head_dim / rate, rel=0.03)


def test_moving_weights_by_direction_and_memory():
    assert moved_s(HERE, 1e10) == pytest.approx(1.0)
    assert moved_s(HERE, 1e10, pinned=True) == pytest.approx(0.5)
    assert moved_s(HERE, 1e10, back=True) == pytest.approx(2.0)
    assert moved_s(HERE, 1e10, back=True, large_share=0.25) == pytest.approx(0.5 + 0.75)
    assert moved_s(HERE, 1e10, tensors=7, hooks=3) == pytest.approx(1.0 + 0.07 + 0.003)


def test_on_the_cpu_nothing_moves():
    here = CPU.model_copy(update={"speed": SPEED})
    assert moved_s(here, 1e9, tensors=9) == 0.0
    assert moved_s(here, 1e9, hooks=2) == pytest.approx(2e-3)


def test_compiled_code_fuses_runs_of_small_kernels():
    first, middle, last = (op(OpClass.POINTWISE, moved=moved) for moved in (4e11, 9e11, 2e11))
    product = op(flops=1e6)
    assert seconds(first, middle, last, code="trace") == pytest.approx(15.0, rel=1e-4)
    assert seconds(first, middle, last, code="blocks") == pytest.approx(3.0, rel=1e-4)
    assert seconds(first, product, last, code="blocks") == pytest.approx(6.0, rel=1e-4)
    rows = (first, middle, product, middle, middle, last)
    assert segment_time(segment(ops=rows), HERE, tf32=False, code="whole").kernels == 2 + 1 + 2


def test_a_graph_waits_for_no_host():
    slow_host = CARD.model_copy(update={"speed": SPEED})
    rows = (*[op(OpClass.POINTWISE)] * 4, op()) * 200
    plain, traced, blocks, graphs = (
        seconds(*rows, device=slow_host, code=c) for c in ("none", "trace", "blocks", "graphs")
    )
    assert plain > traced > blocks > graphs
    assert graphs < 1e-3


def test_tuned_kernels_are_faster():
    row = op(dtype="float16", flops=1e12)
    assert seconds(row, code="tuned") < seconds(row, code="graphs")


def test_the_first_call_makes_the_code():
    assert setup_s("none") == 0.0 < setup_s("trace") < setup_s("blocks")


def test_pictures_are_made_on_the_host():
    row = op(OpClass.COPY, moved=1e10)
    plain = seconds(row, component="", phase="denoising")
    assert seconds(row, component="", phase="decoding") == pytest.approx(plain + 2.0)
    assert seconds(row, component="vae", phase="decoding") == plain
