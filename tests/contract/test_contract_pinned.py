"""What diffusers holds in RAM while it installs group offload with a stream, against what the replay says."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch.overrides import TorchFunctionMode

from autotune.flow.job import job_for
from autotune.flow.recordings import Recordings
from autotune.levers.offload import group_settings
from autotune.probe.catalog import card
from autotune.records.placement import placed
from autotune.records.plan import LEVERS, Plan
from autotune.records.workload import Workload
from autotune.search.space import Space
from autotune.simulate.ram import waiting_ram
from autotune.upstream.port import networks
from benchmarks.tiny import flux

CPU = torch.device("cpu")


@dataclass
class Pinning(TorchFunctionMode):
    """A card's pinned memory: copies that are counted, each as large as the host allocator makes it."""

    held: object
    copies: dict[int, torch.Tensor] = field(default_factory=dict)
    most_bytes: int = 0

    def __post_init__(self):
        super().__init__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not torch.Tensor.pin_memory or args[0].data_ptr() in self.copies:
            return func(*args, **(kwargs or {})) if func is not torch.Tensor.pin_memory else args[0]
        copy = args[0].clone()
        self.copies[copy.data_ptr()] = copy
        self.most_bytes = max(self.most_bytes, self.pinned_bytes + self.held(self.copies))
        return copy

    @property
    def pinned_bytes(self):
        return sum(1 << (copy.nbytes - 1).bit_length() for copy in self.copies.values())


def read_from_one_file(part):
    """Gives the component's weights one storage, as `safetensors.torch.load_file` does."""
    together = torch.cat([parameter.data.flatten() for parameter in part.parameters()])
    pieces = together.split([parameter.numel() for parameter in part.parameters()])
    for parameter, piece in zip(part.parameters(), pieces, strict=True):
        parameter.data = piece.view(parameter.shape)


def _tensors(part):
    return (*part.parameters(), *part.buffers())


@pytest.mark.parametrize("offload", ["group:block+stream", "group:leaf+stream"])
def test_copies_stand_beside_the_originals_until_a_component_has_its_hooks(offload):
    from diffusers.hooks import group_offloading

    pipe, plan = flux(), Plan(offload=offload)
    for part in networks(pipe).values():
        read_from_one_file(part)
    job = job_for(
        pipe, device=card("NVIDIA GeForce RTX 3060 12GB"), workload=Workload(), example=None, calls=1, undo=False
    )
    traces = Recordings(job, job.largest, job.calls[0]).traces(Space(values=dict.fromkeys(LEVERS, (None,))))
    weights = {name: sum(tensor.nbytes for tensor in _tensors(part)) for name, part in networks(pipe).items()}
    call = traces[Plan().execution].model_copy(update={"weights": weights})  # not in pieces of 512 bytes as on a card
    said = waiting_ram(placed(job.model, plan), call)

    def still_held(copies):
        """Storages that some weight still lies in and that are no copies."""
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for part in networks(pipe).values()
            for tensor in _tensors(part)
            if tensor.data_ptr() not in copies
        }
        return sum(storages.values())

    pinning = Pinning(still_held)
    with pinning:
        for name, part in networks(pipe).items():
            settings = group_settings(name, part, offload)
            if not settings["use_stream"]:
                continue  # as it was
            config = group_offloading.GroupOffloadingConfig(
                onload_device=CPU,
                offload_device=CPU,
                offload_type=group_offloading.GroupOffloadingType(settings["offload_type"]),
                non_blocking=False,
                record_stream=True,  # the CPU's streams cannot be waited for
                low_cpu_mem_usage=False,
                num_blocks_per_group=1,
                stream=torch.cpu.Stream(),
            )
            group_offloading._apply_group_offloading(part, config)
    assert (said.pinned_bytes, said.peak_bytes) == (pinning.pinned_bytes, pinning.most_bytes)
    assert pinning.most_bytes > 1.5 * sum(weights.values())
