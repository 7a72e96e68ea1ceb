"""What things cost beside their work: a kernel that does nothing, an operator for Python and the host, a tensor that moves.

The host's share is measured on blocks of diffusers itself, tiny ones: their Python is what it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from autotune.measure.fit import Block, Moved
from autotune.measure.micro import Clock

__all__ = ["blocks", "hooked", "kernel_s", "moved", "release_s"]

_WIDTH, _TOKENS, _EDGE = 32, 16, 4  # as small as diffusers' blocks go: nothing but the host takes time
_LAYERS, _LAYER_WIDTH = (
    100,
    512,
)  # of a weight and a bias each, a MiB: tiny tensors move four times faster than a UNet's do
_BLOCK_BYTES = 4 * 2**20  # weights of a convolution


def kernel_s(clock: Clock) -> float:
    """Seconds of an operator on a handful of numbers: on a card, one in a queue; on the CPU, a bare call."""
    import torch

    few = torch.ones(16, device=clock.torch_device)
    return clock.device_s(partial(torch.add, few, few, out=torch.empty_like(few)))


def blocks(clock: Clock) -> list[Block]:
    """Blocks that UNets and transformers are made of, called with next to nothing to compute.

    >>> [(block.products, block.convolutions) for block in blocks(Clock("cpu", budget_s=0.01))]
    [(12, 0), (1, 2), (15, 0)]
    """
    import torch
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_flux import FluxTransformerBlock

    half = _WIDTH // 2
    with torch.device(clock.torch_device):
        tokens, image, time = torch.ones(2, _TOKENS, _WIDTH), torch.ones(2, _WIDTH, _EDGE, _EDGE), torch.ones(2, _WIDTH)
        angles = torch.ones(2 * _TOKENS, half)
        attending = BasicTransformerBlock(_WIDTH, 2, half, cross_attention_dim=_WIDTH).eval()
        convolving = ResnetBlock2D(in_channels=_WIDTH, temb_channels=_WIDTH, groups=_WIDTH // 4).eval()
        joined = FluxTransformerBlock(_WIDTH, 2, half).eval()
    calls: tuple[Callable[[], object], ...] = (
        partial(attending, tokens, encoder_hidden_states=tokens),
        partial(convolving, image, time),
        partial(joined, tokens, tokens, time, (angles, angles)),
    )
    found = []
    for call in calls:
        with _counted() as counts:
            call()
        found.append(Block(counts["operators"], counts["products"], counts["convolutions"], clock.wall_s(call)))
    return found


def moved(clock: Clock) -> Moved:
    """A component of layers, brought to the card and back."""
    layers = _layers()

    def there_and_back() -> None:
        layers.to(clock.torch_device)
        layers.to("cpu")

    return Moved(2 * _LAYERS, 4 * _LAYERS, _bytes_of(layers), clock.wall_s(there_and_back))


def release_s(clock: Clock) -> float:
    """Seconds of giving a block back to the card and taking it again: what accelerate's hooks do with each tensor."""
    import torch

    def given_back() -> None:
        torch.empty(_BLOCK_BYTES, dtype=torch.uint8, device=clock.torch_device)
        torch.cuda.empty_cache()

    return clock.wall_s(given_back)


def hooked(clock: Clock) -> Moved:
    """The same layers, called one by one: what the hooks of group offload add when they bring the weights of each."""
    import torch
    from diffusers.hooks import apply_group_offloading

    layers, here = _layers(), torch.device(clock.torch_device)
    few = torch.ones(1, _LAYER_WIDTH, device=here)
    plain_s = clock.wall_s(partial(layers.to(here), few))
    apply_group_offloading(layers.to("cpu"), here, torch.device("cpu"), offload_type="leaf_level")
    return Moved(_LAYERS, 2 * _LAYERS, _bytes_of(layers), max(clock.wall_s(partial(layers, few)) - plain_s, 0.0))


def _layers() -> Any:
    import torch

    return torch.nn.Sequential(*(torch.nn.Linear(_LAYER_WIDTH, _LAYER_WIDTH) for _ in range(_LAYERS)))


def _bytes_of(layers: Any) -> int:
    return sum(parameter.nbytes for parameter in layers.parameters())


@contextmanager
def _counted() -> Iterator[dict[str, int]]:
    """Counts the operators that are called inside, as a trace does: those with results of their own."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    counts = {"operators": 0, "products": 0, "convolutions": 0}

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            given = {leaf.untyped_storage()._cdata for leaf in tree_leaves(args) if hasattr(leaf, "untyped_storage")}
            made = {leaf.untyped_storage()._cdata for leaf in tree_leaves(out) if hasattr(leaf, "untyped_storage")}
            if made - given or func._schema.is_mutable:
                counts["operators"] += 1
                name = func._overloadpacket.__name__
                convolved = "convolution" in name
                counts["convolutions"] += convolved
                counts["products"] += not convolved and ("attention" in name or func._overloadpacket in flop_registry)
            return out

    with Counting():  # type: ignore[no-untyped-call]
        yield counts
