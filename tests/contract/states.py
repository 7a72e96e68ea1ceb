"""States that a user's pipeline can be in before it is optimised, and what of a pipeline must be the same afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import accelerate
import peft
import torch
from peft.utils import get_peft_model_state_dict

from autotune.records.plan import Plan
from autotune.upstream import port
from tests.contract.families import FAMILIES, call_of
from tests.contract.test_contract_residency import with_safety_checker

CPU = torch.device("cpu")
SOME = ("sd", "flux", "wan")
"""A UNet, an image transformer and a video transformer, where three say as much as six."""


def workload(family: str) -> dict[str, Any]:
    """The call of the suites, two images at once."""
    return {"prompt": "a cat", **call_of(family, batch=2)}


def mix(family: str) -> Plan:
    """Levers of every kind that are exact: processors, denoiser, VAE, placement."""
    attention = "vanilla" if family in {"sd", "sdxl"} else None
    parts = {"batch_split": 2} if family in SOME else {"feed_forward_chunks": 2}
    return Plan(attention=attention, **parts, vae_slicing=True, offload="model")


def denoiser_name(pipe: Any) -> str:
    """The component that takes LoRAs and is compiled."""
    return "unet" if "unet" in pipe.components else "transformer"


def denoiser(pipe: Any) -> Any:
    """That component, a compiled wrapper taken off."""
    return port.networks(pipe)[denoiser_name(pipe)]


def add_lora(pipe: Any, name: str = "style") -> None:
    """An adapter of rank 2 on the denoiser's attention, with weights that can be seen in the image."""
    torch.manual_seed(7)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    denoiser(pipe).add_adapter(config, adapter_name=name)


def lora_file(scratch: Any) -> dict[str, torch.Tensor]:
    """The same adapter as `load_lora_weights` reads it; the pipeline is used up."""
    add_lora(scratch)
    state = get_peft_model_state_dict(denoiser(scratch), adapter_name="style")
    return {f"{denoiser_name(scratch)}.{key}": tensor.clone() for key, tensor in state.items()}


def add_token(pipe: Any) -> None:
    """A textual inversion: `<toy>` becomes a word."""
    torch.manual_seed(3)
    pipe.load_textual_inversion({"<toy>": 2 * torch.randn(1, 32)}, token="<toy>")


def _sequential(part: Any) -> None:
    accelerate.cpu_offload(part, CPU, offload_buffers=len(part._parameters) > 0)


def _lower(pipe: Any) -> None:
    for part in port.networks(pipe).values():
        part.to(torch.bfloat16)


def _sequential_everywhere(pipe: Any) -> None:
    for part in port.networks(pipe).values():
        _sequential(part)


def _in_blocks(pipe: Any) -> None:
    pipe.enable_group_offload(CPU, offload_type="block_level", num_blocks_per_group=2)


def _one_in_blocks(pipe: Any) -> None:
    denoiser(pipe).enable_group_offload(CPU, offload_type="block_level", num_blocks_per_group=1)


def _by_hand(pipe: Any) -> None:
    denoiser(pipe).enable_group_offload(CPU, offload_type="leaf_level")
    _sequential(pipe.vae)
    accelerate.cpu_offload_with_hook(pipe.text_encoder, CPU)


def _dispatched(pipe: Any) -> None:
    accelerate.dispatch_model(denoiser(pipe), {"": "cpu"}, force_hooks=True)
    pipe.hf_device_map = dict.fromkeys(port.networks(pipe), "cpu")


def _wrapped(pipe: Any) -> None:
    setattr(pipe, denoiser_name(pipe), torch.compile(denoiser(pipe)))


def _fused(pipe: Any) -> None:
    add_lora(pipe)
    pipe.fuse_lora(components=[denoiser_name(pipe)])


def _normed(norm: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda pipe: norm(next(m for m in pipe.vae.decoder.modules() if hasattr(m, "weight") and m.weight.dim() > 3))


def _hooks_of_the_owner(pipe: Any) -> None:
    denoiser(pipe).register_forward_hook(lambda *_: None)
    plain = pipe.vae.decode
    pipe.vae.decode = lambda *args, **kwargs: plain(*args, **kwargs)


def _left_over(pipe: Any) -> None:
    pipe.enable_model_cpu_offload(device="cpu")
    pipe.remove_all_hooks()
    denoiser(pipe).requires_grad_(False)
    denoiser(pipe).fuse_qkv_projections()


class State(NamedTuple):
    """A state: how a fresh pipeline comes into it."""

    enter: Callable[[Any], Any]
    families: tuple[str, ...] = FAMILIES
    placed: bool = False
    """Whether it is only about where weights lie, so that everything read and traced is what it is for a plain pipeline."""
    refused: tuple[str, ...] = ()
    """The offload modes that cannot be had in it."""
    tolerance: float = 1e-4


_INSIDE = ("sequential", "group:leaf", "group:block")

STATES: dict[str, State] = {
    "plain": State(lambda pipe: None),
    "bf16": State(_lower, ("sd", "sdxl", "flux", "wan"), tolerance=0.05),
    "model offload": State(lambda pipe: pipe.enable_model_cpu_offload(device="cpu"), placed=True),
    "sequential offload": State(_sequential_everywhere, placed=True),
    "groups by leaf": State(lambda pipe: pipe.enable_group_offload(CPU, offload_type="leaf_level"), placed=True),
    "groups by block": State(_in_blocks, SOME, placed=True),
    "one component in groups": State(_one_in_blocks, SOME, placed=True),
    "hung by hand": State(_by_hand, SOME, placed=True),
    "device map": State(lambda pipe: setattr(pipe, "hf_device_map", "cpu"), ("sd",), placed=True),
    "dispatched": State(_dispatched, ("sd", "wan"), placed=True),
    "compiled": State(lambda pipe: denoiser(pipe).compile(), SOME, placed=True, refused=_INSIDE),
    "compiled wrapper": State(_wrapped, SOME, placed=True, refused=_INSIDE),
    "compiled blocks": State(
        lambda pipe: denoiser(pipe).compile_repeated_blocks(), ("flux", "wan"), placed=True, refused=_INSIDE
    ),
    "LoRA": State(add_lora, ("sd", "sdxl", "flux", "wan")),
    "fused LoRA": State(_fused, ("sd", "flux")),
    "safety checker": State(lambda pipe: None, ("sd",)),
    "old weight norm": State(_normed(torch.nn.utils.weight_norm), ("sd", "wan"), refused=("sequential",)),
    "weight norm": State(_normed(torch.nn.utils.parametrizations.weight_norm), ("sd", "wan"), refused=("sequential",)),
    "new token": State(add_token, ("sd",)),
    "hooks and methods of the owner": State(_hooks_of_the_owner, ("sd", "flux")),
    "what offload left behind": State(_left_over, ("sd", "flux")),
}


def entered(state: str, family: str, build: Callable[[str], Any]) -> Any:
    """A fresh pipeline in this state."""
    pipe = with_safety_checker() if state == "safety checker" else build(family)
    STATES[state].enter(pipe)
    return pipe
