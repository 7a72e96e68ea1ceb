"""What every lever keeps, on every pipeline: it can be taken back to the bit, pulled twice, and fails whole."""

from __future__ import annotations

from typing import Any

import accelerate
import pytest
import torch

from autotune.errors import PlanError
from autotune.guard import applying
from autotune.levers.base import Lever
from autotune.levers.engine import ORDER
from autotune.records.plan import LEVERS, OFF, Plan
from autotune.records.values import typed_all
from autotune.upstream import port
from tests.contract.families import CARD, CPU, FAMILIES, TILES, build, job, pulled, run, subject_of, values_of

HALF_TOLERANCE = 0.05  # of images between 0 and 1; five times what is seen with these weights
EXACT_TOLERANCE = 1e-4


def other_values(lever: Lever, family: str) -> tuple[Any, ...]:
    """All but as found."""
    others = {"tf32": (True, False)}.get(lever.name) or values_of(family, batch=2)[lever.name]
    return tuple(value for value in others if value is not None)


class Snapshot:
    """Everything a lever may touch: the objects themselves, and a copy of what tensors hold."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = {name: value for name, value in vars(pipe).items() if name != "_autotune"}
        self.modules = [
            {**vars(m), "_parameters": dict(m._parameters), "_buffers": dict(m._buffers), "_modules": dict(m._modules)}
            for m in modules(pipe)
        ]
        self.tensors = {id(t): (t, t.detach().clone()) for m in modules(pipe) for t in tensors(m) if not t.is_meta}
        self.strides = {key: tensor.stride() for key, (tensor, _) in self.tensors.items()}
        self.precision = torch.get_float32_matmul_precision()

    def assert_same(self, pipe: Any) -> None:
        now = Snapshot(pipe)
        assert now.pipe.keys() == self.pipe.keys()
        for before, after in zip(self.modules, now.modules, strict=True):
            assert after.keys() == before.keys()
            for name, value in before.items():
                assert _same(after[name], value), name
        assert now.tensors.keys() == self.tensors.keys()
        assert now.strides == self.strides
        for tensor, data in self.tensors.values():
            assert torch.equal(tensor, data)
            assert tensor.dtype == data.dtype
        assert now.precision == self.precision


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(one[key] is other[key] for key in one)
    return one is other or (not isinstance(one, torch.Tensor) and one == other)


def modules(pipe: Any) -> list[torch.nn.Module]:
    return [module for part in port.networks(pipe).values() for module in part.modules()]


def tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [t for table in (module._parameters, module._buffers) for t in table.values() if t is not None]


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


class TestEachLever:
    """Each lever by itself."""

    @pytest.fixture(params=ORDER, ids=lambda lever: lever.name)
    def lever(self, request):
        return request.param

    def test_undo_is_identity(self, lever, family):
        pipe = build(family, processors=True)
        before = Snapshot(pipe)
        for value in other_values(lever, family):
            journal = pulled(lever, subject_of(lever, family, pipe), value)
            journal.undo()
            before.assert_same(pipe)

    def test_pulled_twice_and_taken_back_twice(self, lever, family):
        pipe = build(family, processors=True)
        subject, value = subject_of(lever, family, pipe), other_values(lever, family)[0]
        before = Snapshot(pipe)
        first = pulled(lever, subject, value)
        second = pulled(lever, subject, value)
        second.undo()
        first.undo()
        before.assert_same(pipe)

    def test_its_present_value_may_stay(self, lever, family):
        pipe = build(family)
        subject = subject_of(lever, family, pipe)
        present, domain = lever.read(pipe), lever.domain(subject)
        assert present == OFF.get(lever.name)
        if present is not None:
            lever.check(subject, present)
        assert domain.values[0] is None
        assert present not in domain.values[1:]

    def test_its_domain_can_be_applied(self, lever, family):
        pipe = build(family, processors=True)
        subject = subject_of(lever, family, pipe)
        domain = lever.domain(subject)
        assert domain.reason
        for value in domain.values[1:]:
            lever.check(subject, value)


def test_what_tiling_adds_to_a_vae_goes_again():
    pipe, lever = build("sd"), next(lever for lever in ORDER if lever.name == "vae_tiling")
    switch_on = pipe.vae.enable_tiling

    def enable_tiling():
        switch_on()
        pipe.vae.tile_overlap_extra = 8

    pipe.vae.enable_tiling = enable_tiling
    before = Snapshot(pipe)
    journal = pulled(lever, subject_of(lever, "sd", pipe), 32)
    assert pipe.vae.tile_overlap_extra == 8
    journal.undo()
    before.assert_same(pipe)


def test_tied_weights_stay_tied_when_they_are_lowered():
    pipe, lever = build("flux"), next(lever for lever in ORDER if lever.name == "dtype")
    text_encoder = pipe.text_encoder_2
    journal = pulled(lever, subject_of(lever, "flux", pipe), "bfloat16")
    assert text_encoder.shared.weight.dtype == torch.bfloat16
    assert text_encoder.shared.weight is text_encoder.encoder.embed_tokens.weight
    journal.undo()
    assert text_encoder.shared.weight is text_encoder.encoder.embed_tokens.weight


def test_every_field_of_a_plan_has_one_lever():
    assert sorted(lever.name for lever in ORDER) == sorted(LEVERS)


class TestEngine:
    """All levers together, through the engine."""

    def plan(self, family, **changes):
        values = {"dtype": "bfloat16", "attention": "sdpa", "vae_slicing": True, "vae_tiling": TILES[family]}
        return Plan(**{**values, "offload": "model", **changes})

    def test_restore_is_identity(self, family):
        pipe = build(family, processors=True)
        run(family, pipe)
        before = Snapshot(pipe)
        for offload in ("model", "sequential"):
            call = job(family, pipe).largest
            applying.apply(pipe, self.plan(family, offload=offload), device=CPU, workload=call)
            run(family, pipe)
            assert applying.restore(pipe) is True
            assert applying.restore(pipe) is False
            before.assert_same(pipe)

    def test_twice_is_once(self, family):
        pipe = build(family, processors=True)
        before, call = Snapshot(pipe), job(family, pipe).largest
        handle = applying.apply(pipe, self.plan(family), device=CPU, workload=call)
        once = Snapshot(pipe)
        assert applying.apply(pipe, self.plan(family, id="p9"), device=CPU, workload=call) is handle
        once.assert_same(pipe)
        applying.restore(pipe)
        before.assert_same(pipe)

    def test_another_plan_replaces_it(self, family):
        pipe = build(family, processors=True)
        before, call = Snapshot(pipe), job(family, pipe).largest
        applying.apply(pipe, self.plan(family), device=CPU, workload=call)
        applying.apply(pipe, Plan(attention="sdpa"), device=CPU, workload=call)
        assert applying.optimized_of(pipe).plan.changes == {"attention": "sdpa"}
        assert port.offloaded(pipe) == "none"
        assert all(t.dtype != torch.bfloat16 for module in modules(pipe) for t in tensors(module))
        applying.restore(pipe)
        before.assert_same(pipe)

    def test_a_step_that_fails_takes_the_others_back(self, family):
        pipe = build(family, processors=True)

        def no_room(**_):
            raise RuntimeError("no room on the card")

        pipe.enable_model_cpu_offload = no_room
        before, plan = Snapshot(pipe), self.plan(family)
        with pytest.raises(PlanError) as caught:
            applying.apply(pipe, plan, device=CPU, workload=job(family, pipe).largest)
        assert (
            str(caught.value) == f"applying {typed_all(plan.changes)} failed and was rolled back: no room on the card"
        )
        assert applying.optimized_of(pipe) is None
        before.assert_same(pipe)

    def test_an_interruption_takes_the_others_back(self, family):
        pipe = build(family, processors=True)

        def interrupted(**_):
            raise KeyboardInterrupt

        pipe.enable_model_cpu_offload = interrupted
        before = Snapshot(pipe)
        with pytest.raises(KeyboardInterrupt):
            applying.apply(pipe, self.plan(family), device=CPU, workload=job(family, pipe).largest)
        before.assert_same(pipe)


class TestOutputs:
    """What a lever may change of the image."""

    @pytest.fixture
    def baseline(self, family):
        pipe = build(family, processors=True)
        return pipe, run(family, pipe, batch=2)

    def changed(self, family, pipe, plan):
        applying.apply(pipe, plan, device=CPU, workload=job(family, pipe, batch=2).largest)
        return run(family, pipe, batch=2)

    def test_exact_levers_change_nothing(self, family, baseline):
        pipe, image = baseline
        for plan in (
            Plan(attention="sdpa"),
            Plan(vae_slicing=True),
            Plan(offload="model"),
            Plan(offload="sequential"),
            Plan(attention="sdpa", vae_slicing=True, offload="sequential"),
        ):
            assert plan.lane == "exact"
            torch.testing.assert_close(self.changed(family, pipe, plan), image, rtol=0, atol=EXACT_TOLERANCE)
        applying.restore(pipe)
        torch.testing.assert_close(run(family, pipe, batch=2), image, rtol=0, atol=0)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_near(self, family, baseline, dtype):
        pipe, image = baseline
        lowered = self.changed(family, pipe, Plan(dtype=dtype))
        assert {p.dtype for p in pipe.vae.parameters()} == {getattr(torch, dtype)}
        assert lowered.isfinite().all()
        assert (lowered.float() - image).abs().mean() < HALF_TOLERANCE
        applying.restore(pipe)
        torch.testing.assert_close(run(family, pipe, batch=2), image, rtol=0, atol=0)

    def test_tiles_make_a_whole_image(self, family, baseline):
        pipe, image = baseline
        tiled = self.changed(family, pipe, Plan(vae_tiling=TILES[family]))
        assert pipe.vae.use_tiling
        assert tiled.shape == image.shape
        assert tiled.isfinite().all()
        assert not torch.equal(tiled, image)


class TestTakenOver:
    """A pipeline that its owner had offloaded."""

    @pytest.mark.parametrize("mode", ["model", "sequential"])
    def test_offload_is_taken_over_and_given_back(self, family, mode):
        pipe = build(family)
        data = {
            f"{name}.{path}": tensor.clone()
            for name, part in port.networks(pipe).items()
            for path, tensor in part.state_dict().items()
        }
        image = run(family, pipe)
        if mode == "model":
            pipe.enable_model_cpu_offload(device="cpu")
        else:
            for part in port.networks(pipe).values():
                accelerate.cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)
        applying.apply(pipe, Plan(attention="sdpa", offload="none"), device=CPU, workload=job(family, pipe).largest)
        assert port.offloaded(pipe) == "none"
        assert not any(hasattr(module, "_hf_hook") for module in modules(pipe))
        for name, part in port.networks(pipe).items():
            for path, tensor in part.state_dict().items():
                assert torch.equal(tensor, data[f"{name}.{path}"])
        applying.restore(pipe)
        assert port.offloaded(pipe) == mode
        torch.testing.assert_close(run(family, pipe), image, rtol=0, atol=0)


class TestRefusals:
    """Values that a pipeline cannot take, in words."""

    def refused(self, pipe, plan, device=CPU):
        before = Snapshot(pipe)
        with pytest.raises(PlanError) as caught:
            applying.apply(pipe, plan, device=device, workload=job("sd", build("sd")).largest)
        before.assert_same(pipe)
        return str(caught.value)

    def test_precision_is_of_networks_that_are_there_and_not_quantised(self):
        pipe = build("sd")
        names = "it has vae, text_encoder, unet; nearest: unet"
        assert self.refused(pipe, Plan(dtype="unt=fp16")) == (
            f"dtype='as_is, unt=float16' names unt, which StableDiffusionPipeline has not; {names}"
        )
        pipe.unet.is_quantized = True
        assert self.refused(pipe, Plan(dtype="unet=fp16")) == (
            "dtype='as_is, unet=float16' cannot be applied: the weights of unet are quantised; what works is unet=as_is"
        )

    def test_tf32_needs_tensor_cores(self):
        old = CARD.model_copy(update={"name": "Tesla T4", "compute_capability": (7, 5), "tf32_flops_per_s": None})
        reason = "has no TF32 (compute capability 8.0 and later); what works is False"
        assert self.refused(build("sd"), Plan(tf32=True)) == f"tf32=True cannot be applied: CPU {reason}"
        assert self.refused(build("sd"), Plan(tf32=True), old) == f"tf32=True cannot be applied: Tesla T4 {reason}"

    def test_slices_and_tiles_need_a_vae_that_can(self):
        pipe = build("sd")
        pipe.vae = pipe.unet
        assert self.refused(pipe, Plan(vae_slicing=True)) == (
            "vae_slicing=True cannot be applied: the VAE's class cannot slice; what works is False"
        )
        assert self.refused(pipe, Plan(vae_tiling=32)) == (
            "vae_tiling=32 cannot be applied: the VAE's class cannot tile, or not with a chosen size; what works is False"
        )

    @pytest.mark.parametrize("edge", [4, 30])
    def test_a_tile_is_made_of_whole_latents(self, edge):
        assert self.refused(build("sd"), Plan(vae_tiling=edge)) == (
            f"vae_tiling={edge} cannot be applied: a tile's edge is a multiple of 8 pixels for this VAE, for example 64"
        )

    def test_model_offload_needs_an_order(self):
        pipe = build("sd")
        pipe.model_cpu_offload_seq = None
        assert self.refused(pipe, Plan(offload="model")) == (
            "offload='model' cannot be applied: StableDiffusionPipeline declares no order for model offload; "
            "what works is 'none'"
        )

    def test_sequential_offload_cannot_empty_weight_norm(self):
        pipe = build("sd")
        conv = pipe.vae.decoder.conv_out
        conv.weight_g = torch.nn.Parameter(torch.ones(3))
        assert self.refused(pipe, Plan(offload="sequential")) == (
            "offload='sequential' cannot be applied: vae uses weight_norm, which sequential offload cannot empty; "
            "what works is 'none'"
        )

    def test_several_devices_are_not_taken_over(self):
        pipe = build("sd")
        pipe.hf_device_map = {"unet": "cuda:0", "vae": "cuda:1"}
        assert self.refused(pipe, Plan()) == (
            "the pipeline is spread over cuda:0, cuda:1 by a device map, which is not supported; "
            "load it without device_map, or call pipe.reset_device_map() first"
        )
