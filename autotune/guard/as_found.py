"""An optimised pipeline as its owner made it, for who asks a question: read from the journal, and nothing is touched.

A shadow has the classes and the very tensors of the pipeline in tables of its own, and there whatever the plan has changed is
put back, but for torch's hooks, which no trace takes over. It is good for looking, not for calling: functions that were put in
place of a forward belong to the original.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from autotune.guard.optimized import optimized_of
from autotune.levers.journal import Slot, Table, fill
from autotune.upstream.port import port_of

__all__ = ["as_found"]

_TABLES = ("_parameters", "_buffers")


def as_found(pipe: Any) -> Any:
    """The pipeline as it would be after `restore`; itself where there is nothing to take back.

    >>> import autotune
    >>> pipe = autotune.apply(demo_pipeline(), autotune.Plan(dtype="bf16"))
    >>> str(as_found(pipe).unet.dtype), str(pipe.unet.dtype)
    ('torch.float32', 'torch.bfloat16')
    """
    optimized = optimized_of(pipe)
    if optimized is None:
        return pipe
    shadow = copy.copy(pipe)
    tables: dict[int, Table] = {id(vars(pipe)): vars(shadow)}
    modules: dict[int, torch.nn.Module] = {}
    for name, part in port_of(pipe).components.items():
        if isinstance(part, torch.nn.Module):
            vars(shadow)[name] = _shadow_of(part, modules, tables)
    for slot in optimized.journal.was():
        table = tables.get(id(slot.table))
        if table is not None:
            fill(Slot(table, slot.key, slot.before))
    return shadow


def _shadow_of(
    module: torch.nn.Module, modules: dict[int, torch.nn.Module], tables: dict[int, Table]
) -> torch.nn.Module:
    """The same module with tables of its own, and so are those beneath it; one that stands in two places is one."""
    if id(module) in modules:
        return modules[id(module)]
    shadow: torch.nn.Module = object.__new__(type(module))
    modules[id(module)] = shadow
    own = vars(shadow)
    own.update(vars(module))
    tables[id(vars(module))] = own
    for name in _TABLES:
        own[name] = copy.copy(own[name])
        tables[id(vars(module)[name])] = own[name]
    own["_modules"] = {
        name: None if child is None else _shadow_of(child, modules, tables) for name, child in module._modules.items()
    }
    processor = own.get("processor")
    if hasattr(processor, "__dict__"):
        own["processor"] = copy.copy(processor)
        tables[id(vars(processor))] = vars(own["processor"])
    return shadow
