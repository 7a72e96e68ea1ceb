"""Weights that come and go: LoRAs and new words, loaded, fused, unfused and unloaded before and after a plan is applied."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

import autotune
from autotune.records.plan import Plan
from autotune.upstream import port
from benchmarks.faults.seen import Seen
from benchmarks.tiny import generate
from tests.contract.families import build, call_of, run
from tests.contract.states import STATES, add_lora, add_token, denoiser, denoiser_name, lora_file, workload

LOWERED = 1e-3  # of images between 0 and 1, on average: what comes while weights are lowered comes lowered
PLANS = {
    "resident": Plan(batch_split=2, vae_slicing=True),
    "lowered": Plan(dtype="bfloat16"),
    "model": Plan(offload="model"),
    "leaf": Plan(offload="group:leaf", feed_forward_chunks=2),
    "block": Plan(offload="group:block"),
    "lowered block": Plan(dtype="bfloat16", offload="group:block"),
    "sequential": Plan(offload="sequential"),
    "leave": Plan(text_encoders="leave"),
}
REACHABLE = [name for name in PLANS if name != "sequential"]
"""Where weights can be reached: diffusers takes sequential offload off to load, and cannot put it on without a card."""


def assert_during(plan: Plan, image: torch.Tensor, wanted: torch.Tensor) -> None:
    """What an image must be like while the plan is applied."""
    if plan.dtype is not None:
        assert (image.float() - wanted).abs().mean() < 10 * LOWERED
    else:
        torch.testing.assert_close(image, wanted, rtol=0, atol=1e-4)


def assert_after(plan: Plan, image: torch.Tensor, wanted: torch.Tensor) -> None:
    """And after it, where something came meanwhile."""
    if plan.dtype is not None:
        assert (image - wanted).abs().mean() < LOWERED
    else:
        assert torch.equal(image, wanted)


def unfuse(pipe: Any) -> None:
    pipe.unfuse_lora(components=[denoiser_name(pipe)])


def fuse(pipe: Any, scale: float = 1.0) -> None:
    pipe.fuse_lora(components=[denoiser_name(pipe)], lora_scale=scale)


def fused_into(pipe: Any) -> list[list[str]]:
    """The adapters that layers say are in their weights, each combination once."""
    found = [layer.merged_adapters for layer in denoiser(pipe).modules() if hasattr(layer, "merged_adapters")]
    return [list(names) for names in dict.fromkeys(tuple(names) for names in found)]


def styled(family: str, then: Callable[[Any], Any] = lambda pipe: None) -> Any:
    """A pipeline with the LoRA."""
    pipe = build(family)
    add_lora(pipe)
    then(pipe)
    return pipe


@cache
def image_of(family: str, then: Callable[[Any], Any] | None = None) -> torch.Tensor:
    """What a pipeline gives that was never optimised; with `then` it has the LoRA."""
    return run(family, build(family) if then is None else styled(family, then))


def loaded(pipe: Any) -> None:
    """Nothing more than the LoRA."""


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    """Every parameter by the name that it has without a LoRA, LoRA's own left out."""
    named = {
        f"{part}.{path.replace('base_layer.', '')}": tensor
        for part, network in port.networks(pipe).items()
        for path, tensor in network.named_parameters()
    }
    return {path: tensor for path, tensor in named.items() if ".lora_" not in path}


class Unchanged:
    """The very parameters of a pipeline and what they hold."""

    def __init__(self, pipe: Any) -> None:
        self.tensors = weights(pipe)
        self.data = {path: tensor.detach().clone() for path, tensor in self.tensors.items()}

    def assert_same(self, pipe: Any, *, but: str = "") -> None:
        now = weights(pipe)
        assert now.keys() == self.tensors.keys()
        for path, tensor in self.tensors.items():
            if not but or but not in path:
                assert now[path] is tensor, path
                assert torch.equal(tensor, self.data[path]), path


@pytest.fixture(params=["sd", "flux", "wan"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class TestLora:
    """A LoRA on the denoiser."""

    @pytest.mark.parametrize("plan", [PLANS["lowered"], PLANS["sequential"]], ids=lambda plan: "-".join(plan.changes))
    def test_there_before(self, family: str, plan: Plan) -> None:
        pipe = styled(family)
        run(family, pipe)
        before = Seen(pipe)
        autotune.apply(pipe, plan, workload=workload(family))
        assert_during(plan, run(family, pipe), image_of(family, loaded))
        autotune.restore(pipe)
        before.assert_same(pipe)

    @pytest.mark.parametrize("name", REACHABLE)
    def test_added_after(self, family: str, name: str) -> None:
        pipe, plan = build(family), PLANS[name]
        before = Unchanged(pipe)
        autotune.apply(pipe, plan, workload=workload(family))
        add_lora(pipe)
        assert_during(plan, run(family, pipe), image_of(family, loaded))
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert {parameter.dtype for parameter in denoiser(pipe).parameters()} == {torch.float32}
        assert_after(plan, run(family, pipe), image_of(family, loaded))

    @pytest.mark.parametrize("name", ["resident", "lowered", "leaf", "block"])
    def test_loaded_by_the_pipeline_after(self, family: str, name: str) -> None:
        pipe, plan = build(family), PLANS[name]
        before = Unchanged(pipe)
        autotune.apply(pipe, plan, workload=workload(family))
        pipe.load_lora_weights(lora_file(build(family)), adapter_name="style")
        assert_during(plan, run(family, pipe), image_of(family, loaded))
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert_after(plan, run(family, pipe), image_of(family, loaded))

    @pytest.mark.parametrize("name", PLANS)
    def test_unloaded_after(self, family: str, name: str) -> None:
        pipe, plan = styled(family), PLANS[name]
        before = Unchanged(pipe)
        autotune.apply(pipe, plan, workload=workload(family))
        denoiser(pipe).unload_lora()
        assert_during(plan, run(family, pipe), image_of(family))
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert torch.equal(run(family, pipe), image_of(family))

    @pytest.mark.parametrize("name", PLANS)
    def test_fused_after(self, family: str, name: str) -> None:
        pipe, plan = styled(family), PLANS[name]
        autotune.apply(pipe, plan, workload=workload(family))
        fuse(pipe)
        if plan.offload != "sequential":  # there is nothing to fuse into while weights are away
            assert_during(plan, run(family, pipe), image_of(family, fuse))
        autotune.restore(pipe)
        torch.testing.assert_close(run(family, pipe), image_of(family, fuse), rtol=0, atol=1e-5)
        assert fused_into(pipe) == [["style"]]
        unfuse(pipe)
        torch.testing.assert_close(run(family, pipe), image_of(family, loaded), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", REACHABLE)
    def test_fused_at_half_strength_after(self, name: str) -> None:
        pipe = styled("sd")
        autotune.apply(pipe, PLANS[name], workload=workload("sd"))
        fuse(pipe, 0.5)
        autotune.restore(pipe)
        torch.testing.assert_close(run("sd", pipe), image_of("sd", half), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", PLANS)
    def test_unfused_after(self, family: str, name: str) -> None:
        pipe, plan = styled(family, fuse), PLANS[name]
        autotune.apply(pipe, plan, workload=workload(family))
        unfuse(pipe)
        if plan.offload != "sequential":
            assert_during(plan, run(family, pipe), image_of(family, loaded))
        autotune.restore(pipe)
        torch.testing.assert_close(run(family, pipe), image_of(family, loaded), rtol=0, atol=1e-5)
        assert fused_into(pipe) == [[]]
        fuse(pipe)
        torch.testing.assert_close(run(family, pipe), image_of(family, fuse), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", REACHABLE)
    @pytest.mark.parametrize("fused", [True, False], ids=["unfused", "fused"])
    def test_changed_and_unloaded_after(self, family: str, name: str, *, fused: bool) -> None:
        """What is no longer in the network when the plan goes had left its mark on the weights all the same."""
        pipe, plan = styled(family, fuse) if fused else styled(family), PLANS[name]
        autotune.apply(pipe, plan, workload=workload(family))
        (unfuse if fused else fuse)(pipe)
        denoiser(pipe).unload_lora()
        wanted = image_of(family) if fused else image_of(family, fuse)
        assert_during(plan, run(family, pipe), wanted)
        autotune.restore(pipe)
        torch.testing.assert_close(run(family, pipe), wanted, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("name", ["resident", "lowered", "sequential"])
    def test_weaker_after(self, family: str, name: str) -> None:
        pipe = styled(family)
        before = Unchanged(pipe)
        autotune.apply(pipe, PLANS[name], workload=workload(family))
        denoiser(pipe).set_adapters("style", 0.5)
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert torch.equal(run(family, pipe), image_of(family, weaker))

    @pytest.mark.parametrize("state", ["sequential offload", "groups by leaf", "groups by block"])
    def test_what_the_owner_had_offloaded_takes_in_a_lora_that_came_meanwhile(self, family: str, state: str) -> None:
        pipe = build(family)
        STATES[state].enter(pipe)
        reachable = "none" if state == "sequential offload" else None
        plan = PLANS["resident"].model_copy(update={"offload": reachable})
        autotune.apply(pipe, plan, workload=workload(family))
        add_lora(pipe)
        autotune.restore(pipe)
        assert torch.equal(run(family, pipe), image_of(family, loaded))
        away = [
            module for path, module in denoiser(pipe).named_modules() if path.endswith(("lora_A.style", "lora_B.style"))
        ]
        assert away
        if state != "groups by block":  # a block's own hook brings what is in it
            assert all(hasattr(module, "_hf_hook") or hasattr(module, "_diffusers_hook") for module in away)


def half(pipe: Any) -> None:
    fuse(pipe, 0.5)


def weaker(pipe: Any) -> None:
    denoiser(pipe).set_adapters("style", 0.5)


class TestNewWord:
    """Textual inversion: the text encoder's embedding gets a row, or loses it."""

    EMBEDDING = "text_encoder.embeddings.token_embedding"

    def image(self, pipe: Any, prompt: str = "a <toy>") -> torch.Tensor:
        return generate("sd", pipe, **{**call_of("sd"), "prompt": prompt})

    def embedding(self, pipe: Any) -> torch.Tensor:
        return pipe.text_encoder.get_input_embeddings().weight

    def reference(self) -> Any:
        pipe = build("sd")
        add_token(pipe)
        return pipe

    @pytest.mark.parametrize("name", PLANS)
    def test_there_before(self, name: str) -> None:
        pipe, plan = self.reference(), PLANS[name]
        image, before = self.image(pipe), Seen(pipe)
        autotune.apply(pipe, plan, workload=workload("sd"))
        assert_during(plan, self.image(pipe), image)
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert torch.equal(self.image(pipe), image)

    @pytest.mark.parametrize("name", REACHABLE)
    def test_loaded_after(self, name: str) -> None:
        pipe, plan, reference = build("sd"), PLANS[name], self.reference()
        before = Unchanged(pipe)
        autotune.apply(pipe, plan, workload=workload("sd"))
        add_token(pipe)
        assert_during(plan, self.image(pipe), self.image(reference))
        autotune.restore(pipe)
        before.assert_same(pipe, but="embed")
        assert_after(plan, self.image(pipe), self.image(reference))
        now, wanted = self.embedding(pipe), self.embedding(reference)
        assert now.dtype == torch.float32
        assert torch.equal(now[:-1], wanted[:-1])
        torch.testing.assert_close(now[-1], wanted[-1], rtol=0.01 if plan.dtype is not None else 0, atol=0)

    @pytest.mark.parametrize("name", REACHABLE)
    def test_unloaded_after(self, name: str) -> None:
        pipe, plan, reference = self.reference(), PLANS[name], build("sd")
        image = self.image(reference, "a toy")
        autotune.apply(pipe, plan, workload=workload("sd"))
        pipe.unload_textual_inversion()
        assert_during(plan, self.image(pipe, "a toy"), image)
        autotune.restore(pipe)
        assert torch.equal(self.image(pipe, "a toy"), image)
        assert torch.equal(self.embedding(pipe), self.embedding(reference)[: len(self.embedding(pipe))])


@pytest.mark.parametrize("name", PLANS)
def test_a_module_that_the_owner_exchanged_meanwhile_stays(name: str) -> None:
    pipe, other = build("sd"), build("sd")
    norm = other.unet.conv_norm_out
    torch.nn.init.constant_(norm.weight, 0.5)
    autotune.apply(pipe, PLANS[name], workload=workload("sd"))
    pipe.unet.conv_norm_out = norm.to(pipe.unet.dtype)
    autotune.restore(pipe)
    assert pipe.unet.conv_norm_out is norm
    assert norm.weight.dtype == torch.float32
    assert torch.equal(run("sd", pipe), run("sd", other))


@pytest.mark.parametrize("name", REACHABLE)
def test_a_weight_that_the_owner_exchanged_meanwhile_stays(name: str) -> None:
    pipe = build("sd")
    autotune.apply(pipe, PLANS[name], workload=workload("sd"))
    norm = pipe.unet.conv_norm_out
    weight = torch.nn.Parameter(torch.full_like(norm.weight, 0.5))
    norm.weight = weight
    autotune.restore(pipe)
    assert norm.weight is weight
    assert torch.equal(weight, torch.full((32,), 0.5))
