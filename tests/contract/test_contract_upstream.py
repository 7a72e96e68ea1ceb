"""Canaries: every private name of diffusers, accelerate, transformers and torch that we lean on still means what it meant.

A failure here says what changed upstream; what relies on it is in `upstream/` or `trace/twin.py`.
"""

from __future__ import annotations

import ast
import inspect
import re
import warnings
from pathlib import Path
from types import MethodType

import accelerate
import pytest
import torch
from accelerate import cpu_offload_with_hook
from accelerate.hooks import AlignDevicesHook, CpuOffload, SequentialHook, add_hook_to_module, remove_hook_from_module
from accelerate.utils import send_to_device
from diffusers import (
    AutoencoderKL,
    AutoencoderKLMochi,
    AutoencoderOobleck,
    DiffusionPipeline,
    ModelMixin,
    StableDiffusionPipeline,
)
from diffusers.hooks import FirstBlockCacheConfig, group_offloading, layerwise_casting
from diffusers.models import attention_dispatch, attention_processor
from diffusers.models.attention import FeedForward
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from peft import LoraConfig
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from autotune import upstream
from autotune.levers.attention import _BACKENDS, _BY_KIND, _KINDS, _attentions, _dispatching
from autotune.levers.compiling import repeated_blocks
from autotune.levers.feed_forward import _layers
from autotune.trace.twin import _LIBRARIES
from autotune.upstream import backends, groups, internals, port, weight_hooks
from autotune.upstream.fakes import born, by_meta_kernel, laid, no_dispatch, undispatched, viewed
from autotune.upstream.port import networks
from autotune.upstream.weight_hooks import HOOK_ATTRIBUTES
from tests.contract.families import FAMILIES, build

CPU = torch.device("cpu")


def fails(error, call):
    try:
        call()
    except error:
        return True
    return False


def test_pipelines_say_what_offload_leaves_out():
    assert DiffusionPipeline._exclude_from_cpu_offload == [], "diffusers: DiffusionPipeline._exclude_from_cpu_offload"
    assert StableDiffusionPipeline._exclude_from_cpu_offload == ["safety_checker"], "diffusers: Stable Diffusion's own"
    assert port.excluded_from_offload(build("sd")) == ()


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
    assert port.offloaded(pipe) == "model"
    assert weight_hooks.offload_device(pipe) == torch.device("cpu:0")
    weight_hooks.forget_hooks(pipe)
    assert port.offloaded(pipe) == "none"
    assert weight_hooks.offload_device(pipe) is None


def test_sequential_offload_leaves_its_marks_on_modules():
    pipe = build("sd")
    accelerate.cpu_offload(pipe.unet, CPU)
    hook = pipe.unet.conv_in._hf_hook
    assert isinstance(hook, AlignDevicesHook), "accelerate: cpu_offload hangs another hook on modules"
    assert hook.offload is True, "accelerate: AlignDevicesHook.offload is gone"
    assert hook.weights_map["weight"].device == CPU, "accelerate: AlignDevicesHook.weights_map is gone"
    assert pipe.unet.conv_in.weight.is_meta, "accelerate: offloaded weights are no longer on meta"
    assert weight_hooks.is_sequential(pipe.unet)
    assert not weight_hooks.is_sequential(pipe.vae)
    assert port.offloaded(pipe) == "sequential"


def test_a_hook_may_hold_several():
    both = SequentialHook(CpuOffload(CPU), AlignDevicesHook(CPU, offload=True))
    assert len(both.hooks) == 2, "accelerate: SequentialHook.hooks is gone"
    module = add_hook_to_module(torch.nn.Linear(1, 1), CpuOffload(CPU))
    module._hf_hook = both
    assert weight_hooks.is_sequential(module)


def test_a_hook_that_was_taken_off_can_be_hung_again():
    module = torch.nn.Linear(1, 1)
    plain = module.forward
    add_hook_to_module(module, AlignDevicesHook(CPU, offload=True))
    ((place, hook),) = weight_hooks.hooks_of(module)
    assert place is module
    weight_hooks.forget_hook(module)
    assert not module.weight.is_meta, "accelerate: detach_hook of AlignDevicesHook no longer brings weights back"
    weight_hooks.put_hook(module, hook)
    assert module._hf_hook is hook, "accelerate: add_hook_to_module no longer hangs the hook as _hf_hook"
    assert module._old_forward == plain, "accelerate: add_hook_to_module keeps the forward elsewhere than _old_forward"
    assert module.weight.is_meta, "accelerate: init_hook of AlignDevicesHook no longer takes the weights away"
    assert module(torch.ones(1)).shape == (1,)


def two_layers():
    return torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))


def test_a_dispatched_module_is_guarded(tmp_path):
    part = two_layers()
    accelerate.dispatch_model(part, {"0": "cpu", "1": "disk"}, offload_dir=str(tmp_path), main_device="cpu")
    guards = weight_hooks.guards_of(part)
    assert guards, "accelerate: dispatch_model no longer guards `to`, or _accelerate_added_attributes no longer says so"
    ((module, attributes),) = guards
    assert module is part
    assert "to" in attributes
    weight_hooks.forget_hook(part)
    assert not set(attributes) & set(vars(part)), "accelerate: remove_hook_from_module leaves the guards"


@pytest.mark.parametrize("buffers", [False, True])
def test_a_loading_hook_says_where_to_and_what(buffers):
    part = two_layers()
    weight_hooks.stream(part, CPU, buffers=buffers)
    assert weight_hooks.streams_of(part) == [(part, CPU, buffers)], (
        "accelerate: AlignDevicesHook.execution_device or offload_buffers is gone, or hooks hang elsewhere"
    )


def test_what_sequential_offload_unties_still_shares_its_memory():
    t5 = build("flux").text_encoder_2
    weight_hooks.stream(t5, CPU, buffers=False)
    weight_hooks.forget_hook(t5)
    one, other = t5.shared.weight, t5.encoder.embed_tokens.weight
    assert one is not other, "accelerate: detach_hook ties again by itself; weight_hooks.tie_again need not"
    assert one.data_ptr() == other.data_ptr(), (
        "accelerate: detach_hook copies, and weight_hooks.tie_again finds no ties"
    )
    weight_hooks.tie_again(t5)
    assert t5.shared.weight is t5.encoder.embed_tokens.weight


def test_weights_in_files_are_told_from_weights_in_ram(tmp_path):
    in_ram, in_files, grouped = two_layers(), two_layers(), two_layers()
    weight_hooks.stream(in_ram, CPU, buffers=False)
    accelerate.disk_offload(in_files, str(tmp_path / "weights"), CPU)
    group_offloaded(grouped, offload_to_disk_path=str(tmp_path))
    assert not weight_hooks.waits_on_disk(in_ram), "accelerate: weights_map of cpu_offload has an index"
    assert weight_hooks.waits_on_disk(in_files), "accelerate: weights_map of disk_offload has no dataset with an index"
    assert weight_hooks.waits_on_disk(grouped), "diffusers: GroupOffloadingConfig.offload_to_disk_path is gone"


def test_a_second_hook_is_chained():
    pipe = build("sd")
    pipe.enable_model_cpu_offload(device=CPU)
    cpu_offload_with_hook(pipe.text_encoder, CPU)
    assert isinstance(pipe.text_encoder._hf_hook, SequentialHook), "accelerate: cpu_offload_with_hook no longer appends"


def test_arguments_that_are_sent_keep_their_class():
    output = BaseModelOutputWithPooling(last_hidden_state=torch.ones(1), pooler_output=torch.ones(1))
    sent = send_to_device({"a": [output], "b": (torch.ones(1), 2, None)}, "meta")
    kept = "accelerate: send_to_device no longer keeps"
    assert type(sent["a"][0]) is BaseModelOutputWithPooling, f"{kept} ModelOutput classes"
    assert sent["a"][0].pooler_output.is_meta, f"{kept} fields of a ModelOutput, or does not send them"
    assert sent["b"][0].is_meta
    assert sent["b"][1:] == (2, None), f"{kept} what is no tensor"


def group_offloaded(part, **settings):
    groups.group(part, CPU, **({"offload_type": "leaf_level"} | settings))
    return [module for module in part.modules() if hasattr(module, "_diffusers_hook")]


def test_group_offload_leaves_its_marks_on_modules():
    pipe = build("flux")
    hooked = group_offloaded(pipe.transformer)
    assert hooked, "diffusers: HookRegistry no longer hangs on modules as _diffusers_hook"
    hooks = [module._diffusers_hook.hooks.get("group_offloading") for module in hooked]
    assert any(hooks), "diffusers: group offload's hook is no longer group_offloading in HookRegistry.hooks"
    assert port.offloaded(pipe) == "group"


def test_the_hooks_of_group_offload_have_these_names():
    names = ("_GROUP_OFFLOADING", "_LAYER_EXECUTION_TRACKER", "_LAZY_PREFETCH_GROUP_OFFLOADING")
    theirs = tuple(getattr(group_offloading, name) for name in names)
    assert theirs == groups._GROUP_HOOKS, "diffusers: hooks/group_offloading.py renamed its hooks"
    others = {name for name, value in vars(group_offloading).items() if name.startswith("_GROUP") and name not in names}
    assert others == {"_GROUP_ID_LAZY_LEAF"}, "diffusers: hooks/group_offloading.py has another kind of hook"


def test_a_group_hook_holds_its_settings():
    part = torch.nn.Sequential(torch.nn.Linear(1, 1))
    group_offloaded(part, low_cpu_mem_usage=True)
    config = groups.group_config(part)
    gone = "diffusers: GroupOffloadingConfig no longer has"
    assert config.onload_device == config.offload_device == CPU, f"{gone} the devices"
    assert config.offload_type.value == "leaf_level", f"{gone} offload_type as an enum of these words"
    assert config.stream is None, f"{gone} stream"
    assert config.record_stream is False, f"{gone} record_stream"
    assert config.low_cpu_mem_usage is True, f"{gone} low_cpu_mem_usage"


def test_group_offload_is_put_on_again_from_its_settings():
    part = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.LayerNorm(1))
    before = [type(module) for module in group_offloaded(part)]
    config = groups.ungroup(part)
    assert groups.group_config(part) is None, "diffusers: HookRegistry.remove_hook left a group hook"
    groups.regroup(part, config)
    assert groups.group_config(part) is config, "diffusers: _apply_group_offloading(module, config) changed"
    assert [type(module) for module in part.modules() if hasattr(module, "_diffusers_hook")] == before


def test_a_registry_lets_go_of_one_hook_at_a_time():
    part = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(1, 1)))
    part.register_buffer("scale", torch.ones(1))
    group_offloaded(part)
    leaf, registry = part[0][0], part._diffusers_hook
    registry.remove_hook("no such hook", recurse=False)
    registry.remove_hook("group_offloading", recurse=False)
    assert registry.hooks == {}, "diffusers: HookRegistry.hooks is no longer a dict without what was removed"
    assert "group_offloading" in leaf._diffusers_hook.hooks, "diffusers: remove_hook(recurse=False) recurses"
    left = vars(part).get("forward")
    assert isinstance(left, MethodType), "diffusers: remove_hook cleans up its forward; groups.ungroup need not"
    assert left.__self__ is part
    assert left.__func__ is torch.nn.Sequential.forward
    groups.Registries(()).forget_empty([part])
    assert groups.hook_registries(part) == [leaf]


def test_model_classes_say_whether_they_can_be_grouped():
    assert ModelMixin._supports_group_offloading is True, "diffusers: ModelMixin._supports_group_offloading is gone"
    assert AutoencoderOobleck._supports_group_offloading is False, "diffusers: a weight-normed VAE can be grouped now"
    assert not groups.groupable(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(1, 1)))


def test_a_vae_says_within_which_modules_it_is_grouped():
    names = AutoencoderKL._group_offload_block_modules
    assert {"encoder", "decoder"} <= set(names), "diffusers: AutoencoderKL._group_offload_block_modules"
    vae = build("sd").vae
    hooked = group_offloaded(vae, offload_type="block_level", num_blocks_per_group=1)
    assert vae.decoder.up_blocks[0] in hooked, "diffusers: blocks within _group_offload_block_modules are not groups"
    assert vae.decoder in hooked, "diffusers: what is left of a block module is no group of its own"
    assert vae.decoder.conv_in not in hooked


def test_a_removed_hook_leaves_the_bound_forward_behind():
    module = torch.nn.Linear(1, 1)
    remove_hook_from_module(add_hook_to_module(module, CpuOffload(CPU)))
    left = vars(module).get("forward")
    assert left is not None, "accelerate: remove_hook_from_module cleans up; weight_hooks.forget_hooks need not"
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
    assert new == {*HOOK_ATTRIBUTES, "forward"}, "accelerate or diffusers: hooks hang something else on modules"


def test_a_compiled_module_holds_the_original():
    module = torch.nn.Linear(1, 1)
    compiled = torch.compile(module, backend="eager")
    assert compiled._orig_mod is module, "torch: OptimizedModule._orig_mod is gone"


def test_a_module_that_was_compiled_in_place_can_forget_it():
    module = torch.nn.Linear(1, 1)
    assert not internals.is_compiled(module)
    module.compile(backend="eager")
    assert internals.is_compiled(module), "torch: Module.compile no longer sets _compiled_call_impl"
    assert "_compiled_call_impl" in vars(module), "torch: _compiled_call_impl is no longer an attribute of the instance"
    internals.forget_compiled(module)
    assert module._compiled_call_impl is None, "torch: the class's _compiled_call_impl is no longer None"


@pytest.mark.parametrize(
    ("family", "named"), [("sd", True), ("flux", True), ("sd3", False), ("wan", True), ("ltx", True)]
)
def test_models_name_their_repeated_blocks(family, named):
    (part,) = port.denoisers(build(family)).values()
    assert bool(part._repeated_blocks) is named, f"diffusers: {type(part).__name__}._repeated_blocks"
    assert repeated_blocks(part), f"diffusers: {type(part).__name__} has no such blocks"


def test_the_optimiser_of_traces_can_be_switched():
    with torch.jit.optimized_execution(False):
        assert torch._C._get_graph_executor_optimize() is False, "torch: torch.jit.optimized_execution does nothing"


@pytest.mark.parametrize("name", ["encoder_hid_proj", "config.time_cond_proj_dim"])
def test_a_unet_says_what_a_trace_cannot_follow(name):
    holder = build("sd").unet
    for step in name.split("."):
        assert hasattr(holder, step), f"diffusers: UNet2DConditionModel.{name} is gone"
        holder = getattr(holder, step)
    assert holder is None


def test_a_unets_output_is_of_this_class():
    output = internals.unet_output(torch.ones(1))
    assert type(output) is UNet2DConditionOutput
    assert torch.equal(output[0], output.sample), "diffusers: UNet2DConditionOutput is no tuple of its sample any more"


@pytest.mark.parametrize("kind", [UNet2DConditionOutput, Transformer2DModelOutput])
def test_outputs_are_pytrees(kind):
    leaves, spec = _pytree.tree_flatten(kind(sample=torch.ones(1)))
    assert len(leaves) == 1, f"diffusers: {kind.__name__} is no pytree, and batch_split would return its first part"
    assert isinstance(leaves[0], torch.Tensor)
    assert type(_pytree.tree_unflatten(leaves, spec)) is kind


def test_paths_of_arguments_are_written_so():
    leaves, _ = _pytree.tree_flatten_with_path(((torch.ones(1),), {"added": {"ids": torch.ones(1)}}))
    paths = [_pytree.keystr(path) for path, _ in leaves]
    assert paths == ["[0][0]", "[1]['added']['ids']"], "torch: pytree paths are written differently"


def test_model_classes_say_what_they_keep_in_fp32():
    assert hasattr(ModelMixin, "_keep_in_fp32_modules"), "diffusers: ModelMixin._keep_in_fp32_modules is gone"
    assert hasattr(PreTrainedModel, "_keep_in_fp32_modules"), "transformers: _keep_in_fp32_modules is gone"
    assert hasattr(PreTrainedModel, "_keep_in_fp32_modules_strict"), (
        "transformers: _keep_in_fp32_modules_strict is gone"
    )
    wan = build("wan")
    kept = internals.kept_in_fp32(wan.transformer, torch.bfloat16)
    assert "time_embedder" in kept, "diffusers: Wan's transformer no longer keeps modules in fp32"
    assert internals.kept_in_fp32(wan.text_encoder, torch.float16) == ("wo",), "transformers: T5 keeps wo for fp16"
    assert internals.kept_in_fp32(wan.text_encoder, torch.bfloat16) == ()


def test_every_kind_of_processor_is_there():
    for name in _KINDS:
        assert hasattr(attention_processor, name), f"diffusers: attention_processor.{name} is gone"
    assert len(_BY_KIND) == len(_KINDS)


@pytest.mark.parametrize("family", FAMILIES)
def test_processors_are_of_a_known_kind_or_ask_the_dispatcher(family):
    pipe = build(family)
    (part,) = port.denoisers(pipe).values()
    found = _dispatching(pipe) if family in {"flux", "wan", "ltx"} else _attentions(pipe)
    assert found, (
        f"diffusers: the processors of {type(part).__name__} and its VAE have other names, or no longer dispatch"
    )
    if family in {"sd", "sdxl"}:
        kinds = {type(processor).__name__ for processor in part.attn_processors.values()}
        assert kinds == {"AttnProcessor2_0"}, "diffusers: a UNet comes with other processors"


def test_slicing_puts_in_this_processor():
    unet = build("sd").unet
    unet.set_attention_slice("max")
    kinds = {type(processor).__name__ for processor in unet.attn_processors.values()}
    assert kinds == {"SlicedAttnProcessor"}, "diffusers: set_attention_slice puts in another processor"


def test_attention_says_how_many_heads_a_slice_may_hold():
    heads = {m.sliceable_head_dim for m in build("sd").unet.modules() if hasattr(m, "sliceable_head_dim")}
    assert heads, "diffusers: Attention.sliceable_head_dim is gone"
    unet = build("sd").unet
    unet.set_attention_slice(min(heads))
    refused = fails(ValueError, lambda: unet.set_attention_slice(max(heads) + 1))
    assert refused, "diffusers: set_attention_slice takes more than the heads of an attention"


@pytest.mark.parametrize("family", ["flux", "wan", "ltx"])
def test_processors_hold_their_backend(family):
    pipe = build(family)
    held = {processor._attention_backend for processor in _dispatching(pipe)}
    assert held == {None}, "diffusers: _attention_backend of a fresh processor is no longer None"
    before = attention_dispatch._AttentionBackendRegistry._active_backend
    next(iter(port.denoisers(pipe).values())).set_attention_backend("_native_math")
    attention_dispatch._AttentionBackendRegistry._active_backend = before
    held = {processor._attention_backend for processor in _dispatching(pipe)}
    assert held == {backends.backend_ready("_native_math")}, "diffusers: the backend is no longer held by processors"


@pytest.mark.parametrize("name", [*_BACKENDS, "native", "_native_math", "xformers"])
def test_the_dispatcher_knows_the_backend(name):
    assert name in backends.backend_names(), f"diffusers: AttentionBackendName no longer has {name!r}"
    assert backends.backend_ready(name) is AttentionBackendName(name)


def test_a_backends_kernel_is_fetched_only_from_a_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(attention_dispatch, "_maybe_download_kernel_for_backend", asked.append)
    backends.backend_ready("flash_hub")
    assert asked == [AttentionBackendName.FLASH_HUB]
    hub = {name.value for name in attention_dispatch._HUB_KERNELS_REGISTRY}
    assert hub, "diffusers: attention_dispatch._HUB_KERNELS_REGISTRY is empty or gone"
    assert all("hub" in name for name in hub), "diffusers: a backend without hub in its name is fetched from one"
    assert not hub & {*_BACKENDS, "native", "_native_math", "xformers"}


def test_what_a_backend_misses_is_a_runtime_error(monkeypatch):
    flags = {"flash": "_CAN_USE_FLASH_ATTN", "_flash_3": "_CAN_USE_FLASH_ATTN_3", "sage": "_CAN_USE_SAGE_ATTN"}
    for backend, flag in (flags | {"xformers": "_CAN_USE_XFORMERS_ATTN"}).items():
        monkeypatch.setattr(attention_dispatch, flag, False)
        missing = backends.backend_missing(backend)
        assert "missing package" in missing, f"diffusers: _check_attention_backend_requirements no longer asks {flag}"
    assert backends.backend_missing("native") == ""


@pytest.mark.parametrize("family", FAMILIES)
def test_denoisers_have_feed_forward_layers_of_this_class(family):
    pipe = build(family)
    assert _layers(pipe), f"diffusers: no attention.FeedForward in the denoiser of {type(pipe).__name__}"
    names = list(inspect.signature(FeedForward.forward).parameters)
    assert names[:2] == ["self", "hidden_states"], "diffusers: FeedForward.forward takes something else first"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vae_slices_and_tiles_by_these_names(family):
    vae = build(family).vae
    assert vae.use_slicing is False, "diffusers: use_slicing is gone"
    assert vae.use_tiling is False, "diffusers: use_tiling is gone"
    sized = {"tile_sample_min_height", "tile_sample_min_width"} <= set(inspect.signature(vae.enable_tiling).parameters)
    names = ("tile_sample_min_height", "tile_sample_min_width") if sized else ("tile_sample_min_size",)
    for name in (*names, *(() if sized else ("tile_latent_min_size",))):
        assert hasattr(vae, name), f"diffusers: {type(vae).__name__}.{name} is gone"


def test_a_vae_says_how_many_pixels_a_latent_is():
    for family in FAMILIES:
        vae = build(family).vae
        known = isinstance(getattr(vae, "spatial_compression_ratio", None), int) or hasattr(
            vae.config, "block_out_channels"
        )
        assert known, f"diffusers: {type(vae).__name__} no longer says its scale"


def test_ltxs_vae_decodes_runs_of_frames_by_this_switch():
    vae = build("ltx").vae
    frames = vae.tile_sample_min_num_frames
    assert vae.use_framewise_decoding is False, "diffusers: AutoencoderKLLTXVideo.use_framewise_decoding is gone"
    called = []
    assert hasattr(vae, "_temporal_tiled_decode"), "diffusers: AutoencoderKLLTXVideo._temporal_tiled_decode is gone"
    vae._temporal_tiled_decode = lambda z, *_, **__: called.append(z.shape[2]) or DecoderOutput(sample=z)
    latents = torch.zeros(1, 8, frames // vae.temporal_compression_ratio + 1, 2, 2)
    vae.decode(latents, return_dict=False)
    assert not called
    vae.use_framewise_decoding = True
    vae.decode(latents, return_dict=False)
    assert called == [latents.shape[2]], (
        "diffusers: LTX no longer decodes runs of frames past tile_sample_min_num_frames"
    )


def test_mochis_vae_decodes_runs_of_frames_by_this_switch():
    width = (32, 32, 32, 32)
    vae = AutoencoderKLMochi(
        encoder_block_out_channels=width, decoder_block_out_channels=width, layers_per_block=(1,) * 5
    )
    assert vae.use_framewise_decoding is False, "diffusers: AutoencoderKLMochi.use_framewise_decoding is gone"
    assert vae.num_latent_frames_batch_size > 0, "diffusers: AutoencoderKLMochi.num_latent_frames_batch_size is gone"
    assert vae.temporal_compression_ratio > 0, "diffusers: AutoencoderKLMochi.temporal_compression_ratio is gone"
    before = {module.pad_mode for module in vae.modules() if hasattr(module, "pad_mode")}
    vae._enable_framewise_decoding()
    after = {module.pad_mode for module in vae.modules() if hasattr(module, "pad_mode")}
    assert vae.use_framewise_decoding is True
    assert (before, after) == ({"replicate"}, {"constant"}), "diffusers: Mochi's switch changes pad_mode no longer so"


def test_lora_layers_say_what_is_merged():
    unet = build("sd").unet
    assert not getattr(unet, "peft_config", None)
    unet.add_adapter(LoraConfig(r=1, target_modules=["to_q"], init_lora_weights=False), "a")
    assert unet.peft_config, "diffusers: add_adapter no longer sets peft_config"
    layers = [module for module in unet.modules() if internals.is_adapted(module)]
    assert layers, "peft: a LoRA layer has no merged_adapters or unmerge any more"
    layer, before = layers[0], layers[0].weight.detach().clone()
    assert list(layer.merged_adapters) == []
    layer.merge(adapter_names=["a"])
    assert list(layer.merged_adapters) == ["a"], "peft: merge(adapter_names=) no longer fills merged_adapters"
    assert not torch.equal(layer.weight, before), "peft: merge no longer adds to the weight"
    layer.unmerge()
    assert list(layer.merged_adapters) == [], "peft: unmerge no longer empties merged_adapters"
    torch.testing.assert_close(layer.weight.detach(), before)


def test_weight_norm_leaves_its_marks_on_modules():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = torch.nn.utils.weight_norm(torch.nn.Linear(1, 1))
    new = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(1, 1))
    assert hasattr(old, "weight_g"), "torch: the old weight_norm has no weight_g any more"
    assert hasattr(new, "parametrizations"), "torch: the new weight_norm is no parametrization any more"
    assert isinstance(vars(old)["weight"], torch.Tensor), "torch: the old weight_norm holds no plain tensor any more"
    (hook,) = old._forward_pre_hooks.values()
    assert hook.__module__.split(".")[0] in _LIBRARIES, "torch: weight_norm's hook comes from elsewhere"


def test_transformers_collect_hidden_states_by_hooks_of_their_own():
    part = build("sd").text_encoder
    part(torch.ones(1, 4, dtype=torch.long), output_hidden_states=True)
    hooks = [hook for m in part.modules() for hook in (*m._forward_pre_hooks.values(), *m._forward_hooks.values())]
    assert hooks, "transformers: hidden states are no longer collected by hooks; the twin need not keep them"
    assert {hook.__module__.split(".")[0] for hook in hooks} <= _LIBRARIES, (
        "transformers: its hooks come from elsewhere"
    )


def test_a_fake_can_be_born_a_parameter():
    mode = FakeTensorMode()
    assert isinstance(born(mode, torch.nn.Parameter(torch.ones(1))), torch.nn.Parameter), (
        "torch: _is_param means nothing"
    )
    assert not isinstance(born(mode, torch.ones(1)), torch.nn.Parameter)
    with mode:
        assert isinstance(torch.ones(1), FakeTensor)
        with undispatched():
            assert type(torch.ones(1)) is torch.Tensor, "torch: _disable_current_modes disables no mode"
        with no_dispatch():
            assert type(torch.ones(1)) is torch.Tensor, "torch: _DisableTorchDispatch disables no mode"


def test_meta_kernels_run_on_fakes():
    """What FakeTensorMode itself does in the end, `in_kernel_invocation_manager`: no mode is asked, and storages are shared."""
    mode = FakeTensorMode()
    with torch.no_grad(), mode:
        image = torch.ones(2, 3)
        view = by_meta_kernel(torch.ops.aten.t.default, (image,), {}, mode)
        assert isinstance(view, FakeTensor), "torch: FakeTensor is no longer made of a meta tensor"
        assert view.untyped_storage()._cdata == image.untyped_storage()._cdata, (
            "torch: a fake's view has a storage of its own"
        )
        assert (view.shape, view.stride(), view.device.type) == ((3, 2), (1, 3), "cpu")
        assert isinstance(view + 1, FakeTensor)
        with no_dispatch():
            assert viewed(mode, image, (3,), (1,), 3, image.dtype).storage_offset() == 3
        assert laid(image, (1, 2)).stride() == (1, 2)
    assert laid(torch.ones(2, 3), (1, 2)) is None
    assert image.constant is None, "torch: a fake's constant is called otherwise"
    assert image.fake_device == torch.device("cpu"), "torch: a fake's device is called otherwise"


def test_modules_keep_their_tensors_in_these_tables():
    module = torch.nn.Linear(1, 1)
    module.register_buffer("frequencies", torch.ones(1), persistent=False)
    gone = "torch: Module no longer keeps"
    assert module._parameters["weight"] is module.weight, f"{gone} parameters in _parameters"
    assert module._buffers["frequencies"] is module.frequencies, f"{gone} buffers in _buffers"
    assert module._non_persistent_buffers_set == {"frequencies"}, f"{gone} names in _non_persistent_buffers_set"


def test_a_tokenizer_remembers_what_it_warned_of():
    assert build("sd").tokenizer.deprecation_warnings is not None, "transformers: deprecation_warnings is gone"


def test_a_pipeline_may_have_a_device_map():
    assert DiffusionPipeline.hf_device_map is None, "diffusers: DiffusionPipeline.hf_device_map is gone"
    pipe = build("sd")
    pipe.hf_device_map = {"unet": "cpu", "vae": "meta"}
    refused = fails(ValueError, lambda: pipe.enable_model_cpu_offload(device=CPU))
    assert refused, "diffusers: hf_device_map no longer keeps a pipeline from being offloaded"


def test_diffusers_moves_a_pipeline_itself_only_in_these_words():
    for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        moves = inspect.getsource(getattr(DiffusionPipeline, name))
        assert moves.count("self.to(") == moves.count('self.to("cpu", silence_dtype_warnings=True)') == 1, (
            f"diffusers: {name} moves the pipeline otherwise, and an optimised one would refuse"
        )
    assert isinstance(DiffusionPipeline._execution_device, property), "diffusers: _execution_device is no property"


def test_the_pipeline_keeps_the_progress_bars_settings():
    assert build("sd")._progress_bar_config == {"disable": True}, "diffusers: _progress_bar_config is gone"


def test_a_registry_keeps_its_hooks_in_these_tables():
    part = torch.nn.Sequential(torch.nn.Linear(1, 1))
    group_offloaded(part)
    registry = part[0]._diffusers_hook
    for name in ("hooks", "_hook_order", "_fn_refs"):
        assert len(getattr(registry, name)) == 1, f"diffusers: HookRegistry.{name} does not hold the hook"
    (reference,) = registry._fn_refs
    assert "forward" in vars(reference), "diffusers: HookFunctionReference.forward is gone"
    assert hasattr(reference, "original_forward"), "diffusers: HookFunctionReference.original_forward is gone"


def test_a_module_keeps_its_hooks_in_these_tables():
    module = torch.nn.Linear(1, 1)
    module.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
    module.register_forward_hook(lambda *_: None, with_kwargs=True, always_call=True)
    for name in internals._HOOK_TABLES:
        assert len(getattr(module, name)) == 1, f"torch: Module.{name} does not hold the hook"
    assert {"_forward_pre_hooks_with_kwargs", "_forward_hooks_with_kwargs", "_forward_hooks_always_called"} <= set(
        internals._HOOK_TABLES
    )


def test_a_pipeline_says_which_components_it_can_do_without():
    assert "safety_checker" in StableDiffusionPipeline._optional_components, "diffusers: _optional_components is gone"
    found = port.port_of(build("sd"))
    assert {"unet", "vae", "scheduler"} <= set(found.expected), "diffusers: pipe.config names components otherwise"
    assert "requires_safety_checker" not in found.expected


def test_switches_of_deep_modules_have_these_names():
    pipe = build("sd")
    pipe.enable_freeu(s1=1, s2=1, b1=1, b2=1)
    assert {"s1", "s2", "b1", "b2"} <= set(vars(pipe.unet.up_blocks[0])), "diffusers: FreeU has other names"
    block = pipe.unet.mid_block.attentions[0].transformer_blocks[0]
    assert {"_chunk_size", "_chunk_dim"} <= set(vars(block)), "diffusers: feed-forward chunks have other names"
    model = build("flux").transformer
    model.enable_cache(FirstBlockCacheConfig(threshold=1.0))
    assert "_cache_config" in vars(model), "diffusers: CacheMixin._cache_config is gone"
    assert groups.cache_among(model.modules()), "diffusers: a step cache is no hook in a registry any more"
    model.disable_cache()
    assert groups.cache_among(model.modules()) == ""


def test_writing_in_place_is_counted_and_exchanging_data_is_not():
    layer = torch.nn.Linear(2, 2)
    start = internals.writes(layer.weight)
    layer.to(torch.float64)
    layer.weight.data = layer.weight.data.clone()
    layer.weight.data.add_(1)
    assert internals.writes(layer.weight) == start, "torch: Tensor._version counts what was done to .data"
    layer.load_state_dict(layer.state_dict())
    assert internals.writes(layer.weight) > start, "torch: load_state_dict does not raise Tensor._version any more"
    with torch.inference_mode():
        assert internals.writes(torch.ones(1)) == 0


def test_hooks_that_are_harmless_to_a_batch_have_these_names():
    known = {group_offloading._GROUP_OFFLOADING, layerwise_casting._LAYERWISE_CASTING_HOOK}
    known |= {layerwise_casting._PEFT_AUTOCAST_DISABLE_HOOK}
    assert known <= groups._HARMLESS_HOOKS, "diffusers: hooks were renamed"


ROOM = Path(upstream.__file__).parent


def private_names(path):
    """What a file names of others' that begins with an underscore: attributes, names in strings, imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
        ):
            found = [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found = [node.value]
        else:
            found = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in found if re.fullmatch(r"_[a-z]\w+", name) and name not in own)


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_every_private_name_has_a_canary(path):
    here = Path(__file__).read_text(encoding="utf-8")
    assert sorted({name for name in private_names(path) if name not in here}) == []


# What other rooms may name: torch's tables of a module, which it has kept under these names since its first version.
OF_TORCH = {
    "_parameters",
    "_buffers",
    "_modules",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_non_persistent_buffers_set",
}


@pytest.mark.parametrize("name", ["levers", "guard", "trace", "probe", "flow", "zoo", "measure"])
def test_no_other_room_names_what_diffusers_and_its_kin_keep_private(name):
    theirs = {found for path in ROOM.glob("*.py") for found in private_names(path)} - OF_TORCH
    for path in sorted((ROOM.parent / name).glob("*.py")):
        assert sorted(theirs & set(private_names(path))) == [], path.name
