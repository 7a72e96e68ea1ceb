"""What a second reader found of a pipeline under a plan, by its shortest input."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

import autotune
from autotune.errors import AutotuneError, PlanError
from autotune.guard import applying
from autotune.guard.applying import optimized_of
from autotune.levers import dtype as dtype_lever
from autotune.records.plan import Plan
from benchmarks.faults.seen import Seen
from tests.contract.families import CPU, build, call_of, job, run
from tests.contract.states import workload

BF16 = Plan(dtype="bf16")


def optimised(plan: Plan, family: str = "sd", **asked: Any) -> Any:
    return autotune.apply(build(family), plan, workload=workload(family), **asked)


class TestTheSamePlanAgain:
    """It is applied once, and once more where something has changed since."""

    def test_nothing_happens_where_nothing_has_changed(self) -> None:
        pipe = optimised(BF16)
        found = optimized_of(pipe)
        autotune.apply(pipe, BF16, workload=workload("sd"))
        assert optimized_of(pipe) is found

    @pytest.mark.parametrize("told", [False, True])
    def test_a_switch_that_was_thrown_is_thrown_back(self, told: bool) -> None:
        pipe = optimised(Plan(vae_tiling=16))
        pipe.vae.disable_tiling()
        if told:
            run("sd", pipe)
        autotune.apply(pipe, Plan(vae_tiling=16), workload=workload("sd"))
        assert pipe.vae.use_tiling

    def test_hooks_that_were_taken_off_hang_again(self) -> None:
        pipe = optimised(Plan(offload="sequential"))
        pipe.remove_all_hooks()
        autotune.apply(pipe, Plan(offload="sequential"), workload=workload("sd"))
        assert next(pipe.unet.parameters()).is_meta

    def test_weights_that_were_cast_are_lowered_again(self) -> None:
        pipe = optimised(BF16)
        pipe.unet.to(torch.float32)
        autotune.apply(pipe, BF16, workload=workload("sd"))
        assert pipe.unet.dtype == torch.bfloat16

    def test_a_refusal_ends(self) -> None:
        pipe = optimised(Plan(), on_change="refuse")
        pipe.vae.enable_slicing()
        with pytest.raises(PlanError):
            run("sd", pipe, batch=2)
        autotune.apply(pipe, Plan(), workload=workload("sd"), on_change="refuse")
        assert run("sd", pipe, batch=2).isfinite().all()

    def test_originals_that_are_not_wanted_go(self) -> None:
        pipe = optimised(BF16)
        autotune.apply(pipe, BF16, workload=workload("sd"), undo=False)
        assert not optimized_of(pipe).keeps_originals

    def test_it_is_for_the_call_that_was_named_last(self) -> None:
        pipe = optimised(Plan())
        autotune.apply(pipe, Plan(), workload={"prompt": "a cat", "height": 64, "width": 64})
        assert optimized_of(pipe).workload.height == 64

    def test_a_bigger_call_is_judged_by_the_sizes_of_its_own(self) -> None:
        small, large = ({"prompt": "a cat", **call_of("sd"), "height": edge, "width": edge} for edge in (32, 256))
        pipe = autotune.optimize(build("sd"), workload=small, profiles=False, verbose=False)
        plan = optimized_of(pipe).plan
        autotune.apply(pipe, plan, workload=large)
        assert optimized_of(pipe).story is None
        assert pipe(**large, output_type="pt").images.isfinite().all()
        assert autotune.explain(pipe, workload=large).workload.height == 256


class TestRenewed:
    """A plan that is applied to what is there now."""

    def test_a_text_encoder_that_is_let_go(self) -> None:
        plain, pipe = build("sd"), optimised(Plan(dtype="bf16", text_encoders="leave"))
        with torch.no_grad():
            embeds = [part.to(torch.bfloat16) for part in plain.encode_prompt("a cat", "cpu", 1, True)]
        pipe.text_encoder = None
        call = {**call_of("sd"), "prompt_embeds": embeds[0], "negative_prompt_embeds": embeds[1], "output_type": "pt"}
        assert pipe(**call).images.isfinite().all()
        assert optimized_of(pipe).plan.changes == {"dtype": "bfloat16"}
        assert pipe.unet.dtype == torch.bfloat16

    def test_a_vae_that_is_let_go(self) -> None:
        pipe = optimised(Plan(vae_tiling=16, dtype="bf16"))
        scale = pipe.vae_scale_factor
        pipe.vae = None
        assert scale
        with pytest.raises(AttributeError):  # the pipeline itself asks its VAE
            run("sd", pipe)
        assert optimized_of(pipe).plan.changes == {"dtype": "bfloat16"}

    def test_a_network_of_another_optimised_pipeline_is_refused_with_the_plan_on(self) -> None:
        pipe, other = optimised(BF16), optimised(Plan())
        pipe.unet = other.unet
        for _ in range(2):
            with pytest.raises(PlanError, match=r"also belongs? to a pipeline that is optimised"):
                run("sd", pipe)
            assert optimized_of(pipe).plan.same_as(BF16)

    def test_without_originals_it_is_lowered_too(self) -> None:
        pipe = optimised(BF16, undo=False)
        pipe.unet = build("sd").unet
        assert run("sd", pipe, batch=2).isfinite().all()
        assert pipe.unet.dtype == torch.bfloat16


MORE: dict[str, dict[str, Any]] = {
    "sd": {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": True},
    "flux": {"prompt_2": None},
    "sd3": {"prompt_2": None, "prompt_3": None},
}


@pytest.mark.parametrize("family", ["sd", "flux", "wan", "sdxl", "sd3", "ltx"])
def test_encoding_by_hand_is_no_change(family: str) -> None:
    pipe = optimised(Plan(), family, on_change="refuse")
    with torch.no_grad():
        pipe.encode_prompt("a cat", **MORE.get(family, {}))
    assert run(family, pipe, batch=2).isfinite().all()


class TestLoaded:
    """Numbers that the owner loads into lowered weights."""

    @pytest.mark.parametrize("undo", [True, False])
    @pytest.mark.parametrize("offload", [None, "model", "group:leaf"])
    @pytest.mark.parametrize("reload", [False, True], ids=["from RAM", "from files"])
    def test_they_are_there_when_the_plan_goes(
        self, offload: str | None, undo: bool, reload: bool, tmp_path: Any
    ) -> None:
        torch.manual_seed(5)
        other = build("sd").unet
        with torch.no_grad():
            for weight in other.parameters():
                weight.copy_(torch.randn_like(weight).bfloat16())  # what half precision holds
        pipe = build("sd")
        if reload:
            pipe.save_pretrained(tmp_path)
            pipe = type(pipe).from_pretrained(tmp_path)
        kept = {name: weight.clone() for name, weight in pipe.vae.state_dict().items()}
        before = dict(pipe.unet.named_parameters())
        call = job("sd", pipe, batch=2).largest
        applying.apply(pipe, Plan(dtype="bf16", offload=offload), device=CPU, workload=call, undo=undo, reload=reload)
        pipe.unet.load_state_dict(other.state_dict())
        applying.restore(pipe)
        dtype = torch.float32 if undo else torch.bfloat16
        for name, weight in pipe.unet.named_parameters():
            assert torch.equal(weight, other.state_dict()[name].to(dtype)), name
            assert weight is before[name] or not undo
        if undo:
            assert all(torch.equal(weight, kept[name]) for name, weight in pipe.vae.state_dict().items())


class Mine(AttnProcessor2_0):
    """A processor of the owner's."""


def test_slices_do_not_take_the_place_of_an_owners_processor() -> None:
    pipe = build("sd")
    pipe.unet.set_attn_processor(Mine())
    before = Seen(pipe)
    with pytest.raises(PlanError) as caught:
        autotune.apply(pipe, Plan(attention="sliced:1"), workload=workload("sd"))
    assert str(caught.value) == (
        "attention='sliced:1' cannot be applied: slices would take the place of Mine; what works is 'as_is'"
    )
    before.assert_same(pipe)


def test_ties_outlive_a_rollback_without_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, left = build("flux"), [0]
    cast = dtype_lever._cast

    def failing(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise MemoryError("no room")
        return cast(tensor, dtype)

    count = sum(
        len(list(part.parameters())) for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
    )
    left[0] = count
    monkeypatch.setattr(dtype_lever, "_cast", failing)
    with pytest.raises(PlanError, match="but for the lowered precision: undo=False"):
        autotune.apply(pipe, BF16, workload=workload("flux"), undo=False)
    encoder = pipe.text_encoder_2
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
    assert {weight.dtype for part in (pipe.transformer, encoder) for weight in part.parameters()} == {torch.float32}


class TestBrokenOff:
    """A call that is broken off is put right before the next."""

    @pytest.mark.parametrize(
        "plan", [Plan(dtype="fp16"), Plan(dtype="fp16", offload="sequential")], ids=["resident", "sequential"]
    )
    @pytest.mark.parametrize("on_change", ["tell", "ignore", "refuse"])
    def test_a_vae_in_another_precision(self, plan: Plan, on_change: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe = optimised(plan, "sdxl", on_change=on_change)
        image = run("sdxl", pipe, batch=2)
        with monkeypatch.context() as patch:
            patch.setattr(type(pipe.vae), "_decode", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                run("sdxl", pipe, batch=2)
        assert torch.equal(run("sdxl", pipe, batch=2), image)

    def test_what_the_owner_exchanged_meanwhile_is_still_looked_at(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe = optimised(Plan(batch_split=2))
        with monkeypatch.context() as patch:
            patch.setattr(type(pipe.vae), "_decode", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                run("sd", pipe, batch=2)
        pipe.unet = build("sd").unet
        with pytest.raises(PlanError, match="batch_split=2 was proved for the one before"):
            run("sd", pipe, batch=2)


def _interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


class TestFiles:
    """Originals that are read again."""

    def loaded(self, folder: Any) -> Any:
        build("sd").save_pretrained(folder)
        pipe = type(build("sd")).from_pretrained(str(folder))
        pipe.set_progress_bar_config(disable=True)
        from autotune.guard.applying import apply
        from tests.contract.families import CPU, job

        apply(pipe, BF16, device=CPU, workload=job("sd", pipe).largest, reload=True)
        return pipe

    def test_they_are_not_overwritten(self, tmp_path: Any) -> None:
        pipe = self.loaded(tmp_path / "model")
        with pytest.raises(PlanError, match=r"^restore reads originals from .*, which saving would overwrite"):
            pipe.save_pretrained(tmp_path / "model")
        pipe.save_pretrained(tmp_path / "other")
        assert autotune.restore(pipe).unet.dtype == torch.float32

    def test_where_they_are_gone_nothing_is_taken_back(self, tmp_path: Any) -> None:
        pipe = self.loaded(tmp_path / "model")
        (tmp_path / "model").rename(tmp_path / "away")
        with pytest.raises(AutotuneError, match="which is not there; put it back and call again"):
            autotune.restore(pipe)
        assert run("sd", pipe).isfinite().all()
        (tmp_path / "away").rename(tmp_path / "model")
        assert autotune.restore(pipe).unet.dtype == torch.float32


def test_weights_of_inference_mode_are_not_exchanged() -> None:
    with torch.inference_mode():
        pipe = build("sd")
    for plan in (Plan(offload="sequential"), Plan(channels_last=True)):
        with pytest.raises(PlanError, match=r"were made in torch\.inference_mode, which forbids replacing them"):
            autotune.apply(pipe, plan, workload=workload("sd"))


def test_explain_says_that_a_pipeline_was_left_half_way() -> None:
    pipe = optimised(BF16)
    optimized_of(pipe).is_whole = False
    with pytest.raises(PlanError, match="was left half way"):
        autotune.explain(pipe)
    autotune.restore(pipe)
