"""No weight is read while it waits in RAM: on one device nobody would notice, on a card it is an error in the user's hands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup

import autotune
from autotune.records.plan import Plan
from tests.contract.families import FAMILIES, build, run
from tests.contract.states import workload


class Away:
    """Parameters of a group that was sent away hold no numbers until it is brought again."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._kept: dict[torch.nn.Parameter, torch.Tensor] = {}  # by identity, as tensors are hashed
        really_offload, really_onload = ModuleGroup._offload_to_memory, ModuleGroup._onload_from_memory

        def offload(group: ModuleGroup) -> None:
            really_offload(group)
            for parameter in _parameters(group):
                self._kept.setdefault(parameter, parameter.data)
                parameter.data = torch.full_like(parameter.data, torch.nan)

        def onload(group: ModuleGroup) -> None:
            for parameter in _parameters(group):
                parameter.data = self._kept.pop(parameter, parameter.data)
            really_onload(group)

        patch.setattr(ModuleGroup, "_offload_to_memory", offload)
        patch.setattr(ModuleGroup, "_onload_from_memory", onload)

    def bring_back(self) -> None:
        """All of them hold what they held."""
        for parameter, data in self._kept.items():
            parameter.data = data
        self._kept.clear()


def _parameters(group: ModuleGroup) -> Iterator[torch.nn.Parameter]:
    """Not buffers: some pipelines read those by name and bring them themselves (`vae.latents_mean.to(...)`)."""
    for module in group.modules:
        yield from module.parameters()
    yield from group.parameters


@pytest.mark.parametrize("offload", ["group:block", "group:leaf"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_is_there_when_it_is_read(family, offload, monkeypatch):
    pipe = build(family)
    image = run(family, pipe, batch=2)
    away = Away(monkeypatch)
    autotune.apply(pipe, Plan(offload=offload), workload=workload(family))
    for _ in range(2):
        assert torch.equal(run(family, pipe, batch=2), image)
    away.bring_back()
    autotune.restore(pipe)
    assert torch.equal(run(family, pipe, batch=2), image)
