"""Recording a call: its phases and turns, what falls back, what is refused."""

from __future__ import annotations

from types import MethodType

import pytest
import torch
from diffusers import ConsistencyDecoderVAE, DDIMScheduler, HeunDiscreteScheduler, PNDMScheduler

from autotune.errors import WorkloadError
from autotune.flow.job import job_for
from autotune.flow.planning import as_it_is
from autotune.records.trace import EventKind
from autotune.simulate.margins import COMPUTING, margin_bytes
from autotune.trace.session import Session
from autotune.units import GIB
from benchmarks.tiny import CALLS, ltx, sd, sdxl, wan
from tests.unit.handmade import CARD

CALL = {**CALLS["sd"], "height": 32, "width": 32, "prompt": "a cat", "output_type": "pt"}


def record(pipe, *, steps=2, **changes):
    return Session(pipe, denoisers=frozenset({"unet"})).record({**CALL, **changes}, steps=steps)


def outline(trace):
    return [(s.component, s.method, s.phase, s.turn) for s in trace.segments if s.component]


def test_phases_and_turns():
    assert outline(record(sd())) == [
        ("text_encoder", "forward", "encoding", -1),
        ("text_encoder", "forward", "encoding", -1),  # the negative prompt
        ("unet", "forward", "denoising", 0),
        ("unet", "forward", "denoising", 1),
        ("vae", "decode", "decoding", -1),
    ]


def test_a_vae_that_decodes_in_steps_of_its_own():
    pipe = sd()
    torch.manual_seed(0)
    pipe.vae = ConsistencyDecoderVAE(
        encoder_block_out_channels=(32, 64),
        encoder_down_block_types=("DownEncoderBlock2D",) * 2,
        decoder_block_out_channels=(32, 64),
        decoder_down_block_types=("ResnetDownsampleBlock2D",) * 2,
        decoder_up_block_types=("ResnetUpsampleBlock2D",) * 2,
        decoder_layers_per_block=1,
        sample_size=32,
    ).eval()
    trace = record(pipe)
    assert trace.untraced == {}
    decoding = trace.segments[-2]
    place = decoding.modules.index("vae.decoder_unet.conv_in")
    assert decoding.ref[decoding.kind == EventKind.ENTER].tolist().count(place) == 2
    assert pipe(**CALL).images.shape == (1, 3, 32, 32)


def test_without_guidance_there_is_no_negative_prompt():
    assert len(outline(record(sd(), guidance_scale=1.0))) == 4


def test_what_is_born_dies_or_is_the_result():
    trace = record(sd())
    ends = {EventKind.ALLOC: {}, EventKind.FREE: {}}
    for segment in trace.segments:
        for kind, ref, size in zip(segment.kind, segment.ref, segment.size, strict=True):
            if kind in ends:
                assert int(ref) not in ends[kind]
                ends[kind][int(ref)] = int(size)
    assert ends[EventKind.FREE].items() <= ends[EventKind.ALLOC].items()
    left = sum(ends[EventKind.ALLOC].values()) - sum(ends[EventKind.FREE].values())
    image = 3 * 32 * 32 * 4
    assert 0 <= left <= 2 * image


def test_recording_twice_gives_the_same_twice():
    session = Session(sd(), denoisers=frozenset({"unet"}))
    first, second = (session.record(CALL, steps=2) for _ in range(2))
    for one, other in zip(first.segments, second.segments, strict=True):
        assert one.size.tolist() == other.size.tolist()
        assert one.kind.tolist() == other.kind.tolist()


def test_recording_the_vae_again_changes_nothing_else():
    session = Session(sd(), denoisers=frozenset({"unet"}))
    first = session.record(CALL, steps=2)
    again = first.replaced("vae", session.again(first, "vae"))
    for one, other in zip(first.segments, again.segments, strict=True):
        assert (one is other) == (one.component != "vae")
        assert one.kind.tolist() == other.kind.tolist()
        assert one.size.tolist() == other.size.tolist()


def test_a_few_whole_numbers_that_a_component_is_given_are_known_to_it():
    """Sizes of images, as vision encoders are given them; here it is the time step that tells a shape."""
    lengths = []

    def forward(_, sample, timestep, *__, **___):
        lengths.append(len(torch.arange(1).repeat_interleave(timestep.reshape(1))))
        return (sample.clone(),)

    pipe = sd()
    pipe.scheduler = DDIMScheduler()
    pipe.unet.forward = MethodType(forward, pipe.unet)
    session = Session(pipe, denoisers=frozenset({"unet"}))
    trace = session.record(CALL, steps=2)
    pipe.scheduler.set_timesteps(2)
    assert trace.untraced == {}
    assert lengths == pipe.scheduler.timesteps.tolist()
    session.again(trace, "unet")
    assert lengths == 2 * pipe.scheduler.timesteps.tolist()


@pytest.mark.parametrize(
    ("scheduler", "steps", "calls"),
    [(None, 1, 1), (None, 2, 2), (None, 30, 30), (PNDMScheduler, 30, 31), (HeunDiscreteScheduler, 30, 59)],
)
def test_denoiser_calls_of_the_whole_run(scheduler, steps, calls):
    pipe = sd()
    if scheduler is not None:
        options = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **options)
    assert record(pipe, steps=steps).denoiser_calls == pytest.approx(calls, abs=1)


def test_a_vae_that_the_pipeline_upcasts_weighs_twice_from_then_on():
    pipe = sdxl()
    for name in ("text_encoder", "text_encoder_2", "unet", "vae"):
        getattr(pipe, name).to(torch.float16)
    trace = record(pipe)
    decode = next(segment for segment in trace.segments if segment.component == "vae")
    full = sum(p.numel() * 4 for p in pipe.vae.parameters())
    assert full <= decode.weights["vae"] <= full * 1.1
    assert trace.weights["vae"] < 0.6 * decode.weights["vae"]
    assert {pipe.vae.dtype} == {torch.float16}


def reads_memory(tensor, *_, **__):
    """What a compiled extension does with a tensor; a fake has nothing to read."""
    return bytes(tensor.untyped_storage())


def reads_a_value(tensor, *_, **__):
    """A shape that depends on data."""
    return torch.unique(tensor)


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        (reads_memory, "NotImplementedError: Not available for 'meta' device type"),
        (reads_a_value, "DynamicOutputShapeException: aten._unique2.default"),
    ],
)
def test_a_component_that_only_a_twin_cannot_run_falls_back(fails, words):
    pipe = sd()
    pipe.vae.decode = fails
    trace = record(pipe)
    assert list(trace.untraced) == ["vae"]
    assert trace.untraced["vae"].startswith(words)
    assert [name for name, *_ in outline(trace)] == ["text_encoder", "text_encoder", "unet", "unet"]


def test_what_comes_after_a_failure_is_named_too():
    pipe = sd()
    pipe.unet.forward = MethodType(lambda unet, sample, *_, **__: reads_memory(sample), pipe.unet)
    untraced = record(pipe).untraced
    assert untraced["vae"] == "not reached: unet stopped the trace"
    assert set(untraced) == {"unet", "vae"}


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        (lambda *_, **__: 1 / 0, "ZeroDivisionError: division by zero"),
        (
            lambda latents, *_, **__: latents.reshape(7, -1),
            "RuntimeError: shape '[7, -1]' is invalid for input of size 1024",
        ),
        (lambda latents, *_, **__: latents @ latents.half(), "RuntimeError: expected scalar type torch.float32"),
        (lambda latents, *_, **__: torch.nn.functional.linear(latents, None), "TypeError: linear(): argument 'weight'"),
    ],
)
def test_what_the_real_component_would_raise_is_an_error_of_the_call(fails, words):
    pipe = sd()
    pipe.vae.decode = fails
    with pytest.raises(WorkloadError) as caught:
        record(pipe)
    assert str(caught.value).startswith(f"the call fails in vae: {words}")


def test_an_error_that_depends_on_a_number_that_was_made_up_is_not_the_calls():
    def checks(latents, *_, **__):
        if latents.sum().item() == 0:
            raise ValueError("nothing to decode")
        return (torch.zeros(1, 3, 32, 32),)

    def refuses(latents, *_, **__):
        raise ValueError("no decoder" if latents.sum().item() < 2 else "")

    pipe = sd()
    pipe.vae.decode = checks
    assert record(pipe).untraced == {}
    pipe.vae.decode = refuses
    with pytest.raises(WorkloadError, match="the call fails in vae: ValueError: no decoder"):
        record(pipe)


class Packed(torch.nn.Parameter):
    """Stands for a quantised weight."""


def test_weights_of_an_unknown_class_fall_back():
    pipe = sd()
    layer = pipe.unet.conv_in
    layer.weight = Packed(layer.weight.detach(), requires_grad=False)
    trace = record(pipe)
    assert trace.untraced == {"unet": "weights of class Packed", "vae": "not reached: unet stopped the trace"}
    assert type(pipe.unet.conv_in.weight) is Packed


def test_an_estimate_says_what_was_not_traced_and_widens_its_margin():
    def estimate(pipe):
        job = job_for(pipe, device=CARD, workload=CALL, example=None, calls=1, undo=True)
        return as_it_is(job).estimate

    pipe = sd()
    pipe.vae.decode = reads_a_value
    whole, fallen = estimate(sd()), estimate(pipe)
    vae_bytes = sum(-(-t.numel() * t.itemsize // 512) * 512 for t in pipe.vae.parameters())
    words = "DynamicOutputShapeException: aten._unique2.default"
    assert fallen.notes == (f"vae could not be traced ({words}): weights only",)
    assert (whole.untraced, fallen.untraced) == ((), ("vae",))
    assert fallen.margin_bytes == margin_bytes(CARD, "none", fallen.process_bytes) + round(vae_bytes / 2) + 2 * GIB
    assert (whole.notes, whole.latency_margin, fallen.latency_margin) == ((), COMPUTING[False].more, 1.0)
    assert fallen.phase("denoising") == whole.phase("denoising")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"height": 33},
            "StableDiffusionPipeline refuses this call: `height` and `width` have to be divisible by 8 but are 33 and 32.",
        ),
        (
            {"prompt": None},
            (
                "StableDiffusionPipeline refuses this call: Provide either `prompt` or `prompt_embeds`. "
                "Cannot leave both `prompt` and `prompt_embeds` undefined."
            ),
        ),
    ],
)
def test_a_call_that_the_pipeline_refuses(changes, message):
    with pytest.raises(WorkloadError) as caught:
        record(sd(), **changes)
    assert str(caught.value) == message


def test_after_a_refusal_the_session_still_records():
    session = Session(sd(), denoisers=frozenset({"unet"}))
    with pytest.raises(WorkloadError):
        session.record({**CALL, "height": 33}, steps=2)
    assert session.record(CALL, steps=2).untraced == {}


def test_output_for_people_is_traced_too():
    assert record(sd(), output_type="pil").untraced == {}


@pytest.mark.parametrize(
    ("build", "changes", "size"),
    [
        (sd, {}, (32, 32, None)),
        (sd, {"height": 40, "width": 32}, (40, 32, None)),
        (sd, {"output_type": "pil"}, (32, 32, None)),
        (sd, {"output_type": "latent"}, None),
        (wan, {"height": 16, "width": 16, "num_frames": 8}, (16, 16, 9)),  # 4 k + 1 frames, as the VAE compresses
        (ltx, {"height": 32, "width": 32, "num_frames": 9}, (32, 32, 9)),
    ],
)
def test_the_size_that_is_computed(build, changes, size):
    session = Session(build(), denoisers=frozenset({"unet", "transformer"}))
    negative = {"negative_prompt": None, "guidance_scale": 1.0}
    session.record({**CALL, **negative, **changes}, steps=2)
    assert session.computed == size
