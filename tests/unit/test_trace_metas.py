"""What is answered for fakes without torch is what torch answers."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves

from autotune.trace import metas
from autotune.trace.record import Recorder

aten = torch.ops.aten


def empty(*shape, dtype=torch.float32, stride=None):
    return torch.empty_strided(shape, stride, dtype=dtype) if stride else torch.empty(shape, dtype=dtype)


def cases(dtype):
    """Calls of every operator that is answered, in all layouts that networks have."""
    image = [
        empty(2, 64, 8, 8, dtype=dtype), empty(1, 64, 8, 8, dtype=dtype),
        empty(2, 64, 8, 8, dtype=dtype).to(memory_format=torch.channels_last),
        empty(2, 8, 8, 64, dtype=dtype).permute(0, 3, 1, 2), empty(2, 64, 16, 8, dtype=dtype)[:, :, ::2],
        empty(1, 64, 8, 8, dtype=dtype).to(memory_format=torch.channels_last),
        empty(1, 8, 8, 64, dtype=dtype).permute(0, 3, 1, 2), empty(4, 64, 8, 8, dtype=dtype)[1:3],
        empty(2, 64, 1, 8, dtype=dtype).expand(2, 64, 8, 8),
    ]  # fmt: skip
    rows = [
        empty(2, 5, 64, dtype=dtype),
        empty(5, 2, 64, dtype=dtype).transpose(0, 1),
        empty(2, 5, 128, dtype=dtype)[..., :64],
    ]
    channels, scalar = empty(64, dtype=dtype), empty(dtype=dtype)
    others = (
        *image, channels[:8], scalar, 2, 0.5, empty(2, 64, 8, 8, dtype=torch.float64), empty(2, 64, 1, 1, dtype=dtype),
    )  # fmt: skip
    for x in image:
        yield aten.native_group_norm.default, (x, channels, channels, x.shape[0], 64, 64, 32, 1e-5)
        yield aten.native_group_norm.default, (x, channels[:8], channels, x.shape[0], 64, 64, 32, 1e-5)
        yield aten.native_group_norm.default, (x, None, None, x.shape[0], 64, 64, 32, 1e-5)
        for other in others:
            for func in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor):
                yield func, (x, other)
        for func in (aten.silu.default, aten.gelu.default, aten.neg.default, aten.sigmoid.default, aten.cos.default,
                     aten.sin.default, aten.tanh.default, aten.clone.default, aten.rsqrt.default,
                     aten.exp.default):  # fmt: skip
            yield func, (x,)
        for other in image:
            yield aten.cat.default, ([x, other], 1)
            yield aten.cat.default, ([other, x, other],)
        yield aten.upsample_nearest2d.default, (x, [16, 16], None, None)
        yield aten.unbind.int, (x, 1)
        yield aten.split_with_sizes.default, (x, [24, 40], 1)
        yield aten.pow.Tensor_Scalar, (x, 2)
        yield aten.pow.Tensor_Scalar, (x, 0.5)
        yield aten.mean.dim, (x, [-1], True)
        yield aten.mean.dim, (x, [2, 3])
        yield aten._softmax.default, (x, -1, False)
        yield aten.permute.default, (x, [0, 2, 3, 1])
        yield aten.transpose.int, (x, 1, -1)
        yield aten.slice.Tensor, (x, 2, 1, 9223372036854775807, 2)
        yield aten.select.int, (x, 1, -1)
        yield aten.unsqueeze.default, (x, 2)
        yield aten.expand.default, (x.unsqueeze(2), [-1, 64, 3, 8, 8])
        yield aten.split.Tensor, (x, 24, 1)
        if x.is_contiguous():
            yield aten.view.default, (x, [-1, 64])
            yield aten._unsafe_view.default, (x, [x.shape[0], -1])
    for x in (
        *image,
        empty(1, 64, 1, 1, dtype=dtype),
        empty(1, 64, 1, 9, dtype=dtype),
        empty(2, 64, 3, 8, 8, dtype=dtype),
    ):
        for kernel, *rest in (
            (3, [1, 1], [1, 1], [1, 1], False, [0, 0], 1), (1, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
            (3, [2, 2], [0, 1], [1, 1], False, [0, 0], 1), (3, [1, 1], [2, 2], [2, 2], False, [0, 0], 64),
            (4, [2, 2], [1, 1], [1, 1], True, [0, 0], 1), (3, [1], [1], [1], False, [0], 4), (16, [8], [4], [1], False, [0], 1),
        ):  # fmt: skip
            if x.dim() == 5:
                rest = [[*one, 1] if isinstance(one, list) and len(one) == 2 else one for one in rest]
            weight = empty(128, 64 // rest[-1], *[kernel] * (x.dim() - 2), dtype=dtype)
            for bias in (None, empty(128, dtype=dtype)):
                yield aten.convolution.default, (x, weight, bias, *rest)
                if x.dim() == 4:
                    yield aten.convolution.default, (x, weight.to(memory_format=torch.channels_last), bias, *rest)
                yield aten.convolution.default, (x, weight[:1], None, *rest)
                yield aten.convolution.default, (x, weight, empty(7, dtype=dtype), *rest)
                yield aten.convolution.default, (x[:, :32], weight, bias, *rest)
    for x in rows:
        yield aten.native_layer_norm.default, (x, [64], channels, channels, 1e-5)
        yield aten.native_layer_norm.default, (x, [64], None, None, 1e-5)
        yield aten.native_layer_norm.default, (x, [64], channels[:32], channels, 1e-5)
        yield aten.native_layer_norm.default, (x, [32], None, None, 1e-5)
        yield aten.native_layer_norm.default, (x, [5, 64], None, None, 1e-5)
        yield aten.bmm.default, (x, x.transpose(1, 2))
        flat = x.reshape(-1, 64)
        for weight in (empty(32, 64, dtype=dtype).t(), empty(64, 32, dtype=dtype)):
            yield aten.addmm.default, (empty(32, dtype=dtype), flat, weight)
            yield aten.addmm.default, (empty(10, 32, dtype=dtype), flat, weight)
            yield aten.mm.default, (flat, weight)
            yield aten.addmm.default, (empty(31, dtype=dtype), flat, weight)
            yield aten.addmm.default, (empty(32, dtype=dtype), flat[:, :5], weight)
            yield aten.t.default, (weight,)


def seen(out):
    outputs = [out] if isinstance(out, torch.Tensor) else out
    return None if isinstance(out, torch.Tensor) else type(out), [
        (tuple(t.shape), t.stride(), t.storage_offset(), t.dtype, t.device, t.untyped_storage().nbytes())
        for t in outputs
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_answers_are_torchs(dtype):
    mode, answered, functions = FakeTensorMode(), 0, set()
    with torch.no_grad(), mode:
        for func, args in list(cases(dtype)):
            mode_free = [one for one in tree_leaves(args) if isinstance(one, torch.Tensor)]
            try:
                expected = func(*args)
            except (RuntimeError, ValueError):
                with contextlib.suppress(
                    RuntimeError, ValueError
                ):  # what torch refuses is refused, or torch's business
                    assert metas.given(func, args, {}, mode_free) is None, func
                continue
            found = metas.given(func, args, {}, mode_free)
            if found is None:
                continue
            assert seen(found) == seen(expected), (func, [seen(one) for one in mode_free])
            for new, old in zip(*([x] if isinstance(x, torch.Tensor) else x for x in (found, expected)), strict=True):
                mine, theirs = new.untyped_storage()._cdata, old.untyped_storage()._cdata
                inputs = {one.untyped_storage()._cdata for one in mode_free}
                assert (mine in inputs) == (theirs in inputs), func
            answered += 1
            functions.add(func)
    assert answered > 300
    assert functions >= metas._BY_KERNEL | metas._OF_SEVERAL | set(metas._RULES)


def test_views_of_one_sample_are_those_of_real_tensors():
    """Strides of an axis of one element say nothing, but group norms on a card go by them; torch's own fakes have others."""
    for shape, stride, to in (
        ((1, 960, 1024), (983040, 1, 960), [1, 960, 32, 32]), ((1, 1280, 16, 16), (327680, 1, 20480, 1280), [1, 1280, -1]),
        ((2, 64, 1, 64), (4096, 64, 4096, 1), [128, -1, 64]), ((1, 77, 64, 64), (4096, 4096, 64, 1), [1, 77, -1]),
    ):  # fmt: skip
        real = torch.empty_strided(shape, stride).view(to)
        with torch.no_grad(), FakeTensorMode():
            fake = torch.empty_strided(shape, stride)
            assert metas.given(aten.view.default, (fake, to), {}, [fake]).stride() == real.stride()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last, torch.preserve_format])
def test_copies_in_another_order_are_torchs(memory_format):
    mode = FakeTensorMode()
    with torch.no_grad(), mode:
        for _, (image, *_) in (case for case in cases(torch.float16) if case[0] is aten.silu.default):
            expected = aten.clone.default(image, memory_format=memory_format)
            found = metas.given(aten.clone.default, (image,), {"memory_format": memory_format}, [image])
            assert seen(found) == seen(expected)


def test_a_tensor_that_is_passed_as_out_is_resized_each_time():
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), recorder, mode:
        given, shapes = torch.empty(4, 4), []
        for _ in range(3):
            out = torch.empty(0)
            torch.add(given, given, out=out)
            joined = torch.empty(0)
            torch.stack([given, given], out=joined)
            shapes.append((tuple(out.shape), tuple(joined.sum(0).shape)))
    assert set(shapes) == {((4, 4), (4, 4))}


def test_the_usual_float_type_decides_what_whole_numbers_become():
    recorder, mode = Recorder(), FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad(), recorder, mode:
            whole = torch.ones(3, dtype=torch.int64)
            found = []
            for usual in (torch.float32, torch.float64):
                torch.set_default_dtype(usual)
                found.append((whole / 2).dtype)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == [torch.float32, torch.float64]
