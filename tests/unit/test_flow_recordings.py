"""As few recordings as a space needs, and each what recording the whole call would have given."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderTiny

import autotune
from autotune.errors import PlanError, WorkloadError
from autotune.flow.estimating import estimate_of
from autotune.flow.job import job_for
from autotune.flow.planning import front_of
from autotune.flow.recordings import Recordings
from autotune.levers.engine import EXECUTED
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.precision import Precision
from autotune.records.values import typed
from autotune.search.space import Space
from autotune.trace.session import Session
from benchmarks.tiny import CALLS, flux, sd
from tests.unit.handmade import CARD

CALL = {**CALLS["sd"], "height": 32, "width": 32}


def recordings(pipe, call=CALL):
    job = job_for(pipe, device=CARD, workload=call, example=None, calls=1, undo=True)
    return Recordings(job, job.workloads[0], job.calls[0])


def test_the_largest_tile_is_smaller_than_what_is_computed():
    """This Flux rounds 257 pixels to 256: tiles of 256 would be none."""
    job = job_for(
        flux(), device=CARD, workload={**CALLS["flux"], "height": 257, "width": 257}, example=None, calls=1, undo=True
    )
    found = estimate_of(job, Plan(), finds_its_tile=True)
    assert found.workload.size == (256, 256, None)
    assert found.plan.vae_tiling == 128
    assert _decoding_bytes(found) < _decoding_bytes(estimate_of(job, Plan()))


def _decoding_bytes(found):
    return found.estimate.phase("decoding").activations_bytes


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
            dtype=(None, "float16"),
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
    monkeypatch.setattr("autotune.flow.recordings.is_small", lambda trace, name, device: True)
    assert all(one.small for one in recordings(sd()).facts().values())
    assert proved == [False]
    recordings(sd()).facts(prove=True)
    assert proved == [False, False, True]


def tiles_break(pipe):
    """A VAE whose decoder takes no tile: a raw error of its own, whatever the tile."""
    vae = pipe.vae

    def tiled_decode(latents, return_dict=True):
        raise RuntimeError("sizes of tensors must match")

    vae.tiled_decode = tiled_decode
    return pipe


def test_a_variant_that_does_not_run_is_none_and_has_a_reason():
    one = recordings(tiles_break(sd()))
    wanted = space(vae_tiling=(False, 16), channels_last=(False, True))
    traces = one.traces(wanted)
    assert {key[wanted_place("vae_tiling")] for key in traces} == {False}
    assert len(traces) == 2
    assert one.refused == {("vae_tiling", 16): "vae raises RuntimeError: sizes of tensors must match"}
    assert one.why_not(Plan(vae_tiling=16).execution) == (
        "vae_tiling=16 does not run: vae raises RuntimeError: sizes of tensors must match"
    )


def test_only_what_does_not_run_alone_is_refused():
    """Slices of one image break on tiles, each by itself runs."""
    pipe = sd()
    plain = pipe.vae.tiled_decode

    def tiled_decode(latents, return_dict=True):
        if latents.shape[0] == 1:
            raise ValueError("one by one there are no tiles")
        return plain(latents, return_dict=return_dict)

    pipe.vae.tiled_decode = tiled_decode
    one = recordings(pipe, {**CALL, "num_images_per_prompt": 2})
    traces = one.traces(space(vae_tiling=(None, 16), vae_slicing=(None, True)))
    assert Plan(vae_tiling=16, vae_slicing=True).execution not in traces
    assert len(traces) == 3
    assert one.refused == {}
    with pytest.raises(PlanError) as caught:
        recordings(pipe, {**CALL, "num_images_per_prompt": 2}).traces(space(vae_tiling=(16,), vae_slicing=(True,)))
    assert str(caught.value) == (
        "vae_slicing=True, vae_tiling=16 do not run together: vae raises ValueError: one by one there are no tiles"
    )


def tiny_vae(levels):
    """diffusers' tiling takes for granted that there are four (autoencoder_tiny.py: tile_latent_min_size)."""
    torch.manual_seed(0)
    return AutoencoderTiny(
        encoder_block_out_channels=(16,) * levels,
        decoder_block_out_channels=(16,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
    ).eval()


@pytest.mark.parametrize("levels", [2, 3])
def test_a_vae_whose_tiles_cannot_be_blended_is_planned_untiled(levels):
    pipe = sd()
    pipe.vae = tiny_vae(levels)
    call = {**CALL, "height": 128, "width": 128}
    narrow = {"dtype": "as_is", "batch_split": False, "feed_forward_chunks": False, "channels_last": False}
    found = front_of(job_for(pipe, device=CARD, workload=call, example=None, calls=1, undo=True), keep=narrow)
    assert {candidate.plan.vae_tiling for candidate in found.candidates} == {None}
    assert "does not run: vae raises RuntimeError: " in found.candidates[0].plan.reasons["vae_tiling"]
    with pytest.raises(PlanError, match=r"^vae_tiling=32 does not run: vae raises RuntimeError: "):
        autotune.optimize(pipe, workload=call, keep={"vae_tiling": 32}, device="cpu", profiles=False)
    assert autotune.optimize(pipe, workload=call, keep=narrow, device="cpu", profiles=False) is pipe


@pytest.mark.parametrize(
    ("lever", "value", "plain"),
    [
        ("vae_tiling", 16, None),
        ("vae_slicing", True, None),
        ("feed_forward_chunks", 2, None),
        ("channels_last", True, None),
        ("attention", "vanilla", None),
        ("batch_split", 2, None),
        ("dtype", Precision("float16"), None),
    ],
)
@pytest.mark.parametrize("error", [KeyError("tile"), RuntimeError("in the lever\nand more"), ZeroDivisionError()])
def test_whatever_a_variant_raises_only_that_variant_is_dropped(lever, value, plain, error, monkeypatch):
    """Not only the component's code may raise: the lever too, as it is pulled on the twin."""
    apply = type(EXECUTED[lever]).apply

    def raising(self, subject, wanted, journal):
        if wanted == value:
            raise error
        apply(self, subject, wanted, journal)

    monkeypatch.setattr(type(EXECUTED[lever]), "apply", raising)
    one = recordings(sd(), {**CALL, "num_images_per_prompt": 2})
    traces = one.traces(space(**{lever: (plain, value)}))
    assert [key[wanted_place(lever)] for key in traces] == [plain]
    said = {KeyError: "KeyError: 'tile'", RuntimeError: "RuntimeError: in the lever"}
    why = said.get(type(error), "ZeroDivisionError: no message")
    assert one.refused == {(lever, value): why}
    with pytest.raises(PlanError) as caught:
        recordings(sd(), {**CALL, "num_images_per_prompt": 2}).traces(space(**{lever: (value,)}))
    assert str(caught.value) == f"{lever}={typed(value)} does not run: {why}"


def test_a_variant_that_fails_in_the_middle_leaves_the_next_one_whole():
    """What was recorded before it failed is forgotten, or later variants would find calls that are not the pipeline's."""
    one = recordings(sd(), CALL)
    whole = one.whole()
    before = list(one._session._calls)
    part, times = one._session.part("unet"), []

    def stopping(*args, **kwargs):
        times.append(1)
        if len(times) == 2:
            raise ValueError("the second time")
        return type(part).forward(part, *args, **kwargs)

    part.forward = stopping
    with pytest.raises(PlanError, match="unet raises ValueError: the second time"):
        one._session.again(whole, "unet")
    assert one._session._calls == before
    del part.forward
    assert len(one._session.again(whole, "unet")) == 2


def test_where_only_tiles_run_the_whole_image_is_no_variant():
    pipe = sd()

    class TilesOnly(type(pipe.vae)):
        def _decode(self, z, return_dict=True):
            if not self.use_tiling:
                raise NotImplementedError("Decoding without tiling has not been implemented yet.")
            return super()._decode(z, return_dict=return_dict)

    pipe.vae.__class__ = TilesOnly
    one = recordings(pipe)
    one.facts()
    traces = one.traces(space(vae_tiling=(None, 16), vae_slicing=(None, True)))
    assert {key[wanted_place("vae_tiling")] for key in traces} == {16}
    assert len(traces) == 2
    assert list(one.refused) == [("vae_tiling", None)]
    assert one.computed == (32, 32, None)
    front = front_of(job_for(pipe, device=CARD, workload=CALL, example=None, calls=1, undo=True))
    assert {candidate.plan.vae_tiling for candidate in front.candidates} == {16}


def test_a_precision_that_does_not_run_is_dropped_and_the_one_as_loaded_is_the_calls():
    """A VAE that compares its latents with a constant of its own precision runs in that precision only."""
    pipe = sd()
    pipe.vae.constant = torch.zeros(1, 4, 16, 16)

    class Particular(type(pipe.vae)):
        def _decode(self, z, return_dict=True):
            return super()._decode(torch.bmm(z[0], self.constant[0]).unsqueeze(0), return_dict=return_dict)

    pipe.vae.__class__ = Particular
    one = recordings(pipe)
    traces = one.traces(space(dtype=(None, "float16")))
    assert [key[wanted_place("dtype")] for key in traces] == [None]
    assert list(one.refused) == [("dtype", "float16")]
    pipe.vae.constant = pipe.vae.constant.half()
    with pytest.raises(WorkloadError, match="the call fails in vae"):
        recordings(pipe).traces(space(dtype=(None, "float16")))


def test_too_many_tiles_are_not_recorded():
    one = recordings(sd(), {**CALL, "height": 512, "width": 512})
    with pytest.raises(PlanError) as caught:
        one.traces(space(vae_tiling=(8,)))
    assert str(caught.value) == (
        "vae_tiling=8 does not run: vae_tiling=8 cannot be applied: "
        "512x512 would be 7396 tiles, more than 512; the nearest is 32"
    )


def wanted_place(lever):
    return EXECUTION_LEVERS.index(lever)
