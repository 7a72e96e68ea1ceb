"""As few recordings as a space needs, and each what recording the whole call would have given."""

from __future__ import annotations

import pytest

from autotune.flow.job import job_for
from autotune.flow.recordings import Recordings
from autotune.records.plan import Plan
from autotune.search.space import Space
from autotune.trace.session import Session
from benchmarks.tiny import CALLS, flux, sd
from tests.unit.handmade import CARD

CALL = {**CALLS["sd"], "height": 32, "width": 32}


def recordings(pipe, call=CALL):
    job = job_for(pipe, device=CARD, workload=call, example=None, calls=1, undo=True)
    return Recordings(job, job.workloads[0], job.calls[0])


def space(**values):
    return Space(values={name: values.get(name, (value,)) for name, value in Plan().values.items()})


@pytest.fixture
def counted(monkeypatch):
    """How often a whole call, and how often a component, is recorded."""
    whole, again = [], []
    record, one = Session.record, Session.again
    monkeypatch.setattr(Session, "record", lambda self, *a, **k: whole.append(1) or record(self, *a, **k))
    monkeypatch.setattr(Session, "again", lambda self, t, name: again.append(name) or one(self, t, name))
    return whole, again


def test_a_component_is_recorded_once_for_what_touches_it(counted):
    whole, again = counted
    traces = recordings(sd()).traces(
        space(
            dtype=("as_is", "float16"),
            feed_forward_chunks=(False, 2),
            vae_slicing=(False, True),
            vae_tiling=(False, 16),
        )
    )
    assert len(traces) == 2 * 2 * 2 * 2
    assert len(whole) == 2
    assert sorted(again) == ["unet"] * 2 + ["vae"] * 6


def test_layout_touches_what_has_convolutions(counted):
    _, again = counted
    recordings(flux(), CALLS["flux"]).traces(space(channels_last=(False, True)))
    assert again == ["vae"]


def test_a_component_by_itself_is_recorded_as_within_the_whole():
    """Chunks change the denoiser only: exchanged into the whole they give what the whole gives with chunks from the start."""
    exchanged = recordings(sd()).traces(space(feed_forward_chunks=(2,)))
    from autotune.levers.base import Subject
    from autotune.levers.engine import executed

    one = recordings(sd())
    with executed(Subject(one._session.twin, CARD, one.workload), {"feed_forward_chunks": 2}):
        whole = one._whole_call()
    (trace,) = exchanged.values()
    for mine, other in zip(trace.segments, whole.segments, strict=True):
        assert mine.component == other.component
        assert sorted(mine.op_flops) == sorted(other.op_flops)


def test_a_small_step_is_not_worth_a_proof(monkeypatch):
    proved = []
    facts = Session.facts
    monkeypatch.setattr(Session, "facts", lambda self, *, prove: proved.append(prove) or facts(self, prove=prove))
    monkeypatch.setattr(Recordings, "_is_small", lambda self, trace, name: True)
    assert all(one.small for one in recordings(sd()).facts().values())
    assert proved == [False]
    recordings(sd()).facts(prove=True)
    assert proved == [False, False, True]
