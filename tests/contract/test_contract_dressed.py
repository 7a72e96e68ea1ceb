"""The generated class: to everybody who looks, an optimised pipeline is what it was."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
from transformers import CLIPTextConfig, CLIPTextModel

import autotune
from autotune.errors import PlanError
from autotune.guard import applying
from autotune.guard.dress import is_dressed
from autotune.levers.base import Subject
from autotune.levers.text_encoders import TextEncoders
from autotune.records.plan import Plan
from autotune.records.words import plan_words
from autotune.records.workload import Workload
from autotune.upstream import port
from tests.contract.families import CARD, FAMILIES, TILES, build, call_of, pulled, run
from tests.contract.ledger import networks
from tests.contract.test_contract_levers import Snapshot

PLACEMENTS = {
    "none": Plan(vae_slicing=True),
    "model": Plan(offload="model"),
    "sequential": Plan(offload="sequential"),
    "group:block": Plan(offload="group:block"),
    "group:leaf": Plan(offload="group:leaf"),
    "text encoders leave": Plan(text_encoders="leave"),
    "text encoders on the CPU": Plan(text_encoders="cpu"),
}
AUTOMATIC = ("sd", "sdxl", "flux", "sd3")
"""The families that the AutoPipelines know."""


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(params=PLACEMENTS)
def plan(request):
    return PLACEMENTS[request.param]


def optimised(family: str, plan: Plan, *, processors: bool = False) -> Any:
    pipe = build(family, processors=processors)
    return autotune.apply(pipe, plan, device="cpu", workload={"prompt": "a cat", **call_of(family)})


def hooks_of(pipe: Any) -> dict[str, Any]:
    """What hangs on each module, by path."""
    return {
        f"{name}.{path}": (
            type(getattr(module, "_hf_hook", None)),
            sorted(getattr(getattr(module, "_diffusers_hook", None), "hooks", {})),
            len(module._forward_pre_hooks),
        )
        for name, part in port.networks(pipe).items()
        for path, module in part.named_modules()
    }


class TestClass:
    """What the class says of itself."""

    def test_it_is_the_original_to_everybody(self, family):
        plain = type(build(family))
        pipe = optimised(family, PLACEMENTS["none"])
        dressed = type(pipe)
        assert is_dressed(pipe)
        assert dressed is not plain
        assert isinstance(pipe, plain)
        assert issubclass(dressed, plain)
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            assert getattr(dressed, name) == getattr(plain, name)
        assert inspect.signature(dressed) == inspect.signature(plain)
        for name in ("__call__", "__init__", "encode_prompt", "from_pretrained"):
            assert inspect.signature(getattr(dressed, name)) == inspect.signature(getattr(plain, name))
        assert inspect.signature(pipe) == inspect.signature(build(family))
        assert repr(pipe) == repr(build(family))

    def test_restore_gives_the_class_back(self, family):
        pipe = optimised(family, PLACEMENTS["none"])
        assert type(autotune.restore(pipe)) is type(build(family))
        assert not is_dressed(pipe)

    def test_optimize_dresses_too(self):
        pipe = build("sd")
        assert autotune.optimize(pipe, workload=call_of("sd"), device="cpu", profiles=False) is pipe
        assert is_dressed(pipe)
        assert type(autotune.restore(pipe)) is diffusers.StableDiffusionPipeline

    def test_another_plan_is_dressed_once(self):
        pipe = optimised("sd", PLACEMENTS["none"])
        once = type(pipe)
        autotune.apply(pipe, PLACEMENTS["model"])
        assert type(pipe) is once
        assert type(autotune.restore(pipe)) is diffusers.StableDiffusionPipeline

    def test_who_calls_the_class_gets_a_plain_pipeline(self, tmp_path):
        pipe = optimised("sd", PLACEMENTS["none"])
        pipe.save_pretrained(tmp_path)
        extra = {"requires_safety_checker": False}
        for made in (
            type(pipe)(**pipe.components, **extra),
            pipe.from_pretrained(tmp_path),
            type(pipe).from_pipe(pipe),
        ):
            assert type(made) is diffusers.StableDiffusionPipeline
            assert applying.optimized_of(made) is None
        assert is_dressed(pipe)

    def test_a_plan_that_cannot_be_applied_dresses_nothing(self):
        pipe = build("sd")
        with pytest.raises(PlanError):
            autotune.apply(pipe, Plan(tf32=True), device="cpu")
        assert type(pipe) is diffusers.StableDiffusionPipeline


class TestSaved:
    """Saved while it is optimised."""

    @pytest.mark.parametrize("placement", [name for name in PLACEMENTS if name != "sequential"])
    def test_it_loads_with_its_own_class(self, family, placement, tmp_path):
        image = run(family, build(family))
        pipe = optimised(family, PLACEMENTS[placement])
        pipe.save_pretrained(tmp_path)
        plain = type(build(family))
        assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == plain.__name__
        loaded = plain.from_pretrained(tmp_path)
        assert type(loaded) is plain
        loaded.set_progress_bar_config(disable=True)
        for name, network in networks(build(family)).items():
            saved = getattr(loaded, name).state_dict()
            assert all(torch.equal(saved[key], tensor) for key, tensor in network.state_dict().items())
        # Weights read from a file are aligned otherwise in memory, and some CPUs' kernels then sum in another order.
        assert torch.allclose(run(family, loaded), image, rtol=0, atol=1e-5)
        assert torch.equal(run(family, pipe), image)

    def test_empty_modules_are_not_saved(self, tmp_path):
        pipe = optimised("sd", PLACEMENTS["sequential"])
        before = hooks_of(pipe)
        with pytest.raises(PlanError) as caught:
            pipe.save_pretrained(tmp_path)
        assert str(caught.value) == (
            "a pipeline under sequential offload cannot be saved: its modules are empty between calls; "
            "call autotune.restore(pipe) first"
        )
        assert list(tmp_path.iterdir()) == []
        assert hooks_of(pipe) == before
        autotune.restore(pipe).save_pretrained(tmp_path)
        assert (tmp_path / "model_index.json").exists()


class TestShared:
    """Pipelines made of an optimised one."""

    @pytest.mark.parametrize("family", AUTOMATIC)
    def test_other_pipelines_of_its_networks_run(self, family, plan):
        pipe = optimised(family, plan)
        image = run(family, pipe)
        plain = type(build(family))
        text = AutoPipelineForText2Image.from_pipe(pipe)
        again = plain.from_pipe(pipe)
        from_image = AutoPipelineForImage2Image.from_pipe(pipe)
        assert type(text) is type(again) is plain
        assert type(from_image) is getattr(diffusers, plain.__name__.replace("Pipeline", "Img2ImgPipeline"))
        for made in (text, again):
            made.set_progress_bar_config(disable=True)
            assert torch.equal(run(family, made), image)
        from_image.set_progress_bar_config(disable=True)
        call = {name: value for name, value in call_of(family).items() if name not in {"height", "width"}}
        sized = call_of(family) if family == "flux" else call
        picture = from_image("a cat", image=image, strength=1.0, output_type="pt", **sized).images
        assert picture.shape == image.shape
        assert torch.equal(run(family, pipe), image)
        assert is_dressed(pipe)

    def test_its_networks_may_be_lent_in_their_precision(self):
        pipe = build("sd")
        before = Snapshot(pipe)
        autotune.apply(pipe, Plan(dtype="bfloat16"), device="cpu")
        lent = diffusers.StableDiffusionPipeline.from_pipe(pipe, dtype=torch.bfloat16)
        assert lent.unet is pipe.unet
        assert {weight.dtype for weight in pipe.unet.parameters()} == {torch.bfloat16}
        diffusers.StableDiffusionPipeline.from_pipe(pipe)  # diffusers casts to fp32 where no precision is asked for
        autotune.restore(pipe)
        before.assert_same(pipe)

    def test_a_copy_is_plain_and_shares_the_networks(self, family, plan):
        pipe = optimised(family, plan)
        image, before = run(family, pipe), hooks_of(pipe)
        twin = copy.copy(pipe)
        assert type(twin) is type(build(family))
        assert twin.components == pipe.components
        assert applying.optimized_of(twin) is None
        assert torch.equal(run(family, twin), image)
        assert autotune.restore(twin) is twin
        assert is_dressed(pipe)
        assert hooks_of(pipe) == before
        assert torch.equal(run(family, pipe), image)
        with pytest.raises(PlanError, match=r"also belongs? to a pipeline that is optimised"):
            autotune.apply(twin, Plan(), device="cpu")

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, pickle.dumps, lambda pipe: copy.deepcopy({"one": pipe})])
    def test_a_deep_copy_is_refused(self, plan, duplicate):
        pipe = optimised("sd", plan)
        image = run("sd", pipe)
        with pytest.raises(PlanError) as caught:
            duplicate(pipe)
        assert str(caught.value) == (
            "an optimised pipeline cannot be pickled or copied in depth: hooks and originals belong to this one; "
            "call autotune.restore(pipe) first"
        )
        assert torch.equal(run("sd", pipe), image)

    @pytest.mark.parametrize("family", ["sd", "sd3", "wan"])
    def test_restored_it_can_be_pickled_and_copied(self, family, plan):
        image = run(family, build(family))
        pipe = autotune.restore(
            optimised(family, plan)
        )  # not called before: transformers leaves hooks that no pickle takes
        for made in (pickle.loads(pickle.dumps(pipe)), copy.deepcopy(pipe)):
            assert type(made) is type(build(family))
            assert torch.equal(run(family, made), image)


ELSEWHERE: tuple[tuple[tuple[Any, ...], dict[str, Any], str], ...] = (
    (("cuda",), {}, "cuda"),
    ((torch.device("cuda:1"),), {}, "cuda:1"),
    ((torch.bfloat16,), {}, "torch.bfloat16"),
    (("cpu", torch.float16), {}, "cpu, torch.float16"),
    ((), {"device": "cuda"}, "cuda"),
    ((), {"dtype": torch.float16, "silence_dtype_warnings": True}, "torch.float16"),
)


class TestMoved:
    """`pipe.to` on an optimised pipeline."""

    def test_to_where_it_is(self):
        pipe = optimised("sd", PLACEMENTS["none"])
        for arguments in ((), ("cpu",), (torch.device("cpu"),), ("cpu:0",)):
            assert pipe.to(*arguments) is pipe
        assert pipe.to(device="cpu", silence_dtype_warnings=True) is pipe

    def test_anywhere_else_is_refused(self, plan):
        pipe = optimised("sd", plan)
        image, before = run("sd", pipe), Snapshot(pipe)
        for arguments, named, asked in ELSEWHERE:
            with pytest.raises(PlanError) as caught:
                pipe.to(*arguments, **named)
            assert str(caught.value) == (
                f"pipe.to({asked}) would undo what was planned for cpu ({plan_words(plan)}); "
                "call autotune.restore(pipe) first, or autotune.optimize(pipe, ...) for another plan"
            )
            before.assert_same(pipe)
        assert torch.equal(run("sd", pipe), image)

    def test_weights_that_wait_elsewhere_are_not_called_in(self, plan):
        pipe = optimised("sd", plan)
        if plan is PLACEMENTS["none"]:
            assert pipe.to("cpu") is pipe
            return
        with pytest.raises(PlanError, match=r"pipe.to\(cpu\) would undo"):
            pipe.to("cpu")

    def test_a_restored_pipeline_goes_where_it_is_sent(self):
        pipe = autotune.restore(optimised("sd", PLACEMENTS["none"]))
        assert pipe.to(torch.bfloat16).unet.dtype == torch.bfloat16


class TestCalled:
    """Calls under each placement."""

    def test_latents_are_made_on_the_plans_device(self, family, plan, monkeypatch):
        pipe = optimised(family, plan)
        asked, make = [], pipe.prepare_latents

        def prepare_latents(*args, **kwargs):
            asked.extend(value for value in (*args, *kwargs.values()) if isinstance(value, torch.device))
            return make(*args, **kwargs)

        monkeypatch.setattr(pipe, "prepare_latents", prepare_latents)
        run(family, pipe)
        assert asked == [torch.device("cpu")]  # and not "cpu:0", which the hooks of model offload say

    def test_the_card_is_where_it_executes(self, family, plan):
        pipe = optimised(family, plan)
        handle = applying.optimized_of(pipe)
        handle.device = CARD
        assert pipe._execution_device == torch.device("cuda:0")
        autotune.restore(pipe)
        assert pipe._execution_device == torch.device("cpu")

    def test_several_calls_in_a_row(self, family, plan):
        image = run(family, build(family))
        pipe = optimised(family, plan)
        before = hooks_of(pipe)
        for _ in range(3):
            assert torch.equal(run(family, pipe), image)
            assert hooks_of(pipe) == before
        pipe.maybe_free_model_hooks()
        assert hooks_of(pipe) == before
        assert torch.equal(run(family, pipe), image)


def slice_attention(pipe):
    pipe.enable_attention_slicing()


def tile(pipe):
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()


def untile(pipe):
    pipe.vae.disable_tiling()
    pipe.vae.disable_slicing()


def offload(pipe):
    pipe.enable_model_cpu_offload(device="cpu")


def unhook(pipe):
    pipe.remove_all_hooks()


class TestOwnersCalls:
    """What its owner does to an optimised pipeline by diffusers' own calls goes with the plan."""

    @pytest.mark.parametrize("family", ["sd", "flux", "wan"])
    @pytest.mark.parametrize("call", [slice_attention, tile, untile, offload, unhook])
    def test_restore_is_exact(self, family, plan, call):
        pipe = build(family, processors=True)
        run(family, pipe)
        before, image = Snapshot(pipe), run(family, pipe)
        both = plan.model_copy(update={"attention": "sdpa", "vae_tiling": TILES[family], "vae_slicing": True})
        autotune.apply(pipe, both, device="cpu", workload={"prompt": "a cat", **call_of(family)})
        if call is offload and (plan.offload or "").startswith("group"):
            hooks = hooks_of(pipe)
            with pytest.raises(ValueError, match="group offloading"):
                call(pipe)
            assert hooks_of(pipe) == hooks
        else:
            call(pipe)
        run(family, pipe)
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert torch.equal(run(family, pipe), image)


class TestExplained:
    """`autotune.explain` in each state."""

    @pytest.mark.parametrize("family", ["sd", "flux"])
    def test_the_state_is_named_and_stays(self, family):
        pipe, call = build(family), {"prompt": "a cat", **call_of(family)}
        assert autotune.explain(pipe, workload=call).state == "as it is"
        plan = Plan(dtype="bfloat16", vae_slicing=True, offload="group:leaf", text_encoders="leave")
        autotune.apply(pipe, plan, device="cpu", workload=call)
        image, before = run(family, pipe), hooks_of(pipe)
        for explained in (autotune.explain(pipe), autotune.explain(pipe, workload=call, max_vram="4GB")):
            assert explained.state == "optimised"
            assert explained.chosen.plan.same_as(plan)
            assert is_dressed(pipe)
            assert applying.optimized_of(pipe).plan is plan
            assert hooks_of(pipe) == before
        assert torch.equal(run(family, pipe), image)
        assert autotune.explain(autotune.restore(pipe), workload=call).state == "as it is"

    def test_a_question_that_is_refused_leaves_it_optimised(self):
        pipe = optimised("sd", PLACEMENTS["model"])
        before = hooks_of(pipe)
        with pytest.raises(autotune.BadSizeError):
            autotune.explain(pipe, max_vram="4Gb")
        assert is_dressed(pipe)
        assert hooks_of(pipe) == before


META = CARD.model_copy(update={"torch_device": "meta"})


class TestTextEncoders:
    """Text encoders apart, with a device that a machine without a card has: "meta"."""

    def subject(self, **parts: torch.nn.Module) -> Subject:
        return Subject(SimpleNamespace(components=parts), META, Workload())

    def clip(self) -> CLIPTextModel:
        config = CLIPTextConfig(
            hidden_size=8, intermediate_size=8, num_attention_heads=2, num_hidden_layers=1, vocab_size=9,
            max_position_embeddings=4,
        )  # fmt: skip
        return CLIPTextModel(config).eval()

    def test_what_comes_out_on_the_cpu_is_sent_to_the_device(self):
        subject = self.subject(text_encoder=self.clip(), unet=torch.nn.Linear(1, 1))
        encoder, ids = subject.pipe.components["text_encoder"], torch.tensor([[1, 2, 3]])
        plain = encoder(ids, output_hidden_states=True)
        journal = pulled(TextEncoders(), subject, "cpu")
        sent = encoder(ids, output_hidden_states=True)
        assert type(sent) is type(plain)
        assert sent.keys() == plain.keys()
        states = (sent.last_hidden_state, sent.pooler_output, *sent.hidden_states)
        assert {state.device for state in states} == {torch.device("meta")}
        assert {weight.device for weight in encoder.parameters()} == {torch.device("cpu")}
        assert encoder(ids, return_dict=False)[0].device == torch.device("meta")
        journal.undo()
        assert torch.equal(encoder(ids).last_hidden_state, plain.last_hidden_state)

    def test_what_goes_in_is_brought_to_the_cpu(self):
        came = []

        class Parcel:
            def to(self, device, **_):
                came.append(device)
                return torch.ones(1)

        subject = self.subject(text_encoder_2=torch.nn.Identity(), transformer=torch.nn.Linear(1, 1))
        encoder = subject.pipe.components["text_encoder_2"]
        encoder.forward = lambda one, *, other: one + other
        pulled(TextEncoders(), subject, "cpu")
        assert encoder(Parcel(), other=Parcel()).device == torch.device("meta")
        assert came == [torch.device("cpu")] * 2

    def test_they_are_sent_away_at_the_denoisers_first_call(self):
        left: list[torch.nn.Module] = []

        class Part(torch.nn.Linear):
            """A network on meta that can come back."""

            def to(self, device):
                left.append(self)
                return self.to_empty(device=device)

        parts = {name: Part(1, 1, device="meta") for name in ("text_encoder", "text_encoder_2", "unet", "vae")}
        parts["unet"].to("cpu")
        left.clear()
        journal = pulled(TextEncoders(), self.subject(**parts), "leave")
        parts["vae"](torch.ones(1, device="meta"))
        assert left == []
        for _ in range(2):
            parts["unet"](torch.ones(1))
        assert left == [parts["text_encoder"], parts["text_encoder_2"]]
        journal.undo()
        parts["text_encoder"].to("meta")
        parts["unet"](torch.ones(1))
        assert len(left) == 3

    def test_they_come_back_for_the_next_call(self):
        subject = self.subject(text_encoder=torch.nn.Linear(1, 1), transformer=torch.nn.Linear(1, 1))
        encoder = subject.pipe.components["text_encoder"]
        journal = pulled(TextEncoders(), subject, "leave")
        assert encoder(torch.ones(1)).device == torch.device("meta")
        assert {weight.device for weight in encoder.parameters()} == {torch.device("meta")}
        journal.undo()
        assert not encoder._forward_pre_hooks
