"""The generated class of an optimised pipeline.

`__call__` and properties are looked up on the class, so what an optimised pipeline does differently lives in a subclass with
the same name, module and signature, made once for each class. `pipe.__class__` is exchanged and put back by `restore`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial, wraps
from pathlib import Path
from typing import Any
from weakref import ref

import torch

from autotune.errors import PlanError
from autotune.guard.optimized import Optimized, optimized_of
from autotune.levers.base import is_same_device
from autotune.levers.journal import Journal
from autotune.records.words import plan_words

__all__ = ["dress", "is_dressed"]


Run = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def dress(pipe: Any, journal: Journal, run: Run) -> None:
    """Gives the pipeline the generated class, whose calls `run` makes; the journal has what takes it off again."""
    plain: Any = type(pipe)
    bare = ref(pipe)  # who lets go of the pipeline lets go of it at once
    journal.change(
        partial(setattr, pipe, "__class__", _dressed(plain, run)), lambda: setattr(bare(), "__class__", plain)
    )


def is_dressed(pipe: Any) -> bool:
    """Whether the pipeline has a generated class now."""
    return isinstance(pipe, _Dressed)


class _Dressed:
    """What the generated classes have in common."""

    @property
    def _execution_device(self) -> torch.device:
        """The device of the plan: diffusers would ask the hooks, and some placements have none (pipeline_utils.py)."""
        optimized = optimized_of(self)
        if optimized is None or not optimized.is_whole:
            return super()._execution_device  # type: ignore[misc, no-any-return]
        return torch.device(optimized.device.torch_device)

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Moving the pipeline by hand would undo the placement, so it is answered with a sentence.

        Raises:
            PlanError: the pipeline is not there already.
        """
        optimized = optimized_of(self)
        if optimized is None or (
            args == ("cpu",) and "silence_dtype_warnings" in kwargs
        ):  # diffusers, before it offloads
            return super().to(*args, **kwargs)  # type: ignore[misc]
        given = [value for value in (*args, kwargs.get("device"), kwargs.get("dtype")) if value is not None]
        planned = torch.device(optimized.device.torch_device)
        resident = optimized.runs.offload == "none" and optimized.runs.text_encoders == "resident"
        if not given or (resident and all(_is_there(value, planned) for value in given)):
            return self
        asked = ", ".join(str(value) for value in given)
        raise PlanError(
            f"pipe.to({asked}) would undo what was planned for {planned} ({plan_words(optimized.runs)}); "
            "call autotune.restore(pipe) first, or autotune.optimize(pipe, ...) for another plan"
        )

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Saves the pipeline as it is now, which its own class does, but where weights are not in their modules.

        Raises:
            PlanError: the plan is sequential offload, whose modules are empty between calls; or originals are in that folder.
        """
        optimized = optimized_of(self)
        if optimized is not None and optimized.runs.offload == "sequential":
            raise PlanError(
                "a pipeline under sequential offload cannot be saved: its modules are empty between calls; "
                "call autotune.restore(pipe) first"
            )
        target = Path(args[0] if args else kwargs.get("save_directory", "")).resolve()
        folders = [folder.resolve() for folder in optimized.folders] if optimized is not None else []
        if any(target == folder or target in folder.parents for folder in folders):
            raise PlanError(
                f"restore reads originals from {target}, which saving would overwrite; save elsewhere, or call "
                "autotune.restore(pipe) first"
            )
        super().save_pretrained(*args, **kwargs)  # type: ignore[misc]

    def __copy__(self) -> Any:
        """A pipeline of the plain class with the same networks, as `from_pipe` would make it."""
        twin: Any = object.__new__(_plain(type(self)))
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if not isinstance(value, Optimized)})
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise PlanError(
            "an optimised pipeline cannot be pickled or copied in depth: hooks and originals belong to this one; "
            "call autotune.restore(pipe) first"
        )


@cache
def _dressed(plain: Any, run: Run) -> type:
    @wraps(plain.__init__)
    def new(_: type, *args: Any, **kwargs: Any) -> Any:
        """Whoever calls the class, `type(pipe)(**pipe.components)` or `pipe.from_pretrained`, gets a plain pipeline."""
        return plain(*args, **kwargs)

    @wraps(plain.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return run(self, plain.__call__, args, kwargs)

    body = {
        "__module__": plain.__module__,
        "__qualname__": plain.__qualname__,
        "__doc__": plain.__doc__,
        "__new__": new,
        "__call__": call,
    }
    return type(plain.__name__, (_Dressed, plain), body)


def _plain(dressed: type) -> type:
    return next(base for base in dressed.__mro__ if not issubclass(base, _Dressed))


def _is_there(value: Any, planned: torch.device) -> bool:
    """Whether the argument of `to` asks for the device that the plan is for."""
    if isinstance(value, torch.dtype):
        return False
    return is_same_device(torch.device(value), planned)
