"""What a second reader found, each as a test: levers left alone, irreversible plans, keys, things of the caller."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor

import autotune
from autotune.levers.tf32 import Tf32
from autotune.probe.pipeline import inspect_pipeline
from benchmarks import tiny
from tests.contract.families import pulled

CALL = {"height": 64, "width": 64}


def test_a_forbidden_lever_stays_as_the_owner_set_it() -> None:
    pipe = tiny.sd()
    pipe.vae.enable_tiling()
    autotune.optimize(pipe, workload=CALL, forbid="vae_tiling", profiles=False)
    assert pipe.vae.use_tiling


def test_a_plan_that_cannot_be_undone_survives_a_question_and_a_failure() -> None:
    pipe = autotune.optimize(tiny.sd(), workload=CALL, keep={"dtype": "bfloat16"}, undo=False, profiles=False)
    autotune.plan(pipe, workload=CALL, profiles=False)
    with pytest.raises(autotune.DoesNotFitError):
        autotune.optimize(pipe, max_vram="1KB", workload=CALL, profiles=False)
    assert autotune.explain(pipe).chosen.plan.dtype == "bfloat16"
    assert autotune.apply(pipe, autotune.explain(pipe).chosen.plan, undo=False) is pipe


def test_other_attention_processors_make_another_key() -> None:
    stock, vanilla = tiny.sd(), tiny.sd()
    vanilla.unet.set_attn_processor(AttnProcessor())
    assert inspect_pipeline(stock).structural_key != inspect_pipeline(vanilla).structural_key


def test_buffers_that_no_checkpoint_holds_keep_their_precision() -> None:
    pipe = tiny.sd()
    pipe.unet.register_buffer("frequencies", torch.ones(3), persistent=False)
    autotune.apply(pipe, autotune.Plan(dtype="bfloat16"))
    assert pipe.unet.frequencies.dtype == torch.float32


@pytest.fixture
def new_tf32_switch() -> Iterator[Any]:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    yield matmul
    matmul.fp32_precision = before


def test_tf32_works_with_the_new_switch_too(new_tf32_switch: Any) -> None:
    lever = Tf32()
    assert not lever.read(None)
    journal = pulled(lever, None, True)  # type: ignore[arg-type]
    assert new_tf32_switch.fp32_precision == "tf32"
    journal.undo()
    assert new_tf32_switch.fp32_precision == "ieee"


def test_hooks_of_the_caller_are_not_called_while_planning() -> None:
    pipe, called = tiny.sd(), []
    pipe.unet.register_forward_hook(lambda *_: called.append("unet"))
    autotune.plan(pipe, workload=CALL, profiles=False)
    assert not called
    tiny.generate("sd", pipe)
    assert called


def test_the_tokenizer_has_not_warned_of_anything_while_planning() -> None:
    pipe = tiny.sd()
    before = dict(pipe.tokenizer.deprecation_warnings)
    autotune.plan(pipe, workload=CALL, profiles=False)
    assert pipe.tokenizer.deprecation_warnings == before


def test_what_the_owner_offloaded_leaf_by_leaf_counts_as_held_in_ram() -> None:
    from autotune.flow.budget import held_by
    from autotune.probe.gpu import cpu_device

    plain, pipe = tiny.sd(), autotune.apply(tiny.sd(), autotune.Plan(offload="sequential"))
    assert held_by(pipe, cpu_device()).ram_bytes == held_by(plain, cpu_device()).ram_bytes


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"workload": {"prompt": []}}, "prompt=[] holds no prompt; give at least one"),
        (
            {"workload": {"num_images_per_prompt": -1}},
            "num_images_per_prompt=-1 is not a positive whole number; write for example num_images_per_prompt=1",
        ),
        ({"workload": {"prompt_embeds": "x"}}, "prompt_embeds='x' is no tensor; pass prompt= for words"),
        ({"workload": [5]}, "workload=[5] names no call; give a Workload or a dict of call arguments"),
        ({"workload": 5}, "workload=5 names no call; give a Workload, a dict of call arguments, or a list of those"),
        ({"gpu": 5}, "gpu=5 is not a name such as 'NVIDIA GeForce RTX 3060 12GB'"),
        ({"keep": [1]}, "keep=[1] is not a dict such as {'vae_tiling': False}"),
        ({"forbid": 5}, "forbid=5 is not a list of names"),
        ({"profiles": 5}, "profiles=5 is not a folder, None or False"),
        (
            {"keep": {"vae_slicing": "maybe"}},
            "vae_slicing='maybe' is not a valid value for this lever; there are True and False",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(autotune.AutotuneError) as caught:
        autotune.plan(tiny.sd(), **{"workload": CALL, "profiles": False} | arguments)
    assert str(caught.value) == error


def test_a_plan_and_a_cap_exclude_each_other() -> None:
    with pytest.raises(autotune.PlanError, match="plan= is applied as it stands"):
        autotune.optimize(tiny.sd(), plan=autotune.Plan(), max_vram="4GB")


def test_a_denoiser_that_cannot_be_traced_is_said_in_the_six_lines() -> None:
    class Strange(torch.Tensor):
        pass

    pipe = tiny.sd()
    conv = pipe.unet.conv_in
    conv._parameters["weight"] = torch.Tensor._make_subclass(Strange, conv.weight.data)
    text = str(autotune.explain(pipe, workload=CALL))
    assert "note     unet could not be traced (weights of class Strange): weights only | " in text
    assert "time unknown beyond" in text


def test_something_with_components_that_is_no_pipeline_is_refused_before_it_is_looked_at() -> None:
    class Impostor:
        components = ("unet", "vae")

    for call in (autotune.plan, autotune.explore, autotune.explain, autotune.optimize):
        with pytest.raises(autotune.PipelineError, match="got Impostor"):
            call(Impostor())


def test_a_pipeline_that_was_loaded_by_a_path_is_named_by_it(tmp_path: Any) -> None:
    """diffusers keeps the very object that it was given."""
    pipe = tiny.sd()
    pipe.save_pretrained(tmp_path)
    loaded = type(pipe).from_pretrained(tmp_path)
    assert inspect_pipeline(loaded).name == str(tmp_path)
    assert autotune.plan(loaded, workload=CALL, profiles=False).lane in {"exact", "near"}
