"""What people do to a pipeline that is optimised, and what is right then: each fault that was found, by its shortest input."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import warnings
from collections.abc import Callable
from typing import Any
from weakref import ref

import diffusers
import pytest
import torch
from diffusers.hooks import FirstBlockCacheConfig, apply_first_block_cache
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection

import autotune
from autotune.errors import PlanError
from autotune.guard.applying import optimized_of
from autotune.guard.as_found import as_found
from autotune.levers import engine
from autotune.levers.tf32 import Tf32
from autotune.records.plan import Plan
from autotune.upstream import port
from benchmarks.faults.seen import Seen, weights_of
from tests.contract.families import CARD, FAMILIES, build, call_of, job, pulled, run, subject_of
from tests.contract.states import add_lora, denoiser, lora_file, workload

PLANS = {
    "nothing": Plan(),
    "lowered": Plan(dtype="bf16", vae_tiling=16, channels_last=True),
    "parts": Plan(batch_split=2, feed_forward_chunks=2, vae_slicing=True),
    "model": Plan(offload="model"),
    "sequential": Plan(offload="sequential"),
    "leaf": Plan(offload="group:leaf", text_encoders="leave"),
    "cpu": Plan(text_encoders="cpu", attention="vanilla"),
}
WRAPPED = {
    "parts": Plan(batch_split=2),
    "chunks": Plan(feed_forward_chunks=2),
    "trace": Plan(compile="trace"),
}


def optimised(plan: Plan, family: str = "sd", pipe: Any = None, **asked: Any) -> Any:
    return autotune.apply(pipe or build(family), plan, workload=workload(family), **asked)


def quietly(do: Callable[[], Any]) -> Any:
    """Tracing warns of each Python value that becomes a constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return do()


def image(pipe: Any, family: str = "sd") -> torch.Tensor:
    return quietly(lambda: run(family, pipe, batch=2))


class TestLetGo:
    """Nothing of ours keeps a pipeline or its weights alive."""

    @pytest.mark.parametrize("name", PLANS)
    @pytest.mark.parametrize("until", ["applied", "called", "restored", "refused"])
    def test_a_pipeline_that_is_dropped_is_freed(self, name: str, until: str) -> None:
        pipe = build("sd")
        alive, weights = ref(pipe), [ref(weight) for weight in weights_of(pipe).values()]
        autotune.apply(pipe, PLANS[name], workload=workload("sd"))
        if until == "called":
            run("sd", pipe, batch=2)
        if until == "restored":
            autotune.restore(pipe)
        if until == "refused":
            with pytest.raises(PlanError):
                autotune.apply(pipe, Plan(tf32=True))
        del pipe
        gc.collect()
        assert alive() is None
        assert not any(weight() is not None for weight in weights)

    def test_one_without_hooks_is_freed_at_once(self) -> None:
        pipe = optimised(Plan(dtype="bf16", vae_slicing=True))
        weight = ref(pipe.unet.conv_in.weight)
        gc.disable()
        try:
            del pipe
            assert weight() is None
        finally:
            gc.enable()

    @pytest.mark.parametrize("name", PLANS)
    def test_its_components_may_be_anothers(self, name: str) -> None:
        pipe = optimised(PLANS[name])
        parts = pipe.components
        del pipe
        heir = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
        heir.set_progress_bar_config(disable=True)
        image(heir)
        before = Seen(heir)
        autotune.apply(heir, Plan(vae_slicing=True), workload=workload("sd"))
        assert image(heir).isfinite().all()
        autotune.restore(heir)
        before.assert_same(heir)

    def test_questions_keep_nothing(self) -> None:
        pipe = optimised(PLANS["lowered"])
        autotune.explain(pipe)
        alive = ref(pipe)
        del pipe
        gc.collect()
        assert alive() is None


class TestCopies:
    """A copy of a component runs its own weights."""

    @pytest.mark.parametrize("name", WRAPPED)
    def test_a_deep_copy_is_by_itself(self, name: str) -> None:
        pipe = optimised(WRAPPED[name])
        image(pipe)
        twin, given = copy.deepcopy(pipe.unet), (torch.ones(2, 4, 8, 8), torch.tensor(1), torch.ones(2, 16, 32))
        with torch.no_grad():
            quietly(lambda: torch.testing.assert_close(twin(*given).sample, pipe.unet(*given).sample))
            for weight in twin.parameters():
                weight.zero_()
            assert quietly(lambda: twin(*given).sample).abs().max() == 0
            assert quietly(lambda: pipe.unet(*given).sample).abs().max() > 0

    @pytest.mark.parametrize("name", WRAPPED)
    def test_restored_it_is_pickled(self, name: str) -> None:
        pipe = autotune.restore(optimised(WRAPPED[name]))
        again = pickle.loads(pickle.dumps(pipe.unet))
        assert "forward" not in vars(again)

    @pytest.mark.parametrize("name", PLANS)
    def test_under_a_plan_every_component_can_be_copied(self, name: str) -> None:
        pipe = optimised(PLANS[name])
        for part in port.networks(pipe).values() if name != "leaf" else ():  # diffusers' groups cannot be copied
            twin = copy.deepcopy(part)
            shared = {id(one) for one in part.parameters()} & {id(one) for one in twin.parameters()}
            assert not shared

    def test_the_owner_may_compile_afterwards(self) -> None:
        pipe = optimised(Plan(batch_split=2, feed_forward_chunks=2))
        before = image(pipe)
        pipe.unet.compile(backend="eager")
        torch.testing.assert_close(image(pipe), before, rtol=0, atol=1e-4)
        autotune.restore(pipe)
        torch.testing.assert_close(image(pipe), before, rtol=0, atol=1e-4)
        torch.compiler.reset()


def freeu(pipe: Any) -> None:
    pipe.enable_freeu(s1=0.5, s2=0.5, b1=1.5, b2=1.5)


def other_conv(pipe: Any) -> None:
    torch.manual_seed(5)
    conv = pipe.unet.conv_out
    pipe.unet.conv_out = torch.nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, padding=conv.padding)


def doubled(pipe: Any) -> None:
    pipe.unet.conv_norm_out.register_forward_hook(lambda _, __, output: 2 * output)


def fewer_channels(pipe: Any) -> None:
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].set_chunk_feed_forward(2, 1)


class TestTraced:
    """A trace has baked in what the UNet was."""

    @pytest.mark.parametrize("change", [freeu, other_conv, doubled, fewer_channels])
    def test_what_has_changed_since_is_seen(self, change: Callable[[Any], None], told: list[str]) -> None:
        plain, pipe = build("sd"), optimised(Plan(compile="trace"))
        image(pipe)
        change(plain)
        change(pipe)
        told.clear()
        torch.testing.assert_close(image(pipe), image(plain), rtol=0, atol=1e-5)
        assert any(line.startswith("unet runs untraced: since it was traced, ") for line in told)

    def test_changed_back_it_is_traced_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe = optimised(Plan(compile="trace"))
        before = image(pipe)
        pipe.enable_freeu(s1=0.5, s2=0.5, b1=1.5, b2=1.5)
        assert not torch.equal(image(pipe), before)
        pipe.disable_freeu()
        torch.testing.assert_close(image(pipe), before, rtol=0, atol=1e-5)


class TestCaches:
    """A batch that is split and a cache across steps do not go together."""

    def cached(self, pipe: Any) -> None:
        apply_first_block_cache(pipe.transformer, FirstBlockCacheConfig(threshold=1.0))

    def test_it_is_refused_where_one_is_on(self) -> None:
        pipe = build("flux")
        self.cached(pipe)
        before = Seen(pipe)
        with pytest.raises(PlanError) as caught:
            autotune.apply(pipe, Plan(batch_split=2), workload=workload("flux"))
        assert "batch_split=2 cannot be applied: transformer: the hook fbc_leader_block_hook of diffusers" in str(
            caught.value
        )
        assert str(caught.value).endswith("what works is False, or transformer.disable_cache() first")
        before.assert_same(pipe)

    def test_it_is_not_offered_where_one_is_on(self) -> None:
        pipe = build("flux")
        self.cached(pipe)
        lever = next(lever for lever in engine.ORDER if lever.name == "batch_split")
        domain = lever.domain(subject_of(lever, "flux", pipe, facts=False))
        assert domain.values == (None,)
        assert "as step caches have them" in domain.reason

    def test_one_that_comes_later_runs_with_the_whole_batch(self, told: list[str]) -> None:
        plain, pipe = build("flux"), optimised(Plan(batch_split=2), "flux")
        self.cached(plain)
        self.cached(pipe)
        torch.testing.assert_close(image(pipe, "flux"), image(plain, "flux"), rtol=0, atol=1e-5)
        assert any(
            line.startswith("transformer runs with its whole batch: the hook fbc_leader_block_hook of") for line in told
        )

    def test_a_hook_over_a_wrapper_outlives_it(self) -> None:
        plain, pipe = build("flux"), optimised(Plan(batch_split=2), "flux")
        self.cached(plain)
        self.cached(pipe)
        image(pipe, "flux")
        autotune.restore(pipe)
        assert torch.equal(image(pipe, "flux"), image(plain, "flux"))


def ip_adapter(unet: Any) -> dict[str, Any]:
    """Weights of an IP-Adapter for the UNet, as its loader reads them."""
    torch.manual_seed(9)
    width, weights, number = unet.config.cross_attention_dim, {}, 1
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            processor = IPAdapterAttnProcessor2_0(hidden_size=module.query_dim, cross_attention_dim=width)
            weights[f"{number}.to_k_ip.weight"] = processor.to_k_ip[0].weight.detach()
            weights[f"{number}.to_v_ip.weight"] = processor.to_v_ip[0].weight.detach()
            number += 2
    projection = ImageProjection(image_embed_dim=width, cross_attention_dim=width, num_image_text_embeds=4).state_dict()
    names = {"proj.weight": "image_embeds.weight", "proj.bias": "image_embeds.bias"}
    return {
        "image_proj": {name: projection[names.get(name, name)] for name in (*names, "norm.weight", "norm.bias")},
        "ip_adapter": weights,
    }


def with_picture(pipe: Any) -> torch.Tensor:
    embeds = [torch.ones(2, 1, pipe.unet.config.cross_attention_dim, dtype=pipe.unet.dtype)]
    generator = torch.Generator().manual_seed(0)
    call = {**call_of("sd", batch=1), "ip_adapter_image_embeds": embeds, "output_type": "pt", "generator": generator}
    return pipe("a cat", **call).images


class TestAdapters:
    """Weights that come while a plan is on."""

    @pytest.mark.parametrize("attention", ["vanilla", "sdpa"])  # diffusers loads none beside sliced ones
    def test_an_ip_adapter_stays_when_the_plan_goes(self, attention: str) -> None:
        plain, pipe = build("sd", processors=True), build("sd", processors=True)
        autotune.apply(pipe, Plan(attention=attention), workload=workload("sd"))
        for one in (plain, pipe):
            one.unet._load_ip_adapter_weights([ip_adapter(one.unet)])
        torch.testing.assert_close(with_picture(pipe), with_picture(plain), rtol=0, atol=1e-5)
        autotune.restore(pipe)
        kinds = [type(p).__name__ for p in pipe.unet.attn_processors.values()]
        assert kinds.count("IPAdapterAttnProcessor2_0") == len(kinds) // 2
        torch.testing.assert_close(with_picture(pipe), with_picture(plain), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ["leaf", "cpu"])
    def test_a_lora_is_loaded_beside_text_encoders_that_are_placed_apart(self, name: str) -> None:
        plan = PLANS[name].model_copy(update={"offload": "none"}) if name == "leaf" else PLANS[name]
        pipe, plain = optimised(plan), build("sd")
        for one in (pipe, plain):
            one.load_lora_weights(lora_file(build("sd")), adapter_name="style")
        torch.testing.assert_close(image(pipe), image(plain), rtol=0, atol=1e-4)
        assert optimized_of(pipe).plan is plan
        if plan.offload == "none":
            assert port.offloaded(pipe) == "none"


class TestTf32:
    """The setting is the process's: users are counted."""

    def test_the_last_one_switches_it_off(self) -> None:
        lever, before = Tf32(), torch.get_float32_matmul_precision()
        one, other = (pulled(lever, subject_of(lever, "sd", None), True) for _ in range(2))
        assert torch.get_float32_matmul_precision() == "high"
        one.undo()
        assert torch.get_float32_matmul_precision() == "high"
        other.undo()
        assert torch.get_float32_matmul_precision() == before

    def test_one_that_is_let_go_is_a_user_no_more(self) -> None:
        lever, before = Tf32(), torch.get_float32_matmul_precision()
        one, other = (pulled(lever, subject_of(lever, "sd", None), True) for _ in range(2))
        del one
        gc.collect()
        assert torch.get_float32_matmul_precision() == "high"
        del other
        gc.collect()
        assert torch.get_float32_matmul_precision() == before

    def test_what_somebody_sets_meanwhile_stays(self) -> None:
        lever, before = Tf32(), torch.get_float32_matmul_precision()
        one = pulled(lever, subject_of(lever, "sd", None), True)
        torch.set_float32_matmul_precision("highest")
        one.undo()
        assert torch.get_float32_matmul_precision() == "highest"
        torch.set_float32_matmul_precision(before)

    def test_who_had_it_on_keeps_it(self) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium")
        try:
            pulled(Tf32(), subject_of(Tf32(), "sd", None), True).undo()
            assert torch.get_float32_matmul_precision() == "medium"
        finally:
            torch.set_float32_matmul_precision(before)

    def test_it_reads_as_the_owner_has_it(self) -> None:
        journal = pulled(Tf32(), subject_of(Tf32(), "sd", None), True)
        assert Tf32().read(None) is False
        journal.undo()


class TestInterrupted:
    """A `restore` that is broken off can be called again."""

    @pytest.mark.parametrize("name", PLANS)
    def test_restore_goes_on(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pipe = build("sd")
        run("sd", pipe, batch=2)
        before = Seen(pipe)
        autotune.apply(pipe, PLANS[name], workload=workload("sd"))
        entries = optimized_of(pipe).journal._entries
        middle = len(entries) // 2

        def interrupted() -> None:
            raise KeyboardInterrupt

        kept, entries[middle] = entries[middle], entries[middle]._replace(undo=interrupted)
        with pytest.raises(KeyboardInterrupt):
            autotune.restore(pipe)
        with pytest.raises(PlanError) as caught:
            run("sd", pipe)
        assert str(caught.value) == (
            "this StableDiffusionPipeline was left half way, when a plan was applied or taken back; "
            "call autotune.restore(pipe), which goes on from there"
        )
        entries[middle] = kept
        autotune.restore(pipe)
        before.assert_same(pipe)

    def test_another_plan_goes_on_too(self) -> None:
        pipe = build("sd")
        before = Seen(pipe)
        autotune.apply(pipe, PLANS["lowered"], workload=workload("sd"))
        entries = optimized_of(pipe).journal._entries
        kept = entries[-1]
        failing = iter([MemoryError("no room")])
        entries[-1] = kept._replace(undo=lambda: [_raise(error) for error in failing] or kept.undo())
        with pytest.raises(autotune.AutotuneError, match="still to be undone"):
            autotune.restore(pipe)
        autotune.apply(pipe, Plan(vae_slicing=True))
        assert optimized_of(pipe).plan.changes == {"vae_slicing": True}
        autotune.restore(pipe)
        before.assert_same(pipe)


def _raise(error: BaseException) -> None:
    raise error


def found(what: str) -> Any:
    """The pipeline before its plan: only what is there can be fused."""
    pipe = build("sd")
    if what == "fused":
        add_lora(pipe)
    return pipe


def fused_lora(pipe: Any) -> None:
    pipe.fuse_lora(components=["unet"])


AGAIN = "call autotune.optimize(pipe, ...) to plan for what is there now"
RENEWED = f"the plan was applied to what is there now; its sizes and seconds are those of before: {AGAIN}"
NOTICED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "cast": (lambda pipe: pipe.unet.to(torch.float64), "unet: weights are float64 now"),
    "from_pipe": (
        lambda pipe: diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipe, dtype=torch.float64),
        "weights are float64 now",
    ),
    "LoRA": (add_lora, "unet: a LoRA was loaded"),
    "fused": (fused_lora, "unet: a LoRA was fused, or taken out of the weights"),
    "FreeU": (freeu, "unet: settings were added or taken away"),
    "attention": (lambda pipe: pipe.enable_attention_slicing(), "unet: "),
    "tiles": (lambda pipe: pipe.vae.enable_tiling(), "vae: use_tiling was changed"),
    "slices": (lambda pipe: pipe.vae.enable_slicing(), "vae: use_slicing was changed"),
    "submodule": (other_conv, "unet: module conv_out was exchanged"),
    "hook": (doubled, "unet: hooks were added or taken off"),
    "weight": (
        lambda pipe: setattr(pipe.unet.conv_out, "weight", torch.nn.Parameter(2 * pipe.unet.conv_out.weight.detach())),
        "unet: weights were exchanged",
    ),
    "function": (
        lambda pipe: setattr(pipe.unet.conv_out, "forward", lambda x: torch.nn.Conv2d.forward(pipe.unet.conv_out, x)),
        "unet: ",
    ),
    "scheduler": (
        lambda pipe: setattr(pipe, "scheduler", diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)),
        "scheduler is HeunDiscreteScheduler now",
    ),
}


class TestChanged:
    """What is changed after a plan was applied is noticed before the next call."""

    @pytest.mark.parametrize("what", NOTICED)
    def test_it_is_told_once(self, what: str, told: list[str]) -> None:
        change, words = NOTICED[what]
        pipe = optimised(Plan(channels_last=True, text_encoders="cpu"), pipe=found(what))
        run("sd", pipe, batch=2)
        assert told == []
        change(pipe)
        explained = autotune.explain(pipe, workload=workload("sd")) if what not in {"cast", "from_pipe"} else None
        for _ in range(2):
            _try(lambda: run("sd", pipe, batch=2))
        lines = [line for line in told if line.endswith(f"the plan goes on for the rest; {AGAIN}")]
        assert len(lines) == 1
        assert words in lines[0]
        assert explained is None or words in explained.notes[0]

    @pytest.mark.parametrize("what", NOTICED)
    def test_it_is_refused_where_one_wants_that(self, what: str) -> None:
        change, words = NOTICED[what]
        pipe = optimised(Plan(vae_tiling=False), pipe=found(what), on_change="refuse")
        run("sd", pipe, batch=2)
        change(pipe)
        for _ in range(2):
            with pytest.raises(PlanError) as caught:
                run("sd", pipe, batch=2)
            assert words in str(caught.value)
            assert str(caught.value).endswith(f", which the plan does not cover; {AGAIN}, or autotune.restore(pipe)")

    def test_it_is_ignored_where_one_wants_that(self, told: list[str]) -> None:
        pipe = optimised(Plan(), on_change="ignore")
        add_lora(pipe)
        run("sd", pipe, batch=2)
        assert told == []

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("name", ["nothing", "model", "sequential", "leaf"])
    def test_calls_change_nothing(self, family: str, name: str, told: list[str]) -> None:
        pipe = autotune.apply(build(family), PLANS[name], workload=workload(family))
        for _ in range(3):
            run(family, pipe, batch=2)
        assert told == []
        assert optimized_of(pipe).changes(pipe) == ()

    @pytest.mark.parametrize("value", ["say", "", None])
    def test_other_answers_are_refused(self, value: Any) -> None:
        with pytest.raises(PlanError, match=r"^no on_change .*; it is one of replan, tell, refuse, ignore; nearest: "):
            optimised(Plan(), on_change=value)


def _try(do: Callable[[], Any]) -> None:
    """A network of another precision than its neighbours does not run, plan or no plan."""
    with contextlib.suppress(RuntimeError):
        do()


class TestExchanged:
    """A component that is exchanged: the plan is applied to the new one."""

    @pytest.mark.parametrize("name", ["nothing", "lowered", "model", "sequential", "leaf", "cpu"])
    def test_the_next_call_is_under_the_plan(self, name: str, told: list[str]) -> None:
        plan, pipe, other = PLANS[name], build("sd"), build("sd").unet
        with torch.no_grad():
            other.conv_out.weight.mul_(0.5)
        plain = build("sd")
        plain.unet = copy.deepcopy(other)
        old = pipe.unet
        run("sd", pipe, batch=2)
        before, before_other = Seen(pipe), copy.deepcopy(other.state_dict())
        autotune.apply(pipe, plan, workload=workload("sd"))
        run("sd", pipe, batch=2)
        pipe.unet = other
        run("sd", pipe, batch=2)
        assert told == [f"unet is another UNet2DConditionModel now: {RENEWED}"]
        assert pipe.unet.dtype == (torch.bfloat16 if plan.dtype is not None else torch.float32)
        autotune.restore(pipe)
        assert torch.equal(run("sd", pipe, batch=2), run("sd", plain, batch=2))
        assert all(torch.equal(weight, before_other[key]) for key, weight in pipe.unet.state_dict().items())
        pipe.unet = old
        before.assert_same(pipe)

    def test_one_that_is_taken_away_needs_no_plan(self, told: list[str]) -> None:
        from tests.contract.test_contract_residency import with_safety_checker

        pipe = autotune.apply(with_safety_checker(), Plan(offload="model"), workload=workload("sd"))
        pipe.safety_checker = None
        assert run("sd", pipe, batch=2).isfinite().all()
        assert told[0].startswith("safety_checker was taken away: the plan was applied to what is there now")

    def test_a_batch_is_not_split_in_one_that_was_not_seen(self) -> None:
        pipe = optimised(Plan(batch_split=2))
        pipe.unet = build("sd").unet
        with pytest.raises(PlanError) as caught:
            run("sd", pipe, batch=2)
        assert str(caught.value) == (
            f"unet is another UNet2DConditionModel now, and batch_split=2 was proved for the one before; {AGAIN}"
        )
        autotune.restore(pipe)
        assert run("sd", pipe, batch=2).isfinite().all()

    def test_the_same_plan_once_more_takes_the_new_one_in(self) -> None:
        pipe = optimised(Plan(dtype="bf16"))
        pipe.unet = build("sd").unet
        autotune.apply(pipe, Plan(dtype="bf16"), workload=workload("sd"))
        assert pipe.unet.dtype == torch.bfloat16

    def test_a_compiled_wrapper_is_the_same_network(self, told: list[str]) -> None:
        pipe = optimised(Plan(vae_slicing=True))
        pipe.unet = torch.compile(pipe.unet, backend="eager")
        run("sd", pipe, batch=2)
        assert told == []
        torch.compiler.reset()


class TestBigger:
    """A call that is bigger than the planned one."""

    def optimised(self, **asked: Any) -> Any:
        call = {"prompt": "a cat", **call_of("sd")}
        asked = {"workload": call, "profiles": False, "verbose": False, "on_change": "tell"} | asked
        return autotune.optimize(build("sd"), **asked)

    @pytest.mark.parametrize(
        ("more", "size"),
        [
            ({"height": 64}, "32x64"),
            ({"num_images_per_prompt": 3}, "batch 3"),
            ({"prompt": ["a cat", "a dog"]}, "batch 2"),
        ],
    )
    def test_it_is_told_once(self, more: dict[str, Any], size: str, told: list[str]) -> None:
        pipe = self.optimised()
        call = {"prompt": "a cat", **call_of("sd"), **more}
        for _ in range(2):
            pipe(**call, output_type="pt")
        (line,) = told
        assert line.startswith("this call (")
        assert size in line.partition(") is bigger than the one that was planned (32x32, 2 steps): at least ")[0]
        assert line.endswith("; call autotune.optimize(pipe, workload=...) to plan for this size")

    def test_a_smaller_one_is_as_planned(self, told: list[str]) -> None:
        pipe = self.optimised()
        pipe("a cat", **{**call_of("sd"), "height": 16, "width": 16, "num_inference_steps": 1})
        assert told == []

    def test_it_is_refused_where_it_cannot_fit(self) -> None:
        pipe = self.optimised()
        optimized = optimized_of(pipe)
        tight = optimized.story.model_copy(update={"cap_bytes": optimized.story.chosen.estimate.process_bytes + 1000})
        optimized.tell(pipe, tight, optimized.front)
        with pytest.raises(autotune.DoesNotFitError) as caught:
            pipe("a cat", **{**call_of("sd"), "height": 512, "width": 512})
        assert "by the recorded sizes, more than the cap of" in str(caught.value)
        assert str(caught.value).endswith("; call autotune.optimize(pipe, workload=...) with this size")

    def test_it_is_refused_where_one_wants_that(self) -> None:
        pipe = optimised(Plan(), on_change="refuse")
        with pytest.raises(PlanError, match=r"^this call \(64x32, 2 steps, batch 2\) is bigger"):
            pipe("a cat", **{**call_of("sd", batch=2), "width": 64})

    def test_a_call_that_is_wrong_says_so_itself(self) -> None:
        pipe = optimised(Plan(), "flux")
        with pytest.raises(TypeError, match="unexpected keyword argument 'hieght'"):
            pipe("a cat", hieght=32)


class TestQuestions:
    """Questions about an optimised pipeline touch nothing."""

    @pytest.mark.parametrize("name", PLANS)
    def test_nothing_changes_while_they_run(self, name: str) -> None:
        pipe = optimised(PLANS[name])
        run("sd", pipe, batch=2)
        under, journal = Seen(pipe), optimized_of(pipe).journal
        entries = list(journal._entries)
        asked = {"workload": workload("sd"), "profiles": False}
        autotune.explain(pipe, workload=workload("sd"))
        if name in {"lowered", "sequential"}:  # a search takes seconds
            autotune.plan(pipe, **asked)
            autotune.explore(pipe, **asked)
        under.assert_same(pipe)
        assert optimized_of(pipe).journal is journal
        assert journal._entries == entries

    @pytest.mark.parametrize("family", ["sd", "flux", "wan"])
    @pytest.mark.parametrize("name", PLANS)
    def test_the_shadow_is_what_restore_would_give(self, name: str, family: str) -> None:
        plan = PLANS[name]
        if family != "sd":
            plan = plan.model_copy(update={"attention": None, "vae_tiling": None, "channels_last": None})
        pipe = build(family, processors=family == "sd")
        asked = job(family, pipe, batch=2)
        as_it_was = engine.current_plan(pipe)
        autotune.apply(pipe, plan, workload=workload(family))
        shadow = as_found(pipe)
        assert type(shadow) is type(build(family))
        assert job(family, shadow, batch=2).model == asked.model
        assert engine.current_plan(shadow) == as_it_was
        found = {path: (t.dtype, t.shape, t.stride()) for path, t in weights_of(shadow).items()}
        autotune.restore(pipe)
        assert found == {path: (t.dtype, t.shape, t.stride()) for path, t in weights_of(pipe).items()}

    def test_a_pipeline_under_no_plan_is_its_own_shadow(self) -> None:
        pipe = build("sd")
        assert as_found(pipe) is pipe

    def test_what_came_since_is_in_the_shadow(self) -> None:
        pipe = optimised(PLANS["lowered"])
        add_lora(pipe)
        assert any("lora_A" in path for path in weights_of(as_found(pipe)))
        assert "lora_A" not in str(denoiser(build("sd")))

    def test_the_device_is_that_of_the_plan(self) -> None:
        pipe = optimised(Plan())
        optimized_of(pipe).device = CARD
        assert str(pipe._execution_device) == "cuda:0"
