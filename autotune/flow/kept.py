"""A call that was traced once is planned for another card from what was kept of it: without torch, diffusers or the pipeline.

What is kept is nobody's promise: a file that is broken, foreign or of other code is a miss, with one line at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

from autotune.flow.fronts import Findings, Place, Traced, Traces, front_from, named_space, running
from autotune.probe import catalog
from autotune.records.device import Device
from autotune.records.front import Front
from autotune.records.kept import KeptCall, KeptTrace, Offer, Refused
from autotune.records.model import Model
from autotune.records.plan import EXECUTION_LEVERS, PLAIN, Plan
from autotune.records.workload import Workload
from autotune.search.space import Space
from autotune.store.calls import CallStore
from autotune.store.key import versions
from autotune.store.traces import Arrays, packed, unpacked

__all__ = ["CARD", "cards_by_kind", "front_kept", "in_json", "keep", "kind_of"]

CARD = "{card}"
"""Stands for a card's name in what is kept."""
_log = logging.getLogger("autotune")


def front_kept(
    store: CallStore, key: str, place: Place, *, name: str, workload: Workload
) -> tuple[Front, Model] | None:
    """The front of a call that was kept under that key, for a card that need not be like the first, and the model's facts;
    None if that cannot be had.

    Args:
        store: where calls are kept.
        key: of the model, its call and the code that traced it.
        place: where plans are to run.
        name: what people call the model.
        workload: the call as it was asked for.
    """
    try:
        found = store.find(key)
        findings = None if found is None else _findings(*found, place.device)
        if findings is None:
            return None
        called = workload.model_copy(update={"computed": findings.largest.computed or workload.computed})
        front = front_from(findings, place)
        return front.model_copy(update={"model": name, "workload": called}), findings.model
    except Exception as error:  # whatever is wrong with a file, tracing anew puts it right
        _log.info("the traces that were kept of %s are not used: %s", name, _first_line(error))
        return None


def keep(store: CallStore, key: str, findings: Findings, offers: Callable[[], dict[str, Offer]]) -> None:
    """Puts a call away, for cards of every kind that is offered something. What goes wrong is told to the log alone."""
    try:
        offered, before = offers(), store.find(key, tells=False)
        if offered and (before is None or len(before[0].offers) <= len(offered)):
            store.save(*_kept(key, findings, offered))
    except Exception as error:  # the answer is there, and is worth more than the next one's seconds
        _log.info("the traces of %s are not kept: %s", findings.model.name, _first_line(error))


def _kept(key: str, findings: Findings, offers: dict[str, Offer]) -> tuple[KeptCall, Arrays]:
    (call,) = findings.calls
    pieces = packed(list(call.traces.values()))
    tried = findings.space.wanted | (frozenset() if findings.named is None else findings.named.wanted)
    traces = [
        KeptTrace(execution=_values(execution), frame=frame, segments=segments)
        for execution, (frame, segments) in zip(call.traces, pieces.places, strict=True)
    ]
    refused = [
        Refused(lever=lever, value=in_json(lever, value), why=why) for (lever, value), why in call.refused.items()
    ]
    kept = KeptCall(
        key=key,
        versions=versions(),
        model=findings.model,
        workload=findings.largest,
        found=_plain(findings.found),
        precise=_plain(findings.precise),
        refused=tuple(refused),
        tried=tuple(map(_values, tried)),
        offers=offers,
        frames=pieces.frames,
        modules=pieces.modules,
        segments=pieces.segments,
        traces=tuple(traces),
    )
    return kept, pieces.arrays


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def kind_of(device: Device) -> str:
    """What the levers' domains depend on of a card.

    >>> from autotune.probe.catalog import card
    >>> kind_of(card("RTX 4060"))
    '8.9'
    """
    major, minor = device.compute_capability or (0, 0)
    return f"{major}.{minor}" + (" without fp16" if device.fp16_fails else "")


@cache
def cards_by_kind() -> dict[str, Device]:
    """One card of each kind."""
    return {kind_of(card): card for card in map(catalog.card, catalog.names())}


def in_json(lever: str, value: Any) -> Any:
    """A lever's value as a plan's JSON has it."""
    return Plan(**{lever: value}).model_dump(mode="json")[lever]


def _findings(kept: KeptCall, arrays: Arrays, device: Device) -> Findings | None:
    """What a search needs; None where the traces that there are do not suffice for this kind of card."""
    offer = kept.offers.get(kind_of(device))
    if offer is None or device.kind != "cuda":
        return None
    traces: Traces = dict(zip((_execution(one.execution) for one in kept.traces), unpacked(kept, arrays), strict=True))
    refused = {(one.lever, _value(one.lever, one.value)): one.why for one in kept.refused}
    call = Traced(kept.workload, traces, refused)
    found = Plan.model_validate(kept.found)
    space = Space(
        values={name: tuple(_value(name, value) for value in mine) for name, mine in offer.values.items()},
        reasons={name: why.replace(CARD, device.name) for name, why in offer.reasons.items()},
        found=found,
    )
    tried = frozenset(map(_execution, kept.tried))
    if not space.wanted <= tried:
        return None
    named = named_space(running(space, [call]), [_value("dtype", dtype) for dtype in offer.named])
    if named is not None and not named.wanted <= tried:
        return None
    return Findings(
        model=kept.model,
        found=found,
        precise=Plan.model_validate(kept.precise),
        undo=False,
        calls=(call,),
        largest=kept.workload,
        space=space,
        denoisers=offer.denoisers,
        named=named,
        caution=offer.caution.replace(CARD, device.name) if named else "",
    )


def _plain(plan: Plan) -> dict[str, Any]:
    """The plan as of a machine that is not here: TF32 is this process's setting, not the pipeline's."""
    return plan.model_copy(update={"tf32": PLAIN.tf32}).model_dump(mode="json", include=set(plan.values))


def _values(execution: tuple[Any, ...]) -> dict[str, Any]:
    return {name: in_json(name, value) for name, value in zip(EXECUTION_LEVERS, execution, strict=True)}


def _execution(values: dict[str, Any]) -> tuple[Any, ...]:
    return Plan.model_validate(values).execution


def _value(lever: str, value: Any) -> Any:
    return getattr(Plan.model_validate({lever: value}), lever)
