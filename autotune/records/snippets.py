"""The words of `code.py`: what each lever is without this library. `$names` are filled in there."""

from __future__ import annotations

__all__ = [
    "APART",
    "BATCH",
    "BLOCKS",
    "CAST",
    "DISPATCH",
    "EXCHANGE",
    "FEED_FORWARD",
    "FRAMEWISE",
    "GROUPED",
    "LAYOUT",
    "LEAVE",
    "OTHERS",
    "SEQUENTIAL",
    "SHARED",
    "SLICING",
    "STANDARD",
    "STAY",
    "TILING",
    "TOGETHER",
    "TRACE",
    "UNCHUNKED",
    "UNCOMPILED",
    "UNTILED",
]

# Names that are imported, and where from; "" for whole modules.
STANDARD = {"Counter": "collections", "inspect": "", "wraps": "functools"}
OTHERS = {
    "Attention": "diffusers.models.attention_processor",
    "AttentionBackendName": "diffusers.models.attention_dispatch",
    "AttnAddedKVProcessor": "diffusers.models.attention_processor",
    "AttnAddedKVProcessor2_0": "diffusers.models.attention_processor",
    "AttnProcessor": "diffusers.models.attention_processor",
    "AttnProcessor2_0": "diffusers.models.attention_processor",
    "FeedForward": "diffusers.models.attention",
    "UNet2DConditionModel": "diffusers.models.unets.unet_2d_condition",
    "UNet2DConditionOutput": "diffusers.models.unets.unet_2d_condition",
    "XFormersAttnAddedKVProcessor": "diffusers.models.attention_processor",
    "XFormersAttnProcessor": "diffusers.models.attention_processor",
    "apply_group_offloading": "diffusers.hooks",
    "cpu_offload": "accelerate",
    "send_to_device": "accelerate.utils",
    "torch": "",
}
# What several parts use, by name.
SHARED = {
    "networks": """
networks = {
    name: getattr(part, "_orig_mod", part)  # what torch.compile(pipe.unet) wraps
    for name, part in pipe.components.items()
    if isinstance(part, torch.nn.Module)
}""".strip(),
    "denoisers": """
denoisers = [
    part for name, part in networks.items() if name.startswith(("unet", "transformer")) or name in ("prior", "decoder")
] or [max(networks.values(), key=lambda part: sum(weight.numel() for weight in part.parameters()))]""".strip(),
    "text_encoders": """
text_encoders = [part for name, part in networks.items() if name.startswith("text_encoder")]""".strip(),
}

CAST = """
precision = $precision
floats = (torch.float32, torch.float16, torch.bfloat16)


def kept_in_fp32(part, dtype):
    if dtype == torch.float32:
        return ()
    weak = getattr(part, "_keep_in_fp32_modules", None) or ()
    strict = getattr(part, "_keep_in_fp32_modules_strict", None) or ()
    if type(part).__module__.startswith("transformers") and dtype != torch.float16:
        weak = ()  # transformers keeps these for float16 only
    return (*weak, *strict)


for network, part in networks.items():
    dtype = precision.get(network, precision.get("default"))
    if dtype is None or getattr(part, "is_quantized", False):
        continue
    kept, saved = kept_in_fp32(part, dtype), part.state_dict()
    for name, tensor in (*part.named_parameters(), *part.named_buffers()):  # tied weights are one object, and stay tied
        wanted = torch.float32 if any(f".{one}." in f".{name}." for one in kept) else dtype
        is_frequency = name not in saved and tensor.dtype == torch.float32  # rotary: stays in fp32
        if tensor.dtype in floats and not is_frequency:
            tensor.data = tensor.data.to(wanted)
"""
LAYOUT = """
for part in networks.values():
    for module in part.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.$copied(memory_format=torch.$layout)
"""
EXCHANGE = """
for part in networks.values():
    for module in part.modules():
        present = type(module.processor).__name__ if isinstance(module, Attention) else ""
        if present in ($plains):
            module.set_processor($plain())
        elif present in ($addeds):
            module.set_processor($added())
"""
DISPATCH = """
for part in networks.values():
    for module in part.modules():
        if hasattr(getattr(module, "processor", None), "_attention_backend"):
            module.processor._attention_backend = AttentionBackendName("$backend")
"""
FEED_FORWARD = """
def in_chunks(forward, chunks):
    @wraps(forward)
    def run(hidden_states, *args, **kwargs):
        if hidden_states.dim() != 3 or hidden_states.shape[1] < 2:
            return forward(hidden_states, *args, **kwargs)
        return torch.cat([forward(chunk, *args, **kwargs) for chunk in hidden_states.chunk(chunks, dim=1)], dim=1)

    return run


for part in denoisers:
    for module in part.modules():
        if isinstance(module, FeedForward):
            module.forward = in_chunks(module.forward, $chunks)
"""
UNCHUNKED = """
for part in denoisers:
    for module in part.modules():
        if getattr(module, "_chunk_size", None):
            module._chunk_size = None
"""
UNCOMPILED = """
for part in denoisers:
    for module in part.modules():
        if getattr(module, "_compiled_call_impl", None) is not None:
            module._compiled_call_impl = None
"""
TRACE = """
class Plain(torch.nn.Module):
    \"""The UNet with tensors in and a tensor out, which is what torch.jit takes.\"""

    def __init__(self, unet):
        super().__init__()
        self.unet, self.run = unet, unet.forward

    def forward(self, sample, timestep, states, *added):
        extra = {"added_cond_kwargs": dict(zip(("text_embeds", "time_ids"), added))} if added else {}
        return self.run(sample, timestep, states, return_dict=False, **extra)[0]


def traced(unet):
    plain, forward, traces = Plain(unet).eval(), unet.forward, {}

    @wraps(forward)
    def run(sample, timestep, encoder_hidden_states, *more, added_cond_kwargs=None, return_dict=True, **others):
        added, timestep = added_cond_kwargs or {}, torch.as_tensor(timestep, device=sample.device)
        others = {name: value for name, value in others.items() if value is not None and value != {}}
        if more or others or timestep.dim() or set(added) - {"text_embeds", "time_ids"}:
            # ControlNet residuals, IP-Adapter, a LoRA's scale and the like choose another path: untraced
            others |= {"added_cond_kwargs": added_cond_kwargs, "return_dict": return_dict}
            return forward(sample, timestep, encoder_hidden_states, *more, **others)
        tensors = [sample, timestep, encoder_hidden_states]
        tensors += [added[name] for name in ("text_embeds", "time_ids") if name in added]
        shapes = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        with torch.jit.optimized_execution(sample.is_cuda):  # only CUDA has a fuser, and looking for one takes seconds
            if shapes not in traces:
                traces[shapes] = torch.jit.trace(plain, tuple(tensors), check_trace=False)
            sample = traces[shapes](*tensors)
        return UNet2DConditionOutput(sample=sample) if return_dict else (sample,)

    return run


for part in denoisers:
    if isinstance(part, UNet2DConditionModel):
        part.forward = traced(part)
"""
BLOCKS = """
def listed(module):
    \"""What stands in the outermost lists of modules.\"""
    for child in module.children():
        yield from child if isinstance(child, torch.nn.ModuleList) else listed(child)


for part in denoisers:
    if getattr(part, "_repeated_blocks", None):
        part.compile_repeated_blocks()
    else:  # the class names none: those that come more than once
        blocks = list(listed(part))
        counts = Counter(type(block) for block in blocks)
        for block in blocks:
            if counts[type(block)] > 1:
                block.compile()
"""
BATCH = """
def in_parts(forward, parts):
    # A simple rule: each tensor argument is cut whose first axis is as long as that of the first one. Look whether
    # something else of yours, such as position ids without a batch, happens to be as long.
    def cut(value, batch, start, stop):
        if isinstance(value, dict):
            return {name: cut(inner, batch, start, stop) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(cut(inner, batch, start, stop) for inner in value)
        is_batched = isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == batch
        return value[start:stop] if is_batched else value

    def joined(outputs):
        first = outputs[0]
        if isinstance(first, torch.Tensor):
            return torch.cat(outputs)
        if isinstance(first, tuple):
            return tuple(joined(column) for column in zip(*outputs))
        if isinstance(first, dict):  # diffusers' outputs are dictionaries of their fields
            return type(first)(**{name: joined([output[name] for output in outputs]) for name in first})
        return first

    @wraps(forward)
    def run(*args, **kwargs):
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.dim() > 0)
        batch = next(tensors).shape[0]
        count = min(parts, batch)
        edges = [batch * part // count for part in range(count + 1)]
        calls = [(cut(args, batch, *edge), cut(kwargs, batch, *edge)) for edge in zip(edges, edges[1:])]
        return joined([forward(*own_args, **own_kwargs) for own_args, own_kwargs in calls])

    return run


for part in denoisers:
    part.forward = in_parts(part.forward, $parts)
"""
SLICING = """
for part in networks.values():
    if hasattr(part, "use_slicing") and hasattr(part, "decode"):
        part.use_slicing = $on
"""
TILING = """
tile = {
    "tile_sample_min_height": $edge,
    "tile_sample_min_width": $edge,
    "tile_sample_stride_height": $stride,
    "tile_sample_stride_width": $stride,
}
for part in networks.values():
    if not hasattr(part, "use_tiling") or not hasattr(part, "decode"):
        continue
    names = inspect.signature(part.enable_tiling).parameters
    if "tile_sample_min_height" in names or "tile_sample_min_width" in names:
        part.enable_tiling(**{name: pixels for name, pixels in tile.items() if name in names})
    elif hasattr(part, "tile_sample_min_size"):  # AutoencoderKL takes no sizes: both attributes, which must agree
        part.enable_tiling()
        ratio = getattr(part, "spatial_compression_ratio", None) or 2 ** (len(part.config.block_out_channels) - 1)
        part.tile_sample_min_size = $edge
        part.tile_latent_min_size = $edge // ratio
    elif hasattr(part, "kernel"):  # Allegro's: one size of tiles
        part.enable_tiling()
"""
UNTILED = """
for part in networks.values():
    if hasattr(part, "use_tiling") and hasattr(part, "decode"):
        part.use_tiling = False
"""
TOGETHER = """
for part in networks.values():
    if getattr(part, "use_framewise_decoding", None) and hasattr(part, "_temporal_tiled_decode"):
        part.use_framewise_decoding = False
"""
FRAMEWISE = """
for part in networks.values():
    if getattr(part, "use_framewise_decoding", None) is False:
        if hasattr(part, "_enable_framewise_decoding"):  # Mochi: its convolutions pad differently then
            part._enable_framewise_decoding()
        elif hasattr(part, "_temporal_tiled_decode"):
            part.use_framewise_decoding = True
"""
APART = """
for name, part in networks.items():
    part.to("cpu" if name.startswith("text_encoder") else $where)
"""
SEQUENTIAL = """
for name, part in networks.items():
    if name not in pipe._exclude_from_cpu_offload:
        cpu_offload(part, torch.device("cpu"), offload_buffers=len(part._parameters) > 0)
"""
BLOCKLESS = """def is_blockless(part):
    \"""What is in no block comes with `forward`, and of a VAE pipelines call `decode`.\"""
    return hasattr(part, "decode") and not getattr(part, "_group_offload_block_modules", None)


"""
GROUPED = """
def groupable(part):
    \"""A few classes refuse, and weight norm makes a weight of two at each call.\"""
    normed = any(hasattr(module, "weight_g") or hasattr(module, "parametrizations") for module in part.modules())
    return getattr(part, "_supports_group_offloading", True) and not normed


${blockless}${stream}for name, part in networks.items():
$settings
    $first groupable(part):
        apply_group_offloading(part, torch.device($where), torch.device("cpu"), **settings)
    else:
        part.to($where)
"""
LEAVE = """
def come(module, args, kwargs):
    module.to($where)
    return send_to_device(args, $where), send_to_device(kwargs, $where)


def send_away(*_):
    for part in text_encoders:
        if next(part.parameters()).device.type != "cpu":
            part.to("cpu")$empty


for part in text_encoders:
    part.register_forward_pre_hook(come, with_kwargs=True)
for part in denoisers:
    part.register_forward_pre_hook(send_away)
"""
STAY = """
def bring(module, args, kwargs):
    return send_to_device(args, "cpu"), send_to_device(kwargs, "cpu")


def send(module, args, output):
    return send_to_device(output, $where)


for part in text_encoders:
    part.register_forward_pre_hook(bring, with_kwargs=True)
    part.register_forward_hook(send)
"""
