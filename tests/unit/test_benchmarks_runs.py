"""How records were timed: compilers, what is quantised, steps; and the seconds that are predicted for them."""

from __future__ import annotations

import pytest

from autotune.trace.weights import weight_bytes
from benchmarks.cases import Run, card_of, case_of, run_of
from benchmarks.measured import SkippedError
from benchmarks.pipelines import prepared
from benchmarks.prediction import predict
from tests.unit.published_record import record


@pytest.mark.parametrize(
    ("said", "code", "vae_compiled"),
    [
        ("none", "none", False),
        ("torch.jit.trace unet", "trace", False),
        ("transformer.compile_repeated_blocks/compile", "blocks", False),
        ("yes (regional)", "blocks", False),
        ("default fullgraph", "whole", False),
        ("yes", "whole", False),
        ("torch.compile unet (mode per snippet)", "whole", False),
        ("torch.compile (mode in repo: max-autotune-no-cudagraphs?)", "whole", False),
        ("reduce-overhead fullgraph", "graphs", False),
        ("max-autotune unet+vae.decode", "tuned", True),
        ("max-autotune (+VAE decode)", "tuned", True),
    ],
)
def test_the_wordings_of_compilers(said, code, vae_compiled):
    run = run_of(record(compile=said), card_of(record()))
    assert (run.code, run.vae_compiled) == (code, vae_compiled)


def test_what_a_run_is_told_by():
    card = card_of(record())
    plain = Run(card, 2, "none", vae_compiled=False, tf32=False, call_a_step=False)
    assert run_of(record(), card) == plain
    for changes, name in (
        ({"other": "allow_tf32=True"}, "tf32"),
        ({"caveats": "TF32 matmuls on"}, "tf32"),
        ({"torch": "1.13 (NGC 22.11, CUDA 11.8)"}, "tf32"),
        ({"caveats": "50 DDIM steps"}, "call_a_step"),
    ):
        assert run_of(record(**changes), card) == plain._replace(**{name: True})
    with pytest.raises(SkippedError, match="compile by hand"):
        run_of(record(compile="by hand"), card)


@pytest.mark.parametrize(
    ("said", "pairs"),
    [
        ("none", ()),
        ("bitsandbytes nf4", (("denoiser", "bitsandbytes-nf4"),)),
        ("torchao fp8wo transformer", (("denoiser", "torchao-float8wo"),)),
        (
            "torchao fp8dqrow (text encoder + transformer)",
            (("denoiser", "torchao-float8dq"), ("TE", "torchao-float8dq")),
        ),
        ("quanto fp8 transformer+TE1,3", tuple((part, "quanto-float8") for part in ("denoiser", "TE1", "TE3"))),
        ("GGUF Q4_1 transformer only", (("denoiser", "gguf-q4_1"),)),
        ("torchao fp8 transformer + bnb nf4 T5", (("denoiser", "torchao-float8dq"), ("T5", "bitsandbytes-nf4"))),
    ],
)
def test_what_is_quantised(said, pairs):
    assert case_of(record(quantization=said)).quantization == pairs


@pytest.mark.parametrize("said", ["torchao int4dq transformer", "torchao autoquant", "fp8 dynamic"])
def test_schemes_that_are_not_known(said):
    with pytest.raises(SkippedError, match="quantization"):
        case_of(record(quantization=said))


def test_one_of_several_text_encoders_is_quantised():
    case = case_of(record(model="stabilityai/stable-diffusion-3-medium-diffusers", pipeline=None))
    plain = prepared(case)
    pipe = prepared(case._replace(quantization=(("TE2", "quanto-float8"),)))
    sizes = [
        [weight_bytes(getattr(each, name)) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")]
        for each in (plain, pipe)
    ]
    assert [after < before for before, after in zip(*sizes, strict=True)] == [False, True, False]


def test_steps_and_precision_change_seconds_and_no_bytes():
    card = card_of(record())
    four, eight = (run_of(record(steps=steps), card) for steps in (4, 8))
    case = case_of(record(dtype="fp32", height=512, width=512))
    fast, ddim = four._replace(tf32=True), four._replace(call_a_step=True)
    found = predict(case, [four, eight, fast, ddim])
    assert len({(each.allocated_bytes, each.reserved_bytes) for each in found.values()}) == 1
    assert found[eight].iteration_s * 8 < found[eight].call_s
    # PNDM makes one call more than there are steps, and the bar shows its time with the others'.
    call_s = found[eight].iteration_s * 8 / 9
    assert found[eight].call_s - found[four].call_s == pytest.approx(4 * call_s, rel=0.02)
    assert found[four].iteration_s * 4 / 5 == pytest.approx(call_s, rel=0.02)
    assert found[four].call_s - found[ddim].call_s == pytest.approx(call_s, rel=0.02)
    assert found[fast].call_s < 0.8 * found[four].call_s


def test_image_to_image_counts_the_steps_that_are_done():
    card = card_of(record())
    run = run_of(record(steps=10), card)
    case = case_of(record(pipeline="StableDiffusionImg2ImgPipeline"))
    image, text = (predict(each, [run])[run] for each in (case, case_of(record())))
    assert image.iteration_s == pytest.approx(text.iteration_s, rel=0.05)
    assert image.call_s < text.call_s  # 8 of 10 steps at the default strength


def test_one_forward_is_about_one_step():
    run = run_of(record(), card_of(record()))
    case = case_of(record())
    forward, whole = (predict(each, [run])[run] for each in (case._replace(denoiser_only=True), case))
    assert 0.5 * whole.iteration_s < forward.call_s <= whole.iteration_s
