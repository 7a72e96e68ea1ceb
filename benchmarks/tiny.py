"""Six real diffusers pipelines that are tiny: random weights, built offline in well under a second each.

Same classes, same code paths and same quirks as the models people use; only the sizes differ.
Every text encoder takes sixteen tokens, every alphabet is a to z, and a seed makes each build the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_lowercase
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    WanPipeline,
    WanTransformer3DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

__all__ = ["CALLS", "PIPELINES", "flux", "generate", "ltx", "sd", "sd3", "sdxl", "wan"]

TOKENS = 16
WIDTH = 32


def sd() -> StableDiffusionPipeline:
    """Stable Diffusion 1: one text encoder, a UNet, a VAE that halves the image once."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**_UNET_BLOCKS, attention_head_dim=4, norm_num_groups=2, cross_attention_dim=WIDTH)
    return _quiet(
        StableDiffusionPipeline(
            unet=unet.eval(),
            scheduler=DDIMScheduler(**_STABLE_BETAS, clip_sample=False, set_alpha_to_one=False),
            vae=_vae(),
            text_encoder=_clip(),
            tokenizer=_clip_tokenizer(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def sdxl() -> StableDiffusionXLPipeline:
    """Stable Diffusion XL: two text encoders, one of them pooled, and size conditioning."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        **_UNET_BLOCKS,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        cross_attention_dim=2 * WIDTH,
    )
    return _quiet(
        StableDiffusionXLPipeline(
            unet=unet.eval(),
            scheduler=EulerDiscreteScheduler(**_STABLE_BETAS, timestep_spacing="leading"),
            vae=_vae(),
            text_encoder=_clip(),
            text_encoder_2=_clip(pooled=True),
            tokenizer=_clip_tokenizer(),
            tokenizer_2=_clip_tokenizer(),
            add_watermarker=False,
        )
    )


def flux() -> FluxPipeline:
    """FLUX.1: CLIP and T5, a transformer of double and single blocks."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=[4, 4, 8],
    )
    return _quiet(
        FluxPipeline(
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=_flow_vae(latent_channels=1),
            text_encoder=_clip(),
            text_encoder_2=_t5(),
            tokenizer=_clip_tokenizer(),
            tokenizer_2=_t5_tokenizer(),
        )
    )


def sd3() -> StableDiffusion3Pipeline:
    """Stable Diffusion 3: three text encoders and a multimodal transformer."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=WIDTH,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH,
    )
    return _quiet(
        StableDiffusion3Pipeline(
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=_flow_vae(latent_channels=4),
            text_encoder=_clip(pooled=True),
            text_encoder_2=_clip(pooled=True),
            text_encoder_3=_t5(),
            tokenizer=_clip_tokenizer(),
            tokenizer_2=_clip_tokenizer(),
            tokenizer_3=_t5_tokenizer(),
        )
    )


def wan() -> WanPipeline:
    """Wan 2.1, text to video: T5, a video transformer, a VAE that caches frames."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=256,
        ffn_dim=32,
        num_layers=2,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    return _quiet(
        WanPipeline(
            transformer=transformer.eval(),
            transformer_2=None,
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
            vae=vae.eval(),
            text_encoder=_t5(),
            tokenizer=_t5_tokenizer(),
        )
    )


def ltx() -> LTXPipeline:
    """LTX-Video: T5, a video transformer, a VAE that decodes all frames at once."""
    torch.manual_seed(0)
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        patch_size=1,
        patch_size_t=1,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=WIDTH,
        num_layers=1,
        caption_channels=WIDTH,
    )
    vae = AutoencoderKLLTXVideo(
        in_channels=3,
        out_channels=3,
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    vae.use_framewise_encoding = False
    vae.use_framewise_decoding = False
    return _quiet(
        LTXPipeline(
            transformer=transformer.eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=vae.eval(),
            text_encoder=_t5(),
            tokenizer=_t5_tokenizer(),
        )
    )


PIPELINES: dict[str, Callable[[], Any]] = {"sd": sd, "sdxl": sdxl, "flux": flux, "sd3": sd3, "wan": wan, "ltx": ltx}
"""How to build each, by name."""

CALLS: dict[str, dict[str, Any]] = {
    "sd": {"height": 64, "width": 64, "num_inference_steps": 2},
    "sdxl": {"height": 64, "width": 64, "num_inference_steps": 2},
    "flux": {"height": 8, "width": 8, "max_sequence_length": TOKENS, "num_inference_steps": 2},
    "sd3": {"height": 32, "width": 32, "max_sequence_length": TOKENS, "num_inference_steps": 2},
    "wan": {"height": 16, "width": 16, "num_frames": 9, "max_sequence_length": TOKENS, "num_inference_steps": 2},
    "ltx": {"height": 32, "width": 32, "num_frames": 9, "max_sequence_length": TOKENS, "num_inference_steps": 2},
}
"""The arguments of a call of each, by name: all but the prompt and the generator."""


def generate(name: str, pipe: Any, **changes: Any) -> torch.Tensor:
    """The images or frames of one seeded call of the pipeline of that name."""
    arguments: Mapping[str, Any] = {"prompt": "a cat", "output_type": "pt", **CALLS[name], **changes}
    return pipe(generator=torch.Generator("cpu").manual_seed(0), return_dict=False, **arguments)[0]


_STABLE_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_UNET_BLOCKS = {
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def _clip(*, pooled: bool = False) -> torch.nn.Module:
    torch.manual_seed(0)
    config = CLIPTextConfig(
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        hidden_size=WIDTH,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=64,
        max_position_embeddings=TOKENS,
        projection_dim=WIDTH,
    )
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config).eval()


def _t5() -> torch.nn.Module:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=64, d_model=WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4, relative_attention_num_buckets=8
    )
    return T5EncoderModel(config).eval()


def _vae() -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=32,
        layers_per_block=1,
        sample_size=32,
    )
    return vae.eval()


def _flow_vae(*, latent_channels: int) -> AutoencoderKL:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(4,),
        latent_channels=latent_channels,
        norm_num_groups=1,
        layers_per_block=1,
        sample_size=32,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0609,
        scaling_factor=1.5035,
    )
    return vae.eval()


def _clip_tokenizer() -> CLIPTokenizer:
    pieces = ["<|startoftext|>", "<|endoftext|>", *(piece for c in ascii_lowercase for piece in (c, f"{c}</w>"))]
    return CLIPTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], model_max_length=TOKENS)


def _t5_tokenizer() -> T5Tokenizer:
    scores = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -2.0, **dict.fromkeys(ascii_lowercase, -3.0)}
    return T5Tokenizer(vocab=list(scores.items()), extra_ids=0, model_max_length=TOKENS)


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
