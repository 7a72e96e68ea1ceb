"""Canaries: every private name of diffusers, accelerate, transformers and torch that we lean on still means what it meant.

A failure here says what changed upstream; what relies on it is in `levers/_upstream.py` or `trace/twin.py`.
"""

from __future__ import annotations

import inspect

import accelerate
import pytest
import torch
from accelerate.hooks import AlignDevicesHook, CpuOffload, SequentialHook, add_hook_to_module, remove_hook_from_module
from diffusers import DiffusionPipeline, ModelMixin, StableDiffusionPipeline
from diffusers.models import attention_processor
from transformers import PreTrainedModel

from autotune.levers import _upstream
from autotune.levers.attention import _FUSED
from autotune.trace.twin import _HOOK_ATTRIBUTES, networks
from tests.contract.families import FAMILIES, build

CPU = torch.device("cpu")


def test_pipelines_say_what_offload_leaves_out():
    assert DiffusionPipeline._exclude_from_cpu_offload == [], "diffusers: DiffusionPipeline._exclude_from_cpu_offload"
    assert StableDiffusionPipeline._exclude_from_cpu_offload == ["safety_checker"], "diffusers: Stable Diffusion's own"
    assert _upstream.excluded_from_offload(build("sd")) == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_pipelines_say_in_which_order_offload_swaps(family):
    pipe = build(family)
    order = pipe.model_cpu_offload_seq.split("->")
    assert set(networks(pipe)) <= set(order), "diffusers: model_cpu_offload_seq no longer names every component"


def test_model_offload_leaves_its_marks_on_the_pipeline():
    pipe = build("sd")
    pipe.enable_model_cpu_offload(device=CPU)
    for name in ("_all_hooks", "_offload_device", "_offload_gpu_id"):
        assert name in vars(pipe), f"diffusers: enable_model_cpu_offload no longer sets {name}"
    assert isinstance(pipe.unet._hf_hook, CpuOffload), "accelerate: cpu_offload_with_hook hangs on another class"
    assert _upstream.placement(pipe) == "model"
    assert _upstream.placement_device(pipe) == torch.device("cpu:0")
    _upstream.forget_hooks(pipe)
    assert _upstream.placement(pipe) == "none"
    assert _upstream.placement_device(pipe) is None


def test_sequential_offload_leaves_its_marks_on_modules():
    pipe = build("sd")
    accelerate.cpu_offload(pipe.unet, CPU)
    hook = pipe.unet.conv_in._hf_hook
    assert isinstance(hook, AlignDevicesHook), "accelerate: cpu_offload hangs another hook on modules"
    assert hook.offload is True, "accelerate: AlignDevicesHook.offload is gone"
    assert hook.weights_map["weight"].device == CPU, "accelerate: AlignDevicesHook.weights_map is gone"
    assert pipe.unet.conv_in.weight.is_meta, "accelerate: offloaded weights are no longer on meta"
    assert _upstream.is_sequential(pipe.unet)
    assert not _upstream.is_sequential(pipe.vae)
    assert _upstream.placement(pipe) == "sequential"


def test_a_hook_may_hold_several():
    both = SequentialHook(CpuOffload(CPU), AlignDevicesHook(CPU, offload=True))
    assert len(both.hooks) == 2, "accelerate: SequentialHook.hooks is gone"
    module = add_hook_to_module(torch.nn.Linear(1, 1), CpuOffload(CPU))
    module._hf_hook = both
    assert _upstream.is_sequential(module)


def test_group_offload_leaves_its_marks_on_modules():
    pipe = build("flux")
    pipe.transformer.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")
    registries = [m._diffusers_hook for m in pipe.transformer.modules() if hasattr(m, "_diffusers_hook")]
    assert registries, "diffusers: HookRegistry no longer hangs on modules as _diffusers_hook"
    assert any("group_offloading" in registry.hooks for registry in registries), "diffusers: group offload's hook name"
    assert _upstream.placement(pipe) == "group"


def test_a_removed_hook_leaves_the_bound_forward_behind():
    module = torch.nn.Linear(1, 1)
    remove_hook_from_module(add_hook_to_module(module, CpuOffload(CPU)))
    left = vars(module).get("forward")
    assert left is not None, "accelerate: remove_hook_from_module cleans up; _upstream.forget_hooks need not"
    assert left.__self__ is module
    assert left.__func__ is torch.nn.Linear.forward


def test_the_twin_knows_every_attribute_that_hooks_hang_on_modules():
    hooked, plain = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    add_hook_to_module(hooked, CpuOffload(CPU))
    pipe, other = build("flux"), build("flux")
    pipe.transformer.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")
    new = {*vars(hooked)} - {*vars(plain)}
    for module, bare in zip(pipe.transformer.modules(), other.transformer.modules(), strict=True):
        new |= {*vars(module)} - {*vars(bare)}
    assert new == {*_HOOK_ATTRIBUTES, "forward"}, "accelerate or diffusers: hooks hang something else on modules"


def test_a_compiled_module_holds_the_original():
    module = torch.nn.Linear(1, 1)
    compiled = torch.compile(module, backend="eager")
    assert compiled._orig_mod is module, "torch: OptimizedModule._orig_mod is gone"


def test_model_classes_say_what_they_keep_in_fp32():
    assert hasattr(ModelMixin, "_keep_in_fp32_modules"), "diffusers: ModelMixin._keep_in_fp32_modules is gone"
    assert hasattr(PreTrainedModel, "_keep_in_fp32_modules"), "transformers: _keep_in_fp32_modules is gone"
    assert hasattr(PreTrainedModel, "_keep_in_fp32_modules_strict"), (
        "transformers: _keep_in_fp32_modules_strict is gone"
    )
    wan = build("wan")
    kept = _upstream.kept_in_fp32(wan.transformer, torch.bfloat16)
    assert "time_embedder" in kept, "diffusers: Wan's transformer no longer keeps modules in fp32"
    assert _upstream.kept_in_fp32(wan.text_encoder, torch.float16) == ("wo",), "transformers: T5 keeps wo for fp16"
    assert _upstream.kept_in_fp32(wan.text_encoder, torch.bfloat16) == ()


def test_every_legacy_processor_has_its_fused_one():
    for legacy, fused in _FUSED.items():
        assert hasattr(attention_processor, legacy), f"diffusers: attention_processor.{legacy} is gone"
        assert hasattr(attention_processor, fused), f"diffusers: attention_processor.{fused} is gone"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vae_slices_and_tiles_by_these_names(family):
    vae = build(family).vae
    assert vae.use_slicing is False, "diffusers: use_slicing is gone"
    assert vae.use_tiling is False, "diffusers: use_tiling is gone"
    sized = {"tile_sample_min_height", "tile_sample_min_width"} <= set(inspect.signature(vae.enable_tiling).parameters)
    names = ("tile_sample_min_height", "tile_sample_min_width") if sized else ("tile_sample_min_size",)
    for name in (*names, *(() if sized else ("tile_latent_min_size",))):
        assert hasattr(vae, name), f"diffusers: {type(vae).__name__}.{name} is gone"


def test_the_pipeline_keeps_the_progress_bars_settings():
    assert build("sd")._progress_bar_config == {"disable": True}, "diffusers: _progress_bar_config is gone"
