"""Attention that needs a card: what is set on processors, with the libraries' classes and no library."""

from __future__ import annotations

import pytest

from autotune.levers.attention import Attention, traced_as
from autotune.levers.base import Subject
from autotune.records.workload import Workload
from autotune.upstream import backends, port
from benchmarks.tiny import flux, sd, sd3
from tests.contract.families import pulled
from tests.unit.handmade import CARD, card

CALL = Workload(height=32, width=32, steps=2)
LEVER = Attention()


def processors(pipe):
    parts = port.networks(pipe).values()
    return [type(m.processor).__name__ for part in parts for m in part.modules() if hasattr(m, "processor")]


def held(pipe):
    attentions = [module for module in pipe.transformer.modules() if hasattr(module, "processor")]
    return {str(module.processor._attention_backend) for module in attentions}


def test_xformers_goes_wherever_processors_compute_the_same():
    pipe = sd()
    before = processors(pipe)
    journal = pulled(LEVER, Subject(pipe, CARD, CALL), "xformers")
    assert set(processors(pipe)) == {"XFormersAttnProcessor"}
    journal.undo()
    assert processors(pipe) == before


def test_xformers_goes_through_the_dispatcher_where_there_is_one():
    pipe = flux()
    journal = pulled(LEVER, Subject(pipe, CARD, CALL), "xformers")
    assert held(pipe) == {"AttentionBackendName.XFORMERS"}
    journal.undo()
    assert held(pipe) == {"None"}


def test_a_backend_is_set_on_processors_and_the_process_keeps_its_own():
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    pipe, active = flux(), _AttentionBackendRegistry.get_active_backend()
    journal = pulled(LEVER, Subject(pipe, CARD, CALL), "backend:flash")
    assert held(pipe) == {"AttentionBackendName.FLASH"}
    assert _AttentionBackendRegistry.get_active_backend() == active
    journal.undo()
    assert held(pipe) == {"None"}


def test_joint_attention_is_never_exchanged():
    pipe = sd3()
    pulled(LEVER, Subject(pipe, CARD, CALL), "vanilla")
    assert "JointAttnProcessor2_0" in processors(pipe)
    assert "AttnProcessor2_0" not in processors(pipe)


def test_slices_are_proposed_only_where_no_fused_kernel_is():
    pipe = sd()
    turing = card((7, 5))
    assert LEVER.domain(Subject(pipe, turing, CALL)).values == (None,)
    pipe.unet.to(dtype=__import__("torch").bfloat16)
    assert LEVER.domain(Subject(pipe, turing, CALL)).values == (None, "sliced:auto", "sliced:max")
    assert LEVER.domain(Subject(pipe, CARD, CALL)).values == (None,)


def test_what_is_installed_is_proposed_and_eight_bits_only_by_name(monkeypatch):
    monkeypatch.setattr(backends, "backend_missing", lambda name: "")
    subject = Subject(flux(), CARD, CALL)
    assert LEVER.domain(subject).values == (None, "backend:flash", "xformers")
    allowed = subject._replace(allowed=frozenset({"sage"}))
    assert LEVER.domain(allowed).values == (None, "backend:flash", "backend:sage", "xformers")


@pytest.mark.parametrize(
    ("value", "traced"),
    [("sliced:max", "sliced:max"), ("xformers", "sdpa"), ("backend:flash", "backend:native")],
)
def test_a_trace_takes_what_runs_anywhere(value, traced):
    assert traced_as(value) == traced
