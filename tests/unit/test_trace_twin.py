"""The twin: the same pipeline without a byte of it, and the original as it was."""

from __future__ import annotations

import logging
import warnings
from functools import partial

import accelerate
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from autotune.trace.session import Session
from autotune.trace.twin import own_tensors, set_precision, twin_of
from autotune.upstream.port import networks
from benchmarks.tiny import CALLS, PIPELINES, flux, sd

CALL = {**CALLS["sd"], "height": 32, "width": 32, "prompt": "a cat", "output_type": "pt"}
FLUX_CALL = {**CALLS["flux"], "prompt": "a cat", "output_type": "pt"}
CPU = torch.device("cpu")


def tensors(pipe):
    return [t for part in networks(pipe).values() for module in part.modules() for t in own_tensors(module)]


@pytest.mark.parametrize("family", PIPELINES)
def test_it_shares_no_tensor_and_keeps_every_shape(family):
    pipe = PIPELINES[family]()
    twin = twin_of(pipe, FakeTensorMode())
    originals, fakes = tensors(pipe), tensors(twin)
    assert not {id(t) for t in originals} & {id(t) for t in fakes}
    assert all(isinstance(fake, FakeTensor) for fake in fakes)
    assert [(t.shape, t.dtype, t.stride()) for t in fakes] == [(t.shape, t.dtype, t.stride()) for t in originals]
    assert {type(part) for part in networks(twin).values()} == {type(part) for part in networks(pipe).values()}


def test_tied_weights_stay_tied():
    twin = twin_of(flux(), FakeTensorMode())
    assert twin.text_encoder_2.shared.weight is twin.text_encoder_2.encoder.embed_tokens.weight


def test_a_cast_keeps_ties_and_spares_whole_numbers():
    mode = FakeTensorMode()
    twin = twin_of(flux(), mode)
    set_precision(twin.text_encoder_2, mode, torch.bfloat16)
    assert twin.text_encoder_2.shared.weight is twin.text_encoder_2.encoder.embed_tokens.weight
    assert twin.text_encoder_2.shared.weight.dtype == torch.bfloat16
    set_precision(twin.text_encoder, mode, torch.bfloat16)
    assert {b.dtype for b in twin.text_encoder.buffers()} == {torch.int64}
    assert {p.dtype for p in twin.text_encoder.parameters()} == {torch.bfloat16}


def state_of(pipe):
    """The objects that the pipeline and its modules hold, and all that a call could leave behind elsewhere."""
    held = [
        (dict(vars(m)), dict(m._parameters), dict(m._buffers)) for p in networks(pipe).values() for m in p.modules()
    ]
    levels = [logging.getLogger(name).level for name in ("diffusers", "transformers", "torch", "autotune")]
    return {
        "pipeline": dict(vars(pipe)),
        "modules": [[{k: id(v) for k, v in table.items()} for table in tables] for tables in held],
        "scheduler": {k: str(v) for k, v in vars(pipe.scheduler).items()},
        "versions": [t._version for t in tensors(pipe)],
        "random": torch.get_rng_state().tolist(),
        "filters": list(warnings.filters),
        "levels": levels,
        "grad": torch.is_grad_enabled(),
    }


@pytest.mark.parametrize("family", ["sd", "flux", "ltx"])
def test_the_original_and_the_process_are_as_they_were(family, capfd):
    pipe = PIPELINES[family]()
    call = {**CALLS[family], "prompt": "a cat", "output_type": "pt"}
    before = state_of(pipe)
    Session(pipe, denoisers=frozenset({"unet", "transformer"})).record(call, steps=2)
    assert state_of(pipe) == before
    assert capfd.readouterr() == ("", "")


def test_the_original_is_as_it_was_after_a_failure():
    pipe = sd()

    def fails(*_, **__):
        raise RuntimeError("not on a fake")

    pipe.unet.forward = fails
    before = state_of(pipe)
    Session(pipe, denoisers=frozenset({"unet"})).record(CALL, steps=2)
    assert state_of(pipe) == before


def model_offloaded():
    pipe = sd()
    pipe.enable_model_cpu_offload(device="cpu")
    return pipe


def sequentially_offloaded():
    pipe = sd()
    for part in networks(pipe).values():
        accelerate.cpu_offload(part, CPU, offload_buffers=len(part._parameters) > 0)
    return pipe


def on_meta():
    pipe = sd()
    for part in networks(pipe).values():
        part.to("meta")
    return pipe


def group_offloaded():
    pipe = flux()
    pipe.transformer.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")
    return pipe


def with_compiled_blocks():
    pipe = flux()
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    return pipe


def compiled_whole():
    pipe = flux()
    pipe.transformer = torch.compile(pipe.transformer, backend="eager")
    return pipe


def place(segment):
    return segment.component, segment.method, segment.phase, segment.turn


@pytest.mark.parametrize(
    ("build", "plain", "call"),
    [
        (model_offloaded, sd, CALL),
        (sequentially_offloaded, sd, CALL),
        (on_meta, sd, CALL),
        (group_offloaded, flux, FLUX_CALL),
        (with_compiled_blocks, flux, FLUX_CALL),
        (compiled_whole, flux, FLUX_CALL),
    ],
)
def test_a_pipeline_in_any_state_gives_the_trace_of_a_plain_one(build, plain, call):
    denoisers = frozenset({"unet", "transformer"})
    traces = [Session(pipe, denoisers=denoisers).record(call, steps=2) for pipe in (build(), plain())]
    assert traces[0].untraced == {}
    assert traces[0].weights == traces[1].weights
    for one, other in zip(traces[0].segments, traces[1].segments, strict=True):
        assert place(one) == place(other)
        assert one.kind.tolist() == other.kind.tolist()
        assert one.size.tolist() == other.size.tolist()
        assert one.op_flops.tolist() == other.op_flops.tolist()


def test_hooks_stay_where_they_are():
    pipe = sequentially_offloaded()
    hooks = [module._hf_hook for module in pipe.unet.modules() if hasattr(module, "_hf_hook")]
    Session(pipe, denoisers=frozenset({"unet"})).record(CALL, steps=2)
    assert [module._hf_hook for module in pipe.unet.modules() if hasattr(module, "_hf_hook")] == hooks
    assert pipe.unet.conv_in.weight.is_meta


def test_a_forward_that_somebody_replaced_is_not_called():
    """It holds on to the original, which a twin must never run. A bound method, also with arguments fixed, is copied."""
    pipe, called = sd(), []
    forward = pipe.unet.forward

    def replaced(*args, **kwargs):
        called.append(1)
        return forward(*args, **kwargs)

    pipe.unet.forward = replaced
    trace = Session(pipe, denoisers=frozenset({"unet"})).record(CALL, steps=2)
    assert trace.untraced["unet"] == "a function was put in place of its forward"
    assert not called
    pipe.unet.forward = partial(forward, return_dict=False)
    assert Session(pipe, denoisers=frozenset({"unet"})).record(CALL, steps=2).untraced == {}
