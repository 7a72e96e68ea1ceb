"""How many bytes a component's weights take, in all and module by module."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from autotune.upstream.groups import named_groups

__all__ = ["block_bytes", "buffer_bytes", "own_bytes", "precision", "tensor_bytes", "weight_bytes"]

_ALIGNMENT_BYTES = 512  # kMinBlockSize of the CUDA caching allocator, c10/cuda/CUDACachingAllocator.cpp


def precision(part: torch.nn.Module) -> torch.dtype:
    floating = (parameter.dtype for parameter in part.parameters() if parameter.is_floating_point())
    return next(floating, torch.float32)


def own_bytes(module: torch.nn.Module, with_buffers: bool) -> int:
    """Bytes that sequential offload brings in for this module: its parameters, and saved buffers where it offloads them."""
    total = sum(p.numel() * p.itemsize for p in module._parameters.values() if p is not None)
    if with_buffers:
        saved = (b for n, b in module._buffers.items() if b is not None and n not in module._non_persistent_buffers_set)
        total += sum(b.numel() * b.itemsize for b in saved)
    return total


def _aligned(tensor: torch.Tensor) -> int:
    return -(-tensor.numel() * tensor.itemsize // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def weight_bytes(part: torch.nn.Module) -> int:
    return sum(_aligned(tensor) for tensor in {*part.parameters(), *part.buffers()})


def buffer_bytes(part: torch.nn.Module) -> int:
    with_buffers = len(part._parameters) > 0
    buffers = [
        buffer
        for module in part.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and (not with_buffers or name in module._non_persistent_buffers_set)
    ]
    return sum(_aligned(buffer) for buffer in buffers)


def block_bytes(part: torch.nn.Module, path: str) -> dict[str, int]:
    """Bytes of what group offload by block moves at a time, by path (hooks/group_offloading.py
    `_apply_group_offloading_block_level`): members of the network's own lists, and within the modules that its class names
    those of their lists and what is left of them."""
    named = named_groups(part)
    blocks: dict[str, int] = {}
    for name, child in part.named_children():
        if name in named:
            inner = block_bytes(child, f"{path}.{name}")
            blocks |= inner | {f"{path}.{name}": weight_bytes(child) - sum(inner.values())}
        elif isinstance(child, torch.nn.ModuleList | torch.nn.Sequential):
            blocks |= {f"{path}.{name}.{index}": weight_bytes(block) for index, block in child.named_children()}
    return blocks


def tensor_bytes(part: torch.nn.Module, path: str) -> dict[str, tuple[int, ...]]:
    """Bytes of each module's own tensors, by path, in the order of `torch.nn.Module._apply`: children, parameters, buffers."""
    seen: set[int] = set()

    def visit(module: torch.nn.Module, path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        for name, child in module.named_children():
            yield from visit(child, f"{path}.{name}")
        held = (*module._parameters.values(), *module._buffers.values())
        own = [tensor for tensor in held if tensor is not None and id(tensor) not in seen]
        seen.update(map(id, own))
        if own:
            yield path, tuple(tensor.numel() * tensor.itemsize for tensor in own)

    return dict(visit(part, path))
