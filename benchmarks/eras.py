"""What diffusers did otherwise when a record was measured, where that is known and changes what is allocated.

Each rule is a version's own code, put on the network objects of a pipeline that was built for the comparison and is thrown away
after it. No rule looks at a record's figure.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from diffusers.models.attention_processor import AttnProcessor

__all__ = ["as_of", "version_at"]

Version = tuple[int, int]

# First days of minor versions that matter here (release notes of diffusers), for records that state no version.
_RELEASED = {"2022-11-23": (0, 8), "2023-01-25": (0, 12), "2023-06-08": (0, 17), "2024-10-22": (0, 31)}
_LATEST: Version = (0, 42)


def version_at(stated: str | None, date: str | None) -> Version:
    """The minor version that was installed: as stated, else by date (`2024-09`, or the start of a longer text).

    What was published in a month is taken to have been measured before that month's releases.

    >>> version_at("0.15.1", "2023-04"), version_at(None, "2024-10"), version_at(None, None)
    ((0, 15), (0, 30), (0, 42))
    """
    said = re.match(r"(\d+)\.(\d+)", stated or "")
    if said:
        return int(said.group(1)), int(said.group(2))
    when = re.match(r"\d{4}(-\d\d)?", date or "")
    if when is None:
        return _LATEST
    later = [version for day, version in _RELEASED.items() if day > when.group()]
    return (later[0][0], later[0][1] - 1) if later else _LATEST


def as_of(pipe: Any, *, version: Version, attention: str, autocast: bool) -> None:
    """Changes the pipeline's networks to what they did in that version."""
    networks = [getattr(pipe, name) for name in ("unet", "vae") if hasattr(pipe, name)]
    if version < (0, 12) and attention in {"vanilla", "xformers"}:
        for network in networks:
            memory_efficient, apart = attention == "xformers", version < (0, 8)
            network.set_attn_processor(CrossAttention011(memory_efficient, scaled_apart=apart, autocast=autocast))
    elif attention == "vanilla":
        for network in networks:
            network.set_attn_processor(Scores012() if version < (0, 17) else AttnProcessor())
    if version < (0, 31) and type(getattr(pipe, "vae", None)).__name__ == "AutoencoderKLCogVideoX":
        _cogvideox_030(pipe)


class Scores012(AttnProcessor):
    """Scores as 0.12 to 0.16 made them: what they are added to lives as long as their softmax (models/cross_attention.py)."""

    def __call__(self, attn: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        attn.get_attention_scores = lambda query, key, mask=None: _scores_012(attn, query, key, mask)
        try:
            return super().__call__(attn, *args, **kwargs)
        finally:
            del attn.get_attention_scores


def _scores_012(attn: Any, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    added = mask
    if added is None:
        added = torch.empty(*query.shape[:2], key.shape[1], dtype=query.dtype, device=query.device)
    scores = torch.baddbmm(added, query, key.transpose(-1, -2), beta=0 if mask is None else 1, alpha=attn.scale)
    if attn.upcast_softmax:
        scores = scores.float()
    return scores.softmax(dim=-1).to(query.dtype)


class CrossAttention011:
    """Attention before processors: heads are copied into the batch, and scores live beside their softmax.

    diffusers 0.11 models/attention.py `CrossAttention`, and `AttentionBlock` for the VAE. Before 0.8 scores were multiplied and
    scaled by two kernels. Under autocast the softmax writes fp32 (its policy `fp32_set_opt_dtype`), and the next
    product wants it in half precision; that normalisations are widened as well is left out.
    """

    def __init__(self, memory_efficient: bool, *, scaled_apart: bool = False, autocast: bool = False) -> None:
        self.memory_efficient = memory_efficient
        self.scaled_apart = scaled_apart
        self.autocast = autocast

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, **_: Any
    ) -> torch.Tensor:
        residual, is_image = hidden_states, hidden_states.dim() == 4
        if is_image:
            normed = attn.group_norm(hidden_states)
            hidden_states = normed.view(*normed.shape[:2], -1).transpose(1, 2)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        query = self._heads_to_batch(query, attn.heads)
        key = self._heads_to_batch(key, attn.heads)
        value = self._heads_to_batch(value, attn.heads)
        if self.memory_efficient:
            hidden_states = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
        else:
            hidden_states = self._scores_kept(query, key, value, upcast=is_image)
        hidden_states = attn.to_out[0](self._batch_to_heads(hidden_states, attn.heads))
        if is_image:
            hidden_states = hidden_states.transpose(-1, -2).reshape(residual.shape)
            hidden_states = (hidden_states + residual) / attn.rescale_output_factor
        return hidden_states

    def _scores_kept(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, upcast: bool
    ) -> torch.Tensor:
        if self.scaled_apart:
            scores = torch.bmm(query, key.transpose(-1, -2)) * query.shape[-1] ** -0.5
        else:
            unread = torch.empty(*query.shape[:2], key.shape[1], dtype=query.dtype, device=query.device)
            scores = torch.baddbmm(unread, query, key.transpose(-1, -2), beta=0)
            del unread
        if self.autocast:
            probabilities = torch.ops.aten._softmax(scores, -1, True).to(value.dtype)
        else:
            probabilities = (scores.float() if upcast else scores).softmax(dim=-1).to(value.dtype)
        return torch.bmm(probabilities, value)

    @staticmethod
    def _heads_to_batch(tensor: torch.Tensor, heads: int) -> torch.Tensor:
        batch, length, channels = tensor.shape
        split = tensor.reshape(batch, length, heads, channels // heads)
        return split.permute(0, 2, 1, 3).reshape(batch * heads, length, channels // heads)

    @staticmethod
    def _batch_to_heads(tensor: torch.Tensor, heads: int) -> torch.Tensor:
        batch, length, channels = tensor.shape
        split = tensor.reshape(batch // heads, heads, length, channels)
        return split.permute(0, 2, 1, 3).reshape(batch // heads, length, channels * heads)


def _cogvideox_030(pipe: Any) -> None:
    """diffusers 0.30: each causal convolution keeps its own cache and pads in a copy; position embeddings are always held."""
    from diffusers.models.autoencoders import autoencoder_kl_cogvideox as cogvideox

    convolution = type("CogVideoXCausalConv3d", (cogvideox.CogVideoXCausalConv3d,), {"forward": _causal_conv_030})
    norm = type("CogVideoXSpatialNorm3D", (cogvideox.CogVideoXSpatialNorm3D,), {"forward": _spatial_norm_030})
    for module in pipe.vae.modules():
        if isinstance(module, cogvideox.CogVideoXCausalConv3d):
            module.__class__ = convolution
            module.conv.padding = (0, 0, 0)
            module.kept = None
        elif isinstance(module, cogvideox.CogVideoXSpatialNorm3D):
            module.__class__ = norm
    config, embed = pipe.transformer.config, pipe.transformer.patch_embed
    if config.use_rotary_positional_embeddings and getattr(embed, "pos_embedding", None) is None:
        frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
        tokens = frames * (config.sample_height // config.patch_size) * (config.sample_width // config.patch_size)
        width = config.num_attention_heads * config.attention_head_dim
        held = torch.empty(1, config.max_text_seq_length + tokens, width, dtype=pipe.transformer.dtype, device="meta")
        embed.register_buffer("pos_embedding_030", held, persistent=False)


def _causal_conv_030(self: Any, inputs: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
    if self.time_kernel_size > 1:
        kept = [self.kept] if self.kept is not None else [inputs[:, :, :1]] * (self.time_kernel_size - 1)
        inputs = torch.cat([*kept, inputs], dim=2)
        del kept
    self.kept = None
    self.kept = inputs[:, :, -self.time_kernel_size + 1 :].clone()
    inputs = F.pad(inputs, (self.width_pad, self.width_pad, self.height_pad, self.height_pad))
    return self.conv(inputs), None


def _spatial_norm_030(self: Any, f: torch.Tensor, zq: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
    if f.shape[2] > 1 and f.shape[2] % 2 == 1:
        first = F.interpolate(zq[:, :, :1], size=f[:, :, :1].shape[-3:])
        zq = torch.cat([first, F.interpolate(zq[:, :, 1:], size=f[:, :, 1:].shape[-3:])], dim=2)
    else:
        zq = F.interpolate(zq, size=f.shape[-3:])
    return self.norm_layer(f) * self.conv_y(zq)[0] + self.conv_b(zq)[0], None
