"""Real quantised layers, known by the names of their classes: hand-made ones of the same names and attributes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from autotune.trace.kernels import quanto_group
from autotune.trace.quantized import quantized, stand_in
from autotune.trace.session import Session
from autotune.trace.twin import own_tensors
from autotune.upstream.port import networks
from benchmarks.tiny import CALLS, flux
from tests.unit.test_trace_quantized import BFLOAT16, IN, LAYERS, OUT

CALL = {**CALLS["flux"], "prompt": "a cat", "output_type": "pt"}


class Params4bit(torch.nn.Parameter):
    """The names that bitsandbytes gives its things."""


class QuantState(SimpleNamespace):
    pass


class Int8Params(torch.nn.Parameter):
    pass


class GGUFParameter(torch.nn.Parameter):
    pass


class Linear4bit(torch.nn.Linear):
    def forward(self, x):
        raise AssertionError("the original is never called")


class Linear8bitLt(Linear4bit):
    pass


class GGUFLinear(Linear4bit):
    pass


class QLinear(Linear4bit):
    pass


class Wrapper(torch.Tensor):
    """A tensor made of tensors, as those of torchao and quanto are."""

    def __new__(cls, shape, **inner):
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=BFLOAT16)

    def __init__(self, shape, **inner):
        self.inner = inner
        vars(self).update(inner)

    def __tensor_flatten__(self):
        return [name for name, value in self.inner.items() if isinstance(value, torch.Tensor)], None

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return args[0]
        raise AssertionError("the original is never used")


class Int8Tensor(Wrapper):
    pass


class WeightQBitsTensor(Wrapper):
    pass


class PackedTensor(Wrapper):
    pass


def as_nf4(linear):
    made = of_class(Linear4bit, linear)
    blocks = -(-linear.weight.numel() // 64)
    made.weight = Params4bit(torch.zeros(linear.weight.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
    inner = QuantState(absmax=torch.zeros(-(-blocks // 256)), code=torch.zeros(256), offset=None, state2=None)
    made.weight.quant_type = "nf4"
    made.weight.quant_state = QuantState(
        absmax=torch.zeros(blocks, dtype=torch.uint8), code=torch.zeros(16), offset=torch.zeros(()), state2=inner
    )
    made.compute_dtype = BFLOAT16
    return made, "bitsandbytes-nf4-double"


def as_int8(linear):
    made = of_class(Linear8bitLt, linear)
    made.weight = Int8Params(torch.zeros(linear.weight.shape, dtype=torch.int8), requires_grad=False)
    made.weight.SCB = None
    made.state = type("MatmulLtState", (), {"CB": made.weight.data, "SCB": torch.zeros(linear.out_features)})()
    return made, "bitsandbytes-int8"


def as_gguf(linear):
    if linear.in_features % 32:
        return linear, "gguf-q4_0"
    made = of_class(GGUFLinear, linear)
    made.weight = GGUFParameter(
        torch.zeros(linear.out_features, linear.in_features // 32 * 18, dtype=torch.uint8), requires_grad=False
    )
    made.weight.quant_type = SimpleNamespace(name="Q4_0")
    made.compute_dtype = BFLOAT16
    return made, "gguf-q4_0"


def as_torchao(linear):
    made = of_class(torch.nn.Linear, linear)
    rows = (linear.out_features, 1)
    data, scale, zero = torch.zeros(linear.weight.shape, dtype=torch.int8), torch.zeros(rows), torch.zeros(rows).char()
    weight = Int8Tensor(linear.weight.shape, qdata=data, scale=scale, zero_point=zero, act_quant_kwargs=None)
    made._parameters["weight"] = weight
    return made, "torchao-int8wo"


def as_quanto(linear):
    made = of_class(QLinear, linear)
    shape = linear.weight.shape
    groups = shape.numel() // quanto_group(shape[1])
    packed = PackedTensor(shape, _data=torch.zeros(shape.numel() // 4, dtype=torch.uint8))
    scale, shift = torch.zeros(groups, dtype=BFLOAT16), torch.zeros(groups, dtype=BFLOAT16)
    qtype = SimpleNamespace(name="qint2")
    made._parameters["weight"] = WeightQBitsTensor(shape, _data=packed, _scale=scale, _shift=shift, _qtype=qtype)
    for name in ("input_scale", "output_scale"):
        made.register_buffer(name, torch.ones((), dtype=BFLOAT16))
    return made, "quanto-int2"


class Unheard(torch.nn.Parameter):
    pass


def as_unheard(linear):
    made = of_class(Linear4bit, linear)
    made.weight = Unheard(torch.zeros(linear.weight.shape, dtype=torch.int8), requires_grad=False)
    return made, ""


def of_class(cls, linear):
    made = cls(linear.in_features, linear.out_features, linear.bias is not None, dtype=BFLOAT16)
    del made.weight
    made.bias = linear.bias
    return made


REAL = [as_nf4, as_int8, as_gguf, as_torchao, as_quanto]


def flux_with(make):
    """FLUX with the transformer's linear layers made real, and the scheme's name."""
    pipe, scheme = flux().to(BFLOAT16), ""
    for module in list(pipe.transformer.modules()):
        for name, child in list(module._modules.items()):
            if type(child) is torch.nn.Linear:
                module._modules[name], scheme = make(child)
    return pipe, scheme


def record(pipe):
    return Session(pipe, denoisers=frozenset({"transformer"})).record(CALL, steps=2)


@pytest.mark.parametrize("make", REAL)
def test_a_layer_is_known_by_its_class_and_counted_by_its_tensors(make):
    real, scheme = make(torch.nn.Linear(IN, OUT, dtype=BFLOAT16))
    stand = stand_in(real)
    assert stand.scheme == scheme
    assert stand.compute_dtype == BFLOAT16
    assert (stand.packed.numel(), stand.statistics.numel()) == LAYERS[scheme][:2]
    assert stand.weight.dtype == real.weight.dtype
    assert stand_in(torch.nn.Linear(2, 2)) is None


@pytest.mark.parametrize("make", REAL)
def test_a_pipeline_gives_the_trace_of_the_what_if(make):
    real, scheme = flux_with(make)
    supposed = flux().to(BFLOAT16)
    quantized(supposed.transformer.to("meta"), scheme, BFLOAT16)
    traces = [record(pipe) for pipe in (real, supposed)]
    assert traces[0].untraced == {}
    assert traces[0].weights == traces[1].weights
    for one, other in zip(traces[0].segments, traces[1].segments, strict=True):
        assert one.kind.tolist() == other.kind.tolist()
        assert one.size.tolist() == other.size.tolist()
        assert one.op_flops.tolist() == other.op_flops.tolist()


@pytest.mark.parametrize("make", REAL)
def test_the_original_is_as_it_was(make):
    real, _ = flux_with(make)

    def state():
        modules = list(real.transformer.modules())
        return [(id(m), [(id(t), t.device.type) for t in own_tensors(m)], sorted(vars(m))) for m in modules]

    before = state()
    record(real)
    assert state() == before
    assert {t.device.type for part in networks(real).values() for t in part.parameters()} == {"cpu"}


def test_other_classes_are_refused_by_name():
    trace = record(flux_with(as_unheard)[0])
    assert trace.untraced["transformer"] == "weights of class Unheard"
