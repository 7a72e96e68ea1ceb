"""Every state that a user's pipeline can be in: it is traced, a plan applies, the image is right, and restore is exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import accelerate
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from diffusers.hooks import apply_group_offloading

import autotune
from autotune.flow.planning import as_it_is, estimates
from autotune.guard import applying
from autotune.records.estimate import Estimate
from autotune.records.model import Model
from autotune.records.plan import Plan
from autotune.upstream import port
from benchmarks.faults.seen import Seen
from tests.contract.families import FAMILIES, build, job, run
from tests.contract.states import CPU, STATES, State, denoiser, denoiser_name, entered, mix, workload


class Scene(NamedTuple):
    """A pipeline in a state that has run once: a first call leaves marks of its own."""

    family: str
    state: State
    pipe: Any
    image: torch.Tensor


@pytest.fixture(params=[(s, f) for s in STATES for f in STATES[s].families], ids=lambda case: "-".join(case))
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    name, family = request.param
    with torch.compiler.set_stance("force_eager"):  # whether it is compiled stands in the state
        pipe = entered(name, family, build)
        yield Scene(family, STATES[name], pipe, run(family, pipe, batch=2))


def test_it_is_traced_and_left_alone(scene: Scene) -> None:
    before = Seen(scene.pipe)
    asked = job(scene.family, scene.pipe, batch=2)
    resident = Plan(offload="none")
    estimate = estimates(asked, [resident])[0] if scene.state.placed else as_it_is(asked).estimate
    assert estimate.notes == ()
    before.assert_same(scene.pipe)
    if scene.state.placed:
        assert (asked.model, estimate) == plain_facts(scene.family)


@cache
def plain_facts(family: str) -> tuple[Model, Estimate]:
    plain = job(family, build(family), batch=2)
    return plain.model, estimates(plain, [Plan()])[0]


def test_plans_apply_and_are_taken_back(scene: Scene) -> None:
    pipe, before = scene.pipe, Seen(scene.pipe)
    for plan in (mix(scene.family), *(Plan(offload=mode) for mode in ("sequential", "group:leaf", "group:block"))):
        if plan.offload in scene.state.refused:
            with pytest.raises(
                autotune.PlanError, match=r"^offload='.*' cannot be applied: \w+ (is compiled|uses weight_norm)"
            ):
                autotune.apply(pipe, plan, workload=workload(scene.family))
        else:
            autotune.apply(pipe, plan, workload=workload(scene.family))
            image = run(scene.family, pipe, batch=2)
            bit_equal = plan.changes.keys() == {"offload"}
            torch.testing.assert_close(image, scene.image, rtol=0, atol=0 if bit_equal else scene.state.tolerance)
            autotune.restore(pipe)
        before.assert_same(pipe)
    assert torch.equal(run(scene.family, pipe, batch=2), scene.image)


@pytest.mark.parametrize("family", ["flux", "sd3", "wan", "ltx"])
def test_ties_that_sequential_offload_broke_are_ties_under_a_plan(family: str) -> None:
    pipe = entered("sequential offload", family, build)
    autotune.apply(pipe, Plan(dtype="bfloat16", offload="none"))
    encoder = next(part for name, part in pipe.components.items() if type(part).__name__ == "T5EncoderModel")
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight


def refused(family: str, pipe: Any, plan: Plan) -> str:
    """The sentence with which the plan is refused; the pipeline is untouched."""
    before = Seen(pipe)
    with pytest.raises(autotune.PlanError) as caught:
        autotune.apply(pipe, plan, workload=workload(family))
    before.assert_same(pipe)
    assert applying.optimized_of(pipe) is None
    return str(caught.value)


class TestWithoutWeights:
    """A pipeline on the meta device."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_it_can_be_planned_and_not_changed(self, family: str) -> None:
        pipe = build(family)
        for part in port.networks(pipe).values():
            part.to("meta")
        assert autotune.explain(pipe, workload=workload(family)).chosen.estimate.notes == ()
        assert refused(family, pipe, mix(family)) == (
            "vae is on the meta device and has no weights; autotune.plan works without them, "
            "to apply a plan load the pipeline first"
        )

    @pytest.mark.slow
    def test_a_search_works_too(self) -> None:
        pipe, plain = build("sd").to("meta"), build("sd")
        asked = {"workload": workload("sd"), "profiles": False}
        assert autotune.plan(pipe, **asked).same_as(autotune.plan(plain, **asked))


class TestDeviceMaps:
    """One device is taken over; several are not ours to gather."""

    @pytest.mark.parametrize(
        "table", [{"unet": 0, "vae": 1}, {"unet": "cuda:0", "vae": "cpu"}, {"": "cpu", "unet": "disk"}]
    )
    def test_several_devices_are_refused(self, table: dict[str, Any]) -> None:
        pipe = build("sd")
        pipe.hf_device_map = table
        names = sorted(f"cuda:{device}" if isinstance(device, int) else device for device in table.values())
        assert refused("sd", pipe, Plan(offload="model")) == (
            f"the pipeline is spread over {', '.join(names)} by a device map, which is not supported; "
            "load it without device_map, or call pipe.reset_device_map() first"
        )

    def test_several_devices_within_one_component_are_refused(self) -> None:
        pipe = build("sd")
        pipe.unet.hf_device_map = {"down_blocks": 0, "up_blocks": 1}
        assert "is spread over cuda:0, cuda:1 by a device map" in refused("sd", pipe, Plan())

    @pytest.mark.parametrize("table", ["cpu", {"unet": 0, "vae": "cuda:0", "text_encoder": torch.device("cuda")}])
    def test_one_device_is_set_aside_with_a_word(self, table: Any, caplog: pytest.LogCaptureFixture) -> None:
        pipe = build("sd")
        pipe.hf_device_map = table
        with caplog.at_level("INFO", logger="autotune"):
            autotune.apply(pipe, Plan(offload="sequential"))
        assert caplog.messages == ["the device map is set aside while the plan is applied; restore brings it back"]
        assert pipe.hf_device_map is None
        assert autotune.restore(pipe).hf_device_map is table


class TestOnDisk:
    """Weights that wait in files."""

    def test_groups_on_disk_are_refused(self, tmp_path: Any) -> None:
        pipe = build("sd")
        apply_group_offloading(
            pipe.unet, CPU, offload_type="block_level", num_blocks_per_group=1, offload_to_disk_path=str(tmp_path)
        )
        image = run("sd", pipe)
        with pytest.raises(
            autotune.PlanError
        ) as caught:  # what the weights hold is not initialised, so nothing compares
            autotune.apply(pipe, Plan())
        assert str(caught.value) == (
            "unet is offloaded to disk, which cannot be taken over; load it without that and give max_ram"
        )
        assert torch.equal(run("sd", pipe), image)

    def test_so_is_what_accelerate_has_on_disk(self, tmp_path: Any) -> None:
        pipe = build("sd")
        accelerate.disk_offload(pipe.unet, str(tmp_path), CPU)
        image = run("sd", pipe)
        assert "unet is offloaded to disk" in refused("sd", pipe, Plan())
        assert torch.equal(run("sd", pipe), image)


IN_PLACE = pytest.param("sd", "in place", marks=pytest.mark.slow)


class TestCompiled:
    """The owner's graphs are used under a plan and after it."""

    @pytest.mark.parametrize(("family", "way"), [IN_PLACE, ("flux", "wrapper"), ("flux", "blocks")])
    def test_it_stays_compiled(self, family: str, way: str) -> None:
        graphs: list[str] = []

        def backend(graph: Any, _: Any) -> Any:
            return lambda *args: (graphs.append(way), graph(*args))[1]

        torch.compiler.reset()
        pipe = build(family)
        part, name = denoiser(pipe), denoiser_name(pipe)
        if way == "in place":
            part.compile(backend=backend, fullgraph=True)
        elif way == "blocks":
            part.compile_repeated_blocks(backend=backend, fullgraph=True)
        else:
            setattr(pipe, name, torch.compile(part, backend=backend))
        image = run(family, pipe, batch=2)
        assert graphs
        autotune.apply(pipe, Plan(batch_split=2, vae_slicing=True, text_encoders="leave"), workload=workload(family))
        graphs.clear()
        torch.testing.assert_close(run(family, pipe, batch=2), image, rtol=0, atol=1e-4)
        assert graphs
        autotune.restore(pipe)
        graphs.clear()
        assert torch.equal(run(family, pipe, batch=2), image)
        assert graphs
        assert port.compiled(pipe) == [name]


class TestSibling:
    """A pipeline that shares its components."""

    PLANS = (Plan(vae_slicing=True, offload="model"), Plan(offload="sequential"), Plan(offload="group:leaf"))

    def sibling(self, pipe: Any) -> Any:
        sibling = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
        sibling.set_progress_bar_config(disable=True)
        return sibling

    def image_of(self, sibling: Any) -> torch.Tensor:
        generator, picture = torch.Generator().manual_seed(0), torch.zeros(1, 3, 32, 32)
        return sibling("a cat", picture, num_inference_steps=2, output_type="pt", generator=generator).images

    @pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.offload)
    def test_made_before(self, plan: Plan) -> None:
        pipe = build("sd")
        sibling = self.sibling(pipe)
        image, before = self.image_of(sibling), Seen(sibling)
        autotune.apply(pipe, plan)
        assert torch.equal(self.image_of(sibling), image)
        with pytest.raises(autotune.PlanError) as caught:
            autotune.apply(sibling, plan)
        assert str(caught.value) == (
            "vae, text_encoder, unet of this StableDiffusionImg2ImgPipeline also belong to a pipeline that is optimised; "
            "call autotune.restore on that one first"
        )
        autotune.restore(pipe)
        before.assert_same(sibling)
        autotune.apply(sibling, plan)
        assert torch.equal(self.image_of(sibling), image)
        autotune.restore(sibling)
        before.assert_same(sibling)

    @pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.offload)
    def test_made_while_the_first_is_optimised(self, plan: Plan) -> None:
        pipe = build("sd")
        image, before = self.image_of(self.sibling(pipe)), Seen(pipe)
        autotune.apply(pipe, plan)
        sibling = self.sibling(pipe)
        assert type(sibling) is StableDiffusionImg2ImgPipeline
        assert torch.equal(self.image_of(sibling), image)
        with pytest.raises(autotune.PlanError, match=r"also belongs? to a pipeline that is optimised"):
            autotune.optimize(sibling, workload={"prompt": "a cat", "image": torch.zeros(1, 3, 32, 32)}, profiles=False)
        autotune.restore(pipe)
        before.assert_same(pipe)
        autotune.apply(sibling, plan)
        assert torch.equal(self.image_of(sibling), image)


class TestInferenceMode:
    """Whoever calls under `torch.inference_mode()` gets ordinary weights back."""

    PLANS = (
        Plan(dtype="bfloat16", vae_slicing=True),
        Plan(offload="sequential"),
        Plan(offload="group:block", feed_forward_chunks=2),
        Plan(batch_split=2, text_encoders="leave"),
    )

    @pytest.mark.parametrize("inside", ["apply", "restore", "everything"])
    @pytest.mark.parametrize("plan", PLANS, ids=lambda plan: "-".join(plan.changes))
    def test_modes_may_differ(self, plan: Plan, inside: str) -> None:
        family, pipe = "sd", build("sd")
        image, before = run(family, pipe, batch=2), Seen(pipe)
        with torch.inference_mode(inside in {"apply", "everything"}):
            autotune.apply(pipe, plan, workload=workload(family))
            run(family, pipe, batch=2)
        during = run(family, pipe, batch=2)
        with torch.inference_mode(inside in {"restore", "everything"}):
            autotune.restore(pipe)
        assert (during - image).abs().max() <= (0.05 if plan.dtype is not None else 1e-4)
        before.assert_same(pipe)
        assert not any(tensor.is_inference() for tensor in before.weights.values())
        assert torch.equal(run(family, pipe, batch=2), image)

    def test_questions_may_be_asked_inside(self) -> None:
        pipe = build("sd")
        before = Seen(pipe)
        with torch.inference_mode():
            inside = autotune.explain(pipe, workload=workload("sd")).chosen
        before.assert_same(pipe)
        assert inside == autotune.explain(pipe, workload=workload("sd")).chosen


class TestOptimisedAlready:
    """What comes on top of a plan."""

    @pytest.mark.parametrize("family", [pytest.param("sd", marks=pytest.mark.slow), "flux"])
    def test_questions_leave_it_optimised(self, family: str) -> None:
        pipe, asked, plan = build(family), {"workload": workload(family)}, mix(family)
        run(family, pipe, batch=2)
        before = Seen(pipe)
        autotune.apply(pipe, plan, **asked)
        image = run(family, pipe, batch=2)
        planned = autotune.plan(pipe, **asked, profiles=False)
        assert autotune.explain(pipe, **asked).chosen.plan.same_as(plan)
        assert applying.optimized_of(pipe).plan is plan
        assert torch.equal(run(family, pipe, batch=2), image)
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert planned.same_as(autotune.plan(pipe, **asked, profiles=False))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_another_plan_takes_its_place(self, family: str) -> None:
        pipe = build(family)
        image, before = run(family, pipe, batch=2), Seen(pipe)
        for plan in (mix(family), Plan(offload="group:leaf"), Plan(dtype="bfloat16"), Plan(offload="sequential")):
            autotune.apply(pipe, plan, workload=workload(family))
            assert applying.optimized_of(pipe).plan is plan
        assert torch.equal(run(family, pipe, batch=2), image)
        autotune.restore(pipe)
        before.assert_same(pipe)

    def test_twice_is_once(self) -> None:
        pipe, asked = build("sd"), {"workload": workload("sd"), "profiles": False}
        before = Seen(pipe)
        autotune.optimize(pipe, **asked)
        first, under = applying.optimized_of(pipe).plan, Seen(pipe)
        autotune.optimize(pipe, **asked)
        assert applying.optimized_of(pipe).plan.same_as(first)
        under.assert_same(pipe)
        autotune.restore(pipe)
        before.assert_same(pipe)
        autotune.restore(pipe)
        before.assert_same(pipe)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pipeline_that_lies_on_the_card_lies_there_again(family: str) -> None:
    pipe = build(family).to("cuda")
    image, before = run(family, pipe, batch=2), Seen(pipe)
    for plan in (
        mix(family),
        Plan(offload="sequential"),
        Plan(offload="group:block+stream"),
        Plan(text_encoders="cpu"),
    ):
        autotune.apply(pipe, plan, workload=workload(family))
        torch.testing.assert_close(run(family, pipe, batch=2), image, rtol=0, atol=1e-3)
        autotune.restore(pipe)
        before.assert_same(pipe)
        assert {tensor.device.type for tensor in Seen(pipe).weights.values()} == {"cuda"}
    torch.testing.assert_close(run(family, pipe, batch=2), image, rtol=0, atol=0)
