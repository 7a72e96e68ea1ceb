"""Around a call of an optimised pipeline: what has changed since is told, answered or refused first."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Any

from autotune.errors import DoesNotFitError, PlanError
from autotune.guard.calls import Bigger
from autotune.guard.optimized import Optimized, optimized_of
from autotune.guard.standing import Change
from autotune.records.words import plan_words

__all__ = ["run_call"]

log = logging.getLogger("autotune")

_AGAIN = "call autotune.optimize(pipe, ...) to plan for what is there now"
_BIGGER = "call autotune.optimize(pipe, workload=...) to plan for this size"


def run_call(
    pipe: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], renew: Callable[[Any], Any]
) -> Any:
    """The result of `call(pipe, *args, **kwargs)`.

    Args:
        pipe: the pipeline.
        call: its class's own call.
        args: what it is called with.
        kwargs: what it is called with by name.
        renew: applies the pipeline's plan to what is there now.

    Raises:
        PlanError: the pipeline was left half way, or has changed and changes are to be refused.
        DoesNotFitError: the call cannot fit, by a new plan or by the recorded sizes.
    """
    optimized = optimized_of(pipe)
    if optimized is None:
        return call(pipe, *args, **kwargs)
    optimized.refuse_half(pipe)
    if optimized.was_broken_off:
        optimized = _put_right(pipe, optimized, renew)
    if optimized.on_change != "ignore":
        looked_at = _looked_at(pipe, optimized, args, kwargs, renew)
        if looked_at is None:
            return call(pipe, *args, **kwargs)
        optimized = looked_at
    watch = optimized.watch
    optimized.running += 1
    try:
        result = watch.run(pipe, call, args, kwargs) if watch is not None else call(pipe, *args, **kwargs)
    except BaseException:
        optimized.was_broken_off = True
        raise
    finally:
        optimized.running -= 1
    if optimized.standing is not None:
        optimized.standing.settle(pipe)
    return result


def _put_right(pipe: Any, optimized: Optimized, renew: Callable[[Any], Any]) -> Optimized:
    """After a call that was broken off: diffusers may have had hooks taken off, networks on the card, or one in another
    precision. What the owner has exchanged since is for later."""
    changes = optimized.standing.changes(pipe) if optimized.standing is not None else []
    optimized.was_broken_off = False
    if changes and not any(change.is_exchanged for change in changes):
        optimized = renew(pipe)
        log.warning("the last call was broken off (%s): the plan was applied anew", _in_words(changes))
    elif optimized.runs.offload == "model":
        pipe.maybe_free_model_hooks()
    return optimized


def _looked_at(
    pipe: Any, optimized: Optimized, args: tuple[Any, ...], kwargs: dict[str, Any], renew: Callable[[Any], Any]
) -> Optimized | None:
    """What the pipeline is under once its changes are seen to; None if it is under no plan any more."""
    changes = optimized.standing.changes(pipe) if optimized.standing is not None else []
    if changes and optimized.on_change == "refuse":
        raise PlanError(f"{_in_words(changes)}, which the plan does not cover; {_AGAIN}, or autotune.restore(pipe)")
    bigger = optimized.calls.bigger(pipe, args, kwargs) if optimized.calls is not None else None
    if bigger and optimized.on_change == "refuse":
        raise PlanError(f"{bigger.words}; {_BIGGER}")
    renewed = [change for change in changes if change.is_exchanged]
    if (renewed or bigger) and _replans(optimized, bigger):
        anew = _planned_anew(pipe, optimized, changes, bigger)
        if anew is not None:
            return anew
        there = optimized_of(pipe)  # what was there before the attempt, put back; None where that could not be
        if there is None or there is not optimized:
            return there
    if renewed:
        _refuse_unproved(optimized, renewed)
        optimized = renew(pipe)
        log.warning(
            "%s: the plan was applied to what is there now; its sizes and seconds are those of before: %s",
            _in_words(renewed),
            _AGAIN,
        )
    told = [change for change in changes if not change.is_exchanged]
    if told:
        log.warning("%s: the plan goes on for the rest; %s", _in_words(told), _AGAIN)
        assert optimized.standing is not None
        optimized.standing.settle(pipe)
        optimized.is_altered = True
    if bigger and bigger.refusal is not None:
        raise bigger.refusal
    if bigger and bigger.words not in optimized.said:
        optimized.said.add(bigger.words)
        log.warning("%s; %s", bigger.words, _BIGGER)
    return optimized


def _replans(optimized: Optimized, bigger: Bigger | None) -> bool:
    """Whether it may be planned anew: not while another call of the pipeline runs, nor for what has failed already."""
    wanted = optimized.on_change == "replan" and optimized.replan is not None and not optimized.running
    tried = bigger is not None and optimized.calls is not None and optimized.calls.is_settled(bigger)
    return wanted and not tried


def _planned_anew(pipe: Any, optimized: Optimized, changes: list[Change], bigger: Bigger | None) -> Optimized | None:
    """What the pipeline is under once it was planned for as it is now, and for the bigger call; None where that failed, which
    is told.

    Raises:
        DoesNotFitError: no plan is under the caps.
    """
    assert optimized.replan is not None
    words = ", ".join([*([_in_words(changes)] if changes else []), *([bigger.words] if bigger else [])])
    start_s = perf_counter()
    try:
        anew = optimized.replan(pipe, bigger.arguments if bigger else None)
    except Exception as error:  # whatever it is, the call itself may run
        refusal = error if isinstance(error, DoesNotFitError) else None
        if bigger and optimized.calls is not None:
            optimized.calls.remember(bigger, refusal or bigger.refusal)
            optimized.said.add(bigger.words)
        if refusal is not None:
            raise
        log.warning("%s: it could not be planned for: %s", words, error or type(error).__name__)
        return None
    log.warning("%s: planned anew in %.0f s: %s", words, perf_counter() - start_s, plan_words(anew.runs))
    return anew


def _refuse_unproved(optimized: Optimized, renewed: list[Change]) -> None:
    change = optimized.unproved(renewed)
    if change is not None:
        raise PlanError(
            f"{change.words}, and batch_split={optimized.plan.batch_split} was proved for the one before; {_AGAIN}"
        )


def _in_words(changes: list[Change]) -> str:
    return ", ".join(change.words for change in changes)
