"""What is true of this machine only: plans of a remembered front that it cannot apply, and what its profiles are keyed by."""

from __future__ import annotations

import logging

import pytest

from autotune.flow import here
from autotune.flow.job import job_for
from autotune.flow.recall import _options
from autotune.records.plan import Plan
from autotune.store.key import hash_options
from autotune.upstream import internals
from benchmarks.tiny import CALLS, flux, sd
from tests.unit.handmade import CARD, CPU, candidate, card, front

HERE = CARD.model_copy(update={"free_bytes": 10**10, "source": "probed"})
PLAIN = Plan(id="plain", offload="model")


def job(device, pipe=None, family="sd"):
    return job_for(pipe or sd(), device=device, workload=CALLS[family], example=None, calls=1, undo=True)


def remembered(device, *plans):
    return front(*map(candidate, plans), device=device)


def ids(found):
    return None if found is None else [plan.id for plan in found.plans()]


@pytest.fixture
def with_cuda(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)


@pytest.mark.parametrize(
    ("device", "changes", "left"),
    [
        (HERE, {}, ["other", "plain"]),
        (HERE, {"compile": "blocks"}, ["plain"]),  # no Triton
        (card((6, 1), free_bytes=10**10), {"compile": "blocks"}, ["plain"]),  # nor any for that card
        (HERE, {"attention": "xformers"}, None),
        (HERE, {"attention": "backend:flash"}, None),
        (HERE, {"attention": "xformers", "compile": "blocks"}, None),
        (card((7, 5), free_bytes=10**10), {"tf32": True}, None),
        (CPU, {"attention": "xformers"}, None),
        (CARD, {"attention": "xformers"}, ["other", "plain"]),  # who knows what is installed beside it
        (CARD, {"compile": "blocks"}, ["other", "plain"]),
    ],
)
def test_what_cannot_be_applied_here_is_left_out_or_searched_anew(device, changes, left, with_cuda, monkeypatch):
    monkeypatch.setattr(internals, "has_triton", lambda: False)
    assert ids(here.applicable(remembered(device, Plan(id="other", **changes), PLAIN), job(device))) == left


def test_a_plan_is_checked_with_what_its_trace_has_shown(with_cuda):
    """Splitting the batch is right where the front says that it can be split."""
    split = remembered(HERE, Plan(id="split", batch_split=2), PLAIN)
    facts = {"unet": {"batch": 2, "batched": ("[0][0]",)}}
    split = type(split).model_validate(split.model_dump() | {"denoisers": facts})
    assert ids(here.applicable(split, job(HERE))) == ["split", "plain"]


def test_nothing_left_is_a_search(with_cuda, monkeypatch, caplog):
    monkeypatch.setattr(internals, "has_triton", lambda: False)
    caplog.set_level(logging.INFO, "autotune")
    assert here.applicable(remembered(HERE, Plan(id="other", compile="blocks")), job(HERE)) is None
    (told,) = caplog.messages
    assert told == (
        "the profile of a model is not for this machine (compile='blocks' cannot be applied: Triton is not installed; "
        "what works is 'none'): searching anew"
    )


@pytest.mark.parametrize(
    ("device", "changes", "triton", "left"),
    [
        (HERE, {}, None, ["other", "plain"]),
        (HERE, {"compile": "blocks"}, "triton", ["other", "plain"]),
        (HERE, {"compile": "blocks"}, None, ["plain"]),
        (HERE, {"attention": "xformers"}, "triton", None),
        (HERE, {"attention": "backend:_native_cudnn"}, "triton", None),  # who builds the model finds out
        (HERE, {"attention": "sdpa"}, None, ["other", "plain"]),
        (CARD, {"attention": "xformers"}, None, ["other", "plain"]),
        (CARD, {"compile": "blocks"}, None, ["other", "plain"]),
    ],
)
def test_by_name_alone(device, changes, triton, left, monkeypatch):
    monkeypatch.setattr(here, "find_spec", lambda name: triton)
    assert ids(here.applicable_by_name(remembered(device, Plan(id="other", **changes), PLAIN))) == left


def test_a_backend_that_is_part_of_torch_is_kept():
    found = here.applicable(
        remembered(CPU, Plan(id="other", attention="backend:native"), PLAIN), job(CPU, flux(), "flux")
    )
    assert ids(found) == ["other", "plain"]


@pytest.mark.parametrize("variable", ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"])
def test_a_profile_answers_only_where_the_allocator_is_set_alike(variable, monkeypatch):
    def key(device, text=None):
        with monkeypatch.context() as patch:
            for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
                patch.delenv(name, raising=False)
            if text is not None:
                patch.setenv(variable, text)
            return hash_options(_options(device, True))

    expandable = "expandable_segments:True"
    assert key(HERE) == key(CARD)  # what ships answers here
    assert key(HERE, "expandable_segments:False,max_non_split_rounding_mb:20") == key(HERE)  # which is how it is anyway
    assert len({key(HERE), key(HERE, expandable), key(HERE, "max_split_size_mb:128")}) == 3
    assert key(HERE, "garbage_collection_threshold:0.6, expandable_segments:True") == key(
        HERE, "expandable_segments:True,garbage_collection_threshold:0.6"
    )
    for elsewhere in (CARD, CPU):
        assert key(elsewhere, expandable) == key(elsewhere)


def test_a_profile_answers_only_where_torch_has_the_same_quirks(monkeypatch):
    usual = hash_options(_options(HERE, True))
    monkeypatch.setattr(here, "version", lambda name: "2.9.1")
    assert hash_options(_options(HERE, True)) != usual
    assert hash_options(_options(CARD, True)) == usual
    monkeypatch.setattr(here, "version", lambda name: "2.9.2")
    assert hash_options(_options(HERE, True)) == usual
