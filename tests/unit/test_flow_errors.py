"""Whatever is asked wrongly: the words, and the pipeline as it was."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    ControlNetModel,
    ModularPipeline,
    StableDiffusionControlNetPipeline,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

import autotune
from autotune.errors import DoesNotFitError, NoAcceleratorError, PipelineError, PlanError, WorkloadError
from autotune.guard import applying
from autotune.records.plan import Plan
from autotune.upstream.port import networks
from benchmarks.tiny import CALLS, PIPELINES, sd, wan

CALL = {**CALLS["sd"], "height": 32, "width": 32}


def state_of(pipe):
    modules = [module for part in networks(pipe).values() for module in part.modules()]
    return {
        "class": type(pipe),
        "attributes": {name: id(value) for name, value in vars(pipe).items()},
        "tensors": [{n: id(t) for n, t in {**m._parameters, **m._buffers}.items()} for m in modules],
        "switches": [set(vars(module)) for module in modules],
        "tiling": (pipe.vae.use_tiling, pipe.vae.tile_sample_min_size, pipe.vae.use_slicing),
        "precision": torch.get_float32_matmul_precision(),
        "optimised": applying.optimized_of(pipe),
    }


def message(kind, pipe, **options):
    before = state_of(pipe) if hasattr(pipe, "components") and "unet" in vars(pipe) else None
    with pytest.raises(kind) as caught:
        autotune.optimize(pipe, **{"workload": CALL, "profiles": False, "device": "cpu", **options})
    if before:
        assert state_of(pipe) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            autotune.BadSizeError,
            {"max_vram": "4Gb"},
            "max_vram='4Gb' reads as bits; write max_vram='4GB' if you mean bytes",
        ),
        (
            PlanError,
            {"quality": "perfect"},
            "no quality 'perfect'; it is one of exact, near, int8, int4; nearest: exact",
        ),
        (PlanError, {"objective": "speed"}, "no objective 'speed'; it is one of latency, memory; nearest: latency"),
        (
            PlanError,
            {"keep": {"vae_tilling": False}},
            (
                "no lever 'vae_tilling'; it is one of dtype, tf32, channels_last, attention, feed_forward_chunks, batch_split, "
                "vae_slicing, vae_tiling, vae_framewise, compile, offload, text_encoders; "
                "nearest: vae_tiling"
            ),
        ),
        (PlanError, {"calls": 0}, "calls=0 is not a number of calls; write for example calls=20"),
        (PlanError, {"calls": True}, "calls=True is not a number of calls; write for example calls=20"),
        (
            PlanError,
            {"allow": {"step_cache"}},
            "no approximation 'step_cache'; it is one of sage; nearest: sage",
        ),
        (
            PlanError,
            {"keep": {"tf32": True}},
            "tf32=True cannot be applied: CPU has no TF32 (compute capability 8.0 and later); what works is False",
        ),
        (
            WorkloadError,
            {"workload": {"hieght": 32}},
            "StableDiffusionPipeline takes no argument 'hieght'; nearest: height, eta",
        ),
        (
            WorkloadError,
            {"workload": {"height": "tall"}},
            "height='tall' is not a positive whole number; write for example height=512",
        ),
        (
            WorkloadError,
            {"workload": autotune.Workload(frames=8)},
            "StableDiffusionPipeline takes no num_frames; leave frames out of the workload",
        ),
        (
            WorkloadError,
            {"workload": []},
            "workload=[] names no call; give a Workload, a dict of call arguments, or a list of those",
        ),
        (
            WorkloadError,
            {"workload": {"height": 33, "width": 32}},
            "StableDiffusionPipeline refuses this call: `height` and `width` have to be divisible by 8 but are 33 and 32.",
        ),
        (
            PlanError,
            {"plan": "fast"},
            "expected a Plan, got str; autotune.plan(pipe) makes one, front['p3'].plan is one",
        ),
    ],
)
def test_words_and_nothing_changed(kind, options, words):
    assert message(kind, sd(), **options) == words


WRONG = [
    ({"quality": "perfect"}, "no quality 'perfect'; it is one of exact, near, int8, int4; nearest: exact"),
    ({"objective": "speed"}, "no objective 'speed'; it is one of latency, memory; nearest: latency"),
    ({"allow": "cache"}, "no approximation 'cache'; it is one of sage; nearest: sage"),
    ({"calls": 0}, "calls=0 is not a number of calls; write for example calls=20"),
    ({"example": 5}, "example=5 is not a dict of call arguments"),
    ({"profiles": 5}, "profiles=5 is not a folder, None or False"),
    ({"keep": {"offload": "moon"}}, "'moon' is not a valid value for this lever"),
    ({"forbid": 5}, "forbid=5 is not a list of names"),
    ({"max_vram": "4Gb"}, "max_vram='4Gb' reads as bits; write max_vram='4GB' if you mean bytes"),
    ({"max_ram": -1}, "max_ram=-1 is not a positive number of bytes; write for example max_ram='4GB'"),
    ({"device": "tpu"}, "device='tpu' was asked for, but devices are named"),
    ({"undo": "yes"}, "undo='yes' is not True or False"),
    ({"workload": 5}, "workload=5 names no call; give a Workload, a dict of call arguments, or a list of those"),
    ({"workload": [CALL, 5]}, "workload=[5] names no call; give a Workload or a dict of call arguments"),
    ({"workload": {"height": 0}}, "height=0 is not a positive whole number; write for example height=512"),
]


def test_a_plan_that_is_given_excuses_no_other_argument():
    """The same words as without one; `apply` has them for the arguments that it takes."""
    pipe = sd()
    before = state_of(pipe)
    for options, words in WRONG:
        said = []
        for call in (autotune.optimize, lambda pipe, **more: autotune.optimize(pipe, plan=Plan(), **more)):
            with pytest.raises(autotune.AutotuneError) as caught:
                call(pipe, **options)
            said.append(str(caught.value))
        if options.keys() <= {"device", "undo", "workload"}:
            with pytest.raises(autotune.AutotuneError) as caught:
                autotune.apply(pipe, Plan(), **options)
            said.append(str(caught.value))
        assert words in said[0]
        assert set(said) == {said[0]}
    assert state_of(pipe) == before


@pytest.mark.parametrize(
    "option",
    [
        {"max_vram": "4GB"},
        {"max_ram": "4GB"},
        {"calls": 20},
        {"quality": "exact"},
        {"allow": ["sage"]},
        {"keep": {"vae_tiling": False}},
        {"forbid": ["dtype"]},
        {"objective": "memory"},
    ],
    ids=str,
)
def test_what_chooses_a_plan_is_refused_beside_one(option):
    ((name, value),) = option.items()
    assert message(PlanError, sd(), plan=Plan(), **option) == (
        f"plan= is applied as it stands, and {name}={value!r} is for choosing one; "
        f"leave {name} out, or ask autotune.plan(...) with it for a plan"
    )


def test_what_chooses_nothing_may_stand_beside_a_plan():
    pipe = sd()
    usual = {"quality": "near", "allow": (), "keep": {}, "forbid": [], "calls": 1, "objective": "latency"}
    with_inputs = {"workload": autotune.Workload(batch=2), "example": {"height": 32, "width": 32}}
    autotune.optimize(pipe, plan=Plan(vae_slicing=True), device="cpu", profiles=False, **usual, **with_inputs)
    made = applying.optimized_of(pipe).workload
    assert (made.batch, made.height, made.width) == (2, 32, 32)


def test_of_several_calls_a_plan_is_for_the_largest():
    pipe = autotune.apply(sd(), Plan(), device="cpu", workload=[CALL, {**CALL, "height": 64}, CALL])
    assert applying.optimized_of(pipe).workload.height == 64


@pytest.mark.parametrize("call", ["optimize", "apply"])
def test_a_name_has_nothing_to_change(call, monkeypatch):
    monkeypatch.setattr("autotune.api.Question", lambda *_, **__: pytest.fail("looked at"))
    with pytest.raises(PipelineError) as caught:
        getattr(autotune, call)("sd15", plan=Plan())
    assert str(caught.value) == (
        f"{call} changes a pipeline that is loaded, and 'sd15' is a name; load it with "
        "DiffusionPipeline.from_pretrained(...), or ask autotune.plan('sd15') for a plan"
    )


def test_a_device_that_is_not_here():
    assert message(NoAcceleratorError, sd(), device="tpu").startswith(
        "device='tpu' was asked for, but devices are named"
    )


def test_nothing_fits():
    pipe = sd()
    before = state_of(pipe)
    with pytest.raises(DoesNotFitError) as caught:
        autotune.optimize(pipe, max_vram="100KB", workload=CALL, profiles=False, device="cpu")
    assert state_of(pipe) == before
    words = str(caught.value)
    assert words.startswith("max_vram=100 KB, but the smallest plan for StableDiffusionPipeline at 32x32, 2 steps")
    assert words.endswith(". No smaller workload fits this cap.")
    pipe = autotune.optimize(pipe, max_vram=caught.value.smallest_bytes, workload=CALL, profiles=False, device="cpu")
    assert applying.optimized_of(pipe) is not None


def test_an_earlier_plan_outlives_a_failed_one():
    pipe = autotune.apply(sd(), Plan(dtype="bfloat16", vae_tiling=16), device="cpu", workload=CALL)
    earlier = applying.optimized_of(pipe).plan
    for options in ({"max_vram": "100KB"}, {"workload": {"height": 33}}, {"keep": {"tf32": True}}):
        with pytest.raises(autotune.AutotuneError):
            autotune.optimize(pipe, **{"workload": CALL, "profiles": False, "device": "cpu", **options})
        assert applying.optimized_of(pipe).plan == earlier
        assert pipe.unet.dtype == torch.bfloat16
        assert pipe.vae.use_tiling
    autotune.restore(pipe)
    assert pipe.unet.dtype == torch.float32


def test_an_earlier_plan_without_originals_outlives_a_failed_one():
    pipe = autotune.apply(sd(), Plan(dtype="bfloat16", vae_tiling=16), device="cpu", workload=CALL, undo=False)
    earlier = applying.optimized_of(pipe).plan
    with pytest.raises(DoesNotFitError):
        autotune.optimize(pipe, max_vram="100KB", workload=CALL, profiles=False, device="cpu")
    assert applying.optimized_of(pipe).plan == earlier
    assert pipe.unet.dtype == torch.bfloat16
    assert pipe.vae.use_tiling


def test_not_a_pipeline():
    for thing, name in ((sd().unet, "UNet2DConditionModel"), (7, "int"), (None, "NoneType")):
        assert message(PipelineError, thing) == (
            f"expected a diffusers DiffusionPipeline, got {name}; pass the pipeline itself, for example "
            "StableDiffusionPipeline.from_pretrained(...); autotune.plan and autotune.explore also take a model's name"
        )


def test_a_modular_pipeline():
    class SomeModularPipeline(ModularPipeline):
        def __init__(self):
            pass

    assert message(PipelineError, SomeModularPipeline()) == (
        "SomeModularPipeline is a modular pipeline, which is not supported yet; use the DiffusionPipeline of this model"
    )


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_a_missing_component(name):
    pipe = sd()
    setattr(pipe, name, None)
    with pytest.raises(PipelineError) as caught:
        autotune.optimize(pipe, workload=CALL, profiles=False, device="cpu")
    assert str(caught.value) == (
        f"StableDiffusionPipeline lacks {name}; load the pipeline with all its components, or set pipe.{name}"
    )


def explored(pipe, **changes):
    """The refusal of a front for a card that is not here."""
    with pytest.raises(WorkloadError) as caught:
        autotune.explore(pipe, workload={**CALL, **changes}, gpu="NVIDIA GeForce RTX 4090", profiles=False)
    return str(caught.value)


WORDLESS = "pass prompt_embeds in the place of words, or load the pipeline with it"


@pytest.mark.parametrize("family", ["sdxl", "flux", "sd3", "wan", "ltx"])
@pytest.mark.parametrize("kind", ["text_encoder", "tokenizer"])
def test_words_for_a_pipeline_that_has_none_to_read_them(family, kind):
    """Whatever else is missing with it, it is no question of memory."""
    pipe = PIPELINES[family]()
    names = [name for name in pipe.components if name.startswith((kind, "text_encoder"))]
    for name in names:
        setattr(pipe, name, None)
    with pytest.raises(WorkloadError) as caught:
        autotune.plan(pipe, workload=CALLS[family], gpu="NVIDIA GeForce RTX 3060 12GB", max_vram="1GB", profiles=False)
    said = str(caught.value)
    assert said.startswith(f"{type(pipe).__name__} refuses this call: ")
    assert any(said.endswith(f"; pipe.{name} is None: {WORDLESS}") for name in names)
    with pytest.raises((AttributeError, TypeError)):
        pipe("a cat", **CALLS[family])


def test_several_videos_of_one_picture():
    """Wan repeats the words for each video and the picture's embedding for none."""
    call = {**CALLS["wan"], "image": Image.new("RGB", (16, 16)), "num_videos_per_prompt": 2}
    with pytest.raises(WorkloadError) as caught:
        autotune.plan(wan_of_a_picture(), workload=call, gpu="RTX 3060 12GB", max_vram="1GB", profiles=False)
    assert str(caught.value) == (
        "the call fails in transformer: RuntimeError: Sizes of tensors must match except in dimension 1. Expected 1 in "
        "dimension 0 but got 2 for tensor number 1 in the list; num_videos_per_prompt=2 does not run here: call once for each, "
        "num_videos_per_prompt=1"
    )
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        wan_of_a_picture()(prompt="a cat", **call)


def wan_of_a_picture():
    pipe = wan()
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16, text_dim=32,
        freq_dim=256, ffn_dim=32, num_layers=1, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
        image_dim=32, added_kv_proj_dim=24,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=32, projection_dim=32, num_hidden_layers=2, num_attention_heads=4, image_size=32, intermediate_size=37,
        patch_size=16,
    )  # fmt: skip
    made = WanImageToVideoPipeline(
        transformer=transformer.eval(), transformer_2=None, vae=pipe.vae, scheduler=pipe.scheduler,
        text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, image_encoder=CLIPVisionModel(vision).eval(),
        image_processor=CLIPImageProcessor(crop_size=32, size=32),
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


def with_controlnet(dtype):
    pipe = sd()
    controlnet = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(16, 32)).to(dtype)
    return StableDiffusionControlNetPipeline(**{**parts_of(pipe), "controlnet": controlnet})


def without(*names):
    pipe = sd()
    for name in names:
        setattr(pipe, name, None)
    return pipe


def parts_of(pipe):
    named = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    return {name: getattr(pipe, name) for name in named} | {"safety_checker": None, "feature_extractor": None}


@pytest.mark.parametrize(
    ("build", "changes", "where", "remedy"),
    [
        (
            lambda: with_controlnet(torch.float16),
            {"image": Image.new("RGB", (32, 32))},
            "the call fails in controlnet: ",
            (
                "controlnet is float16 beside a float32 unet: pass it in the pipeline's precision, "
                "pipe.controlnet.to(torch.float32), or load both in one"
            ),
        ),
        (
            lambda: without("text_encoder"),
            {},
            "StableDiffusionPipeline refuses this call: ",
            "pipe.text_encoder is None: pass prompt_embeds in the place of words, or load the pipeline with it",
        ),
        (
            lambda: without("text_encoder", "tokenizer"),
            {},
            "StableDiffusionPipeline refuses this call: ",
            "pipe.tokenizer is None: pass prompt_embeds in the place of words, or load the pipeline with it",
        ),
        (
            sd,
            {"latents": torch.zeros(1, 8, 16, 16)},
            "the call fails in unet: ",
            "the call brings latents of 1x8x16x16: give the shape that this pipeline makes, or leave it out",
        ),
        (
            sd,
            {"latents": torch.zeros(1, 4, 16, 16, dtype=torch.float16)},
            "the call fails in unet: ",
            "latents is float16 beside a float32 unet: pass latents.to(torch.float32)",
        ),
    ],
)
def test_an_error_of_the_call_names_the_component_and_the_remedy(build, changes, where, remedy):
    """The real call raises too, and no plan is made."""
    pipe = build()
    before = state_of(pipe)
    words = explored(pipe, **changes)
    assert words.startswith(where)
    assert words.endswith(f"; {remedy}")
    assert state_of(pipe) == before
    with pytest.raises(Exception) as real:  # noqa: PT011 - whatever diffusers and torch raise
        pipe(**{"prompt": "a cat", **CALL, **changes})
    assert not isinstance(real.value, autotune.AutotuneError)
