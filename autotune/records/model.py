"""What a pipeline is made of, as facts: nothing here holds a tensor."""

from __future__ import annotations

from typing import Literal

from autotune.records.base import Record

__all__ = ["Component", "DenoiserFacts", "Model", "Role", "role_named"]

Role = Literal["text_encoder", "image_encoder", "denoiser", "vae", "controlnet", "safety_checker", "other"]

_ROLES_BY_NAME: dict[str, Role] = {
    "unet": "denoiser",
    "transformer": "denoiser",
    "transformer_2": "denoiser",
    "prior": "denoiser",
    "decoder": "denoiser",
    "vae": "vae",
    "vqvae": "vae",
    "movq": "vae",
    "image_encoder": "image_encoder",
    "controlnet": "controlnet",
    "safety_checker": "safety_checker",
}
_ROLES_BY_PREFIX: dict[str, Role] = {
    "text_encoder": "text_encoder",
    "transformer": "denoiser",
    "unet": "denoiser",
    "controlnet": "controlnet",
}


def role_named(name: str) -> Role | None:
    """The role that a component's name tells; None where it tells none.

    >>> role_named("text_encoder_3"), role_named("connectors")
    ('text_encoder', None)
    """
    if name in _ROLES_BY_NAME:
        return _ROLES_BY_NAME[name]
    return next((role for prefix, role in _ROLES_BY_PREFIX.items() if name.startswith(prefix)), None)


class Component(Record):
    """One neural network of the pipeline."""

    name: str
    """Its attribute on the pipeline, for example "unet"."""
    role: Role
    """What it does in a call."""
    class_name: str
    """Its class, for example "UNet2DConditionModel"."""
    parameters: int
    """Number of parameters, tied ones once."""
    bytes_by_dtype: dict[str, int]
    """Bytes of parameters and persistent buffers by dtype, tied tensors once."""
    capabilities: tuple[str, ...] = ()
    """What the object itself says it can do: "vae_slicing", "vae_tiling", "attention_processors" and so on."""

    @property
    def weights_bytes(self) -> int:
        """Bytes of all its weights as they are now."""
        return sum(self.bytes_by_dtype.values())


class Model(Record):
    """A pipeline's facts and the two keys under which profiles know it."""

    name: str
    """For people: a zoo name, a folder or hub id, or the pipeline's class."""
    pipeline_class: str
    """For example "StableDiffusionPipeline"."""
    components: tuple[Component, ...]
    """Its networks, in the pipeline's order."""
    offload_sequence: tuple[str, ...] | None = None
    """The order in which model offload swaps components; None where the pipeline declares none."""
    excluded_from_offload: tuple[str, ...] = ()
    """Components that diffusers moves to the card for good (`_exclude_from_cpu_offload`)."""
    structural_key: str
    """Hash of classes, configurations, parameter shapes and dtypes: the same for a folder, a hub id and a loaded pipeline."""
    source_key: str | None = None
    """Hash of the configuration files as found, so that a profile can be found before anything is built."""

    def component(self, name: str) -> Component:
        """The component of that name."""
        return next(part for part in self.components if part.name == name)

    @property
    def denoisers(self) -> frozenset[str]:
        """The components that run in each denoising step; the largest one where no name says so."""
        named = frozenset(part.name for part in self.components if part.role == "denoiser")
        return named or frozenset({max(self.components, key=lambda part: part.parameters).name})

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights as they are now."""
        return sum(part.weights_bytes for part in self.components)


class DenoiserFacts(Record):
    """What one call of a denoiser in a weightless run shows about its batch."""

    batch: int
    """Samples in one call: the workload's batch, twice that where guidance doubles it."""
    small: bool = False
    """Whether what a call allocates is little beside the denoiser's weights."""
    batched: tuple[str, ...]
    """Paths of the arguments that have the batch as their first axis, as `torch.utils._pytree.keystr` writes them."""
    mixes: str = ""
    """Why the batch cannot be split; empty where no operator was seen to mix samples."""
