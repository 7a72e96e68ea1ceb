"""What a network is made of at one moment, in flat lists that are compared in a fraction of a millisecond.

It sees submodules, weights and hooks that are exchanged, added or taken away, other precisions, attention processors, functions
in place of a `forward`, and switches. It does not see numbers within a weight: those a trace and a plan read as they are.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch

from autotune.levers.journal import ABSENT
from autotune.upstream import internals

__all__ = ["Fingerprint"]

_PLAIN = (bool, int, float, str, type(None))
_SHALLOW = 2  # names in the path of a network's blocks, whose plain attributes are all compared
_dtype = operator.attrgetter("dtype")

Table = dict[str, Any]


class Fingerprint:
    """A network as it is when this is made.

    Args:
        part: the network.
        weights: whether exchanged weights count: under sequential offload they are others after each call. Buffers never
            count: they are others after each move.
        processors: whether exchanged attention processors count.
        hooks: whether hooks, and settings that come with them, count.
    """

    def __init__(
        self, part: torch.nn.Module, *, weights: bool = True, processors: bool = True, hooks: bool = True
    ) -> None:
        self._root = vars(part)
        own = {path: vars(module) for path, module in part.named_modules()}
        held = [table["_parameters"] for table in own.values() if table["_parameters"]]
        firsts = [tensor for table in held if (tensor := _first(table)) is not None]
        places = ((path, table, name) for path, table in own.items() for name in table)
        switches = [place for place in places if _is_switch(*place) and (processors or place[2] != "processor")]
        self._switches = [f"{path}.{name}" if path else name for path, _, name in switches]
        self._children = [
            f"{path}.{name}" if path else name for path, table in own.items() for name in table["_modules"]
        ]
        self._looks: dict[str, Callable[[], list[Any]]] = {
            "children": _values([table["_modules"] for table in own.values() if table["_modules"]]),
            "weights": _values(held if weights else []),
            "dtypes": (lambda: list(map(_dtype, firsts))) if weights else _dtypes(held),
            "switches": _items([(table, name) for _, table, name in switches]),
            "forwards": _kinds([table for table in own.values() if "forward" in table], "forward"),
            "hooks": _filled(
                [table[name] for table in own.values() for name in ("_forward_hooks", "_forward_pre_hooks")]
            ),
            "fused": _sizes([table["merged_adapters"] for table in own.values() if "merged_adapters" in table]),
            "leaves": _filled([table["_modules"] for table in own.values() if not table["_modules"]]),
            "attributes": _sizes(list(own.values())),
        }
        for name in () if hooks else ("hooks", "attributes"):
            del self._looks[name]
        self._before = {name: look() for name, look in self._looks.items()}

    def is_of(self, part: torch.nn.Module) -> bool:
        """Whether it is this network's."""
        return vars(part) is self._root

    def change(self) -> str:
        """The first thing that is no longer as it was, in a clause; empty if nothing is.

        >>> import torch
        >>> part = torch.nn.Sequential(torch.nn.Linear(1, 1))
        >>> seen = Fingerprint(part)
        >>> part[0] = torch.nn.Linear(1, 2)
        >>> seen.change()
        'module 0 was exchanged'
        """
        for name, look in self._looks.items():
            now, before = look(), self._before[name]
            if not _same(now, before):
                return self._words(name, now, before)
        return ""

    def _words(self, look: str, now: list[Any], before: list[Any]) -> str:
        index = next(
            (i for i, pair in enumerate(zip(now, before, strict=False)) if not _same(*([one] for one in pair))), None
        )
        if look == "children":
            if index is None or len(now) != len(before):
                return "modules were added or taken away"
            if internals.is_adapted(now[index]) and not internals.is_adapted(before[index]):
                return "a LoRA was loaded"
            if internals.is_adapted(before[index]) and not internals.is_adapted(now[index]):
                return "a LoRA was unloaded"
            return f"module {self._children[index]} was exchanged"
        if look == "switches":
            return f"{self._switches[index or 0]} was changed"
        if look == "dtypes":
            return f"weights are {str(now[index or 0]).removeprefix('torch.')} now"
        return {
            "weights": "weights were exchanged",
            "forwards": "a function was put in place of a forward, or taken off",
            "hooks": "hooks were added or taken off",
            "fused": "a LoRA was fused, or taken out of the weights",
            "leaves": "modules were added or taken away",
            "attributes": "settings were added or taken away",
        }[look]


def _same(now: list[Any], before: list[Any]) -> bool:
    """Lists compare items by identity first, which is all that happens where nothing has changed."""
    try:
        return now == before
    except RuntimeError:  # tensors of several elements are neither equal nor unequal
        return False


def _values(tables: list[Table]) -> Callable[[], list[Any]]:
    return lambda: list(chain.from_iterable(map(dict.values, tables)))


def _dtypes(tables: list[Table]) -> Callable[[], list[Any]]:
    """Of whatever stands there: what was there when the network was looked at is another object by now."""
    return lambda: [tensor.dtype for table in tables if (tensor := _first(table)) is not None]


def _first(table: Table) -> Any:
    """A module's first weight, which is cast with the others."""
    return next((tensor for tensor in table.values() if tensor is not None), None)


def _items(places: list[tuple[Table, str]]) -> Callable[[], list[Any]]:
    gets = [(table.get, name) for table, name in places]
    return lambda: [get(name, ABSENT) for get, name in gets]


def _kinds(tables: list[Table], name: str) -> Callable[[], list[Any]]:
    """Classes of what stands there: offload makes its functions anew after each call."""
    return lambda: [type(table.get(name)) for table in tables]


def _filled(tables: list[Table]) -> Callable[[], list[Any]]:
    """What stands in those that are not empty, as nearly all of them are."""
    return lambda: list(chain.from_iterable(map(dict.values, filter(None, tables))))


def _sizes(tables: list[Table]) -> Callable[[], list[Any]]:
    return lambda: list(map(len, tables))


def _is_switch(path: str, table: Table, name: str) -> bool:
    return name in internals.SWITCHES or (path.count(".") < _SHALLOW and isinstance(table[name], _PLAIN))
