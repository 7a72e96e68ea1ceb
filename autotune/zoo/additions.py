"""What people add to a model: ControlNets, a LoRA, an IP-Adapter, made on the meta device like the model itself; and the
pipeline of its family that takes a picture.

The added networks have the precision of the denoiser, since that is how they are loaded beside it. A LoRA goes into the
denoiser's attention layers only: text encoders are left alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from autotune.errors import PipelineError
from autotune.records.model import role_named
from autotune.zoo import untrusted
from autotune.zoo.added import CONFIG, adapter_named, all_adapters, all_controlnets, controlnet_named
from autotune.zoo.build import class_of, component, network, quiet
from autotune.zoo.recipes import Recipe

__all__ = ["in_words", "taking", "with_additions"]

# Targets of diffusers' own training scripts (examples/dreambooth/train_dreambooth_lora_{sdxl,sd3,flux}.py).
_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
# Both configurations have these, and a ControlNet runs beside its model only where they agree.
_SHARED_WIDTHS = ("cross_attention_dim", "joint_attention_dim", "pooled_projection_dim", "addition_embed_type")
_TASK = re.compile(r"(Img2Img|Inpaint|Inpainting)?Pipeline$")


def with_additions(
    pipe: Any, *, controlnets: Sequence[str] = (), lora_rank: int | None = None, ip_adapter: str | None = None
) -> Any:
    """The pipeline with these added: itself, or with ControlNets the pipeline of its family that takes them.

    Args:
        pipe: a pipeline on the meta device.
        controlnets: zoo names or folders.
        lora_rank: rank of a LoRA on the denoiser.
        ip_adapter: a zoo name.

    Raises:
        PipelineError: an addition that is not known or does not go with this model; says what there is.

    >>> from autotune.zoo.locate import locate
    >>> type(with_additions(locate("sd15").pipe, controlnets=["controlnet-sd15-canny"])).__name__
    'StableDiffusionControlNetPipeline'
    """
    with quiet():
        if controlnets:
            pipe = _with_controlnets(pipe, [_controlnet(pipe, name) for name in controlnets])
        if ip_adapter is not None:
            _add_ip_adapter(pipe, adapter_named(ip_adapter))
        if lora_rank is not None:
            _add_lora(pipe, lora_rank)
    return pipe


def taking(pipe: Any, inputs: Collection[str]) -> Any:
    """The pipeline of the same networks that takes an image, or an image and a mask: itself where it does, or none does.

    >>> from autotune.zoo.locate import locate
    >>> type(taking(locate("sd15").pipe, {"image"})).__name__
    'StableDiffusionImg2ImgPipeline'
    """
    import diffusers

    takes = inspect.signature(type(pipe).__call__).parameters
    task = "Inpaint" if "mask" in inputs and not {"mask", "mask_image"} & takes.keys() else ""
    task = task or (
        "Img2Img" if "image" in inputs and not any(name.endswith("image") for name in _plainly(takes)) else ""
    )
    wanted = getattr(diffusers, _TASK.sub(f"{task}Pipeline", type(pipe).__name__), None) if task else None
    return pipe if wanted is None else _of_class(wanted, pipe)


def in_words(
    *, controlnets: Sequence[str] = (), lora_rank: int | None = None, ip_adapter: str | None = None
) -> tuple[str, ...]:
    """The additions for people.

    >>> in_words(controlnets=["controlnet-sd15-canny"], lora_rank=16)
    ('controlnet-sd15-canny', 'LoRA rank 16')
    """
    known = all_controlnets()
    shown = [
        name if any(net.is_called(name) for net in known) else f"ControlNet {Path(name).name}" for name in controlnets
    ]
    return (*shown, *([ip_adapter] if ip_adapter else []), *([f"LoRA rank {lora_rank}"] if lora_rank else []))


def _with_controlnets(pipe: Any, nets: Sequence[Any]) -> Any:
    """By diffusers' naming: StableDiffusionXLImg2ImgPipeline becomes StableDiffusionXLControlNetImg2ImgPipeline."""
    import diffusers

    family, kind = type(pipe).__name__, "ControlNetUnion" if "Union" in type(nets[0]).__name__ else "ControlNet"
    bare = re.sub("ControlNet(Union)?", "", family)
    name = _TASK.sub(lambda task: f"{kind}{task[0]}", bare)
    wanted = getattr(diffusers, name, None)
    if wanted is None:
        raise PipelineError(f"diffusers has no pipeline with ControlNets for {family}; plan for the model without")
    parameters = inspect.signature(wanted.__init__).parameters
    for net in nets:
        if not re.search(rf"\b{type(net).__name__}\b", str(parameters["controlnet"].annotation)):
            raise PipelineError(f"a {type(net).__name__} does not go with {family}; {_what_goes_with(pipe)}")
        _check_widths(pipe, net)
    return _of_class(wanted, pipe, controlnet=nets[0] if len(nets) == 1 else list(nets))


def _of_class(wanted: Any, pipe: Any, **added: Any) -> Any:
    """A pipeline of that class around the same parts."""
    parameters = inspect.signature(wanted.__init__).parameters
    there = {name: part for name, part in {**pipe.config, **pipe.components}.items() if name in parameters}
    with quiet():
        made = wanted(**{**there, **added})
    made.set_progress_bar_config(disable=True)
    return made


def _plainly(names: Collection[str]) -> list[str]:
    """Those of the arguments that are no adapter's."""
    return [name for name in names if not name.startswith(("ip_adapter", "negative_ip_adapter"))]


def _controlnet(pipe: Any, name: str) -> Any:
    found = controlnet_named(name)
    if isinstance(found, Path):
        return _from_folder(found, _dtype_of(pipe))
    return component(found, "controlnet", dtype=_dtype_of(pipe))


def _from_folder(folder: Path, dtype: Any) -> Any:
    import diffusers

    config = untrusted.load(folder, CONFIG)
    class_name = str(config.get("_class_name"))
    cls = getattr(diffusers, class_name, None) if class_name.isidentifier() else None
    if "ControlNet" not in class_name or not isinstance(cls, type) or not issubclass(cls, diffusers.ModelMixin):
        raise PipelineError(f"'{folder}' describes a {class_name} and no ControlNet; give the folder of a ControlNet")
    try:
        return network(cls, config, dtype=dtype)
    except (TypeError, ValueError, KeyError) as error:
        raise PipelineError(f"{folder / CONFIG} does not describe a {class_name}: {error}") from error


def _check_widths(pipe: Any, net: Any) -> None:
    denoiser = _denoisers(pipe)[0]
    for width in _SHARED_WIDTHS:
        of_net, of_model = net.config.get(width), denoiser.config.get(width)
        if width in net.config and width in denoiser.config and of_net != of_model:
            raise PipelineError(
                f"this {type(net).__name__} is for another model: its {width} is {of_net}, that of this "
                f"{type(denoiser).__name__} is {of_model}; {_what_goes_with(pipe)}"
            )


def _what_goes_with(pipe: Any) -> str:
    """The zoo's ControlNets for pipelines of this class."""
    family = re.sub("ControlNet(Union)?", "", type(pipe).__name__)
    fitting = sorted({r.name for r in all_controlnets() if _TASK.sub("", family) == _family_of(r)})
    return f"there is {', '.join(fitting)}" if fitting else "the zoo has none for it; a folder of one can be given"


def _family_of(recipe: Recipe) -> str:
    return _TASK.sub("", re.sub("ControlNet(Union)?", "", recipe.pipeline_class or ""))


def _add_lora(pipe: Any, rank: int) -> None:
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise PipelineError("a LoRA needs the package peft, which is not installed; pip install peft") from error
    for denoiser in _denoisers(pipe):
        paths = [path for path, _ in denoiser.named_modules()]
        targets = [name for name in _LORA_TARGETS if any(path.endswith(f".{name}") for path in paths)]
        if not targets or not hasattr(denoiser, "add_adapter"):
            raise PipelineError(f"{type(denoiser).__name__} has no attention layers that a LoRA is known to go on")
        denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, init_lora_weights=False))
        for name, weight in denoiser.named_parameters():
            if ".lora_" in name:  # peft makes them in float32, loading one casts them to the model's precision
                weight.data = weight.data.to(device=denoiser.device, dtype=denoiser.dtype)
        denoiser.requires_grad_(False)


def _add_ip_adapter(pipe: Any, recipe: Recipe) -> None:
    """As diffusers' loader does (loaders/unet.py `_load_ip_adapter_weights`): projections in the cross-attention's processors,
    the image's in the UNet, the image encoder beside it."""
    import torch
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import MultiIPAdapterImageProjection
    from transformers import CLIPImageProcessor

    unet = getattr(pipe, "unet", None)
    if unet is None or "ip_adapter_image" not in inspect.signature(type(pipe).__call__).parameters:
        raise PipelineError(
            f"{recipe.name} is for a UNet, and {type(pipe).__name__} takes no ip_adapter_image with one"
        )
    part = recipe.component("image_projection")
    with torch.device("meta"):
        projection = class_of(part)(**part.arguments).to(unet.dtype)
    found = sum(weight.numel() for weight in projection.parameters())
    if found != part.parameters:
        raise PipelineError(
            f"{recipe.name}: its image projection should have {part.parameters} parameters, not {found}"
        )
    tokens, width = _image_tokens(projection)
    if width != unet.config.cross_attention_dim:
        fitting = sorted({r.name for r in all_adapters() if _width_of(r) == unet.config.cross_attention_dim})
        raise PipelineError(
            f"{recipe.name} is for another model: it makes tokens of {width}, this UNet takes "
            f"{unet.config.cross_attention_dim}; there is {', '.join(fitting) or 'none for it in the zoo'}"
        )
    processors = dict(unet.attn_processors)
    for name in processors:
        if not name.endswith("attn1.processor") and "motion_modules" not in name:
            with torch.device("meta"):
                processors[name] = IPAdapterAttnProcessor2_0(
                    hidden_size=_hidden_size(unet.config, name), cross_attention_dim=width, num_tokens=(tokens,)
                ).to(unet.dtype)
    unet.set_attn_processor(processors)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
    unet.eval()
    if getattr(pipe, "image_encoder", None) is None:
        encoder = component(recipe, "image_encoder", dtype=_dtype_of(pipe))
        pipe.register_modules(image_encoder=encoder)
    if getattr(pipe, "feature_extractor", None) is None:
        edge_px = pipe.image_encoder.config.image_size
        pipe.register_modules(feature_extractor=CLIPImageProcessor(size=edge_px, crop_size=edge_px))


def _image_tokens(projection: Any) -> tuple[int, int]:
    """Tokens that an image becomes, and their width."""
    if hasattr(projection, "latents"):  # IP-Adapter Plus resamples to as many as it has queries
        return projection.latents.shape[1], projection.norm_out.normalized_shape[0]
    return projection.num_image_text_embeds, projection.norm.normalized_shape[0]


def _width_of(recipe: Recipe) -> int:
    arguments = recipe.component("image_projection").arguments
    # The classes' own default is the width of Stable Diffusion 1 (diffusers/models/embeddings.py ImageProjection).
    return int(arguments.get("cross_attention_dim", arguments.get("output_dims", 768)))


def _hidden_size(config: Any, name: str) -> int:
    widths: list[int] = list(config.block_out_channels)
    if name.startswith("mid_block"):
        return widths[-1]
    where, block = name.split(".")[:2]
    return (widths if where == "down_blocks" else widths[::-1])[int(block)]


def _denoisers(pipe: Any) -> list[Any]:
    return [part for name, part in pipe.components.items() if part is not None and role_named(name) == "denoiser"]


def _dtype_of(pipe: Any) -> Any:
    return str(_denoisers(pipe)[0].dtype).removeprefix("torch.")
