"""What calls on this machine teach: the speed of its device as they have shown it, and who watches the next ones.

Predictions are kept as those of the base speed, so that what was learned is never learned again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

from autotune.records.device import Device
from autotune.records.measurement import Measurement, Multipliers
from autotune.records.workload import Workload
from autotune.report.explanation import Explanation
from autotune.simulate.speed import sustained
from autotune.store.key import hash_speed
from autotune.store.measurements import MeasurementStore

if TYPE_CHECKING:
    from autotune.flow.question import Question
    from autotune.guard.watch import Watch

__all__ = ["base_measurement", "watch_for", "with_learned"]


def with_learned(device: Device, store: MeasurementStore | None = None) -> Device:
    """The device with the speed that calls on it have shown; itself where none has, or they agree with its own.

    Only calls that were predicted with the speed it has now count: other constants make other errors.

    Args:
        device: a device that is here, with its base speed.
        store: where calls are kept; the user's cache if None.

    >>> from autotune.probe.gpu import cpu_device
    >>> from pathlib import Path
    >>> with_learned(cpu_device(), MeasurementStore(Path("no-such-folder"))).learned is None
    True
    """
    found = (store or MeasurementStore()).find(device)
    if not found:
        return device
    from autotune.simulate.learning import in_steps, learned, multipliers

    base = sustained(device)
    key = hash_speed(base)
    factors = in_steps(multipliers([call for call in found if call.speed_key == key]))
    if factors.compute == factors.moves == 1:
        return device
    note = (
        f"seconds times {factors.compute:.2f} computing and {factors.moves:.2f} moving weights, "
        f"learned from {factors.calls} calls"
    )
    return device.model_copy(
        update={"speed": learned(base, factors), "learned": factors, "notes": (*device.notes, note)}
    )


def watch_for(question: Question, explained: Explanation) -> Watch | None:
    """Who is to time the calls of the plan that was chosen; None where they would teach nothing about the device.

    That is where the caller wants no store (`profiles=False`), where the estimate is of the worst of several workloads, where
    parts could not be traced, and where text encoders run beside the device.
    """
    several = isinstance(question.workload, list | tuple)
    estimate, plan = explained.chosen.estimate, explained.chosen.plan
    guessed = estimate.latency_range_s[0] <= 0
    if question.profiles is False or several or guessed or plan.text_encoders == "cpu":
        return None
    from autotune.guard.watch import Watch

    store = MeasurementStore()

    def learn(call_s: float, peak_reserved_bytes: int | None) -> None:
        store.add(base_measurement(explained, call_s, peak_reserved_bytes))

    return Watch(explained.workload, explained.device, learn)


def base_measurement(explained: Explanation, call_s: float, peak_reserved_bytes: int | None) -> Measurement:
    """A call beside its prediction, with what was learned divided out of that.

    Exact where seconds are proportional to the factors. They are not quite where moves hide behind computing ("+stream"): there
    it is off by less than the ratio of the factors.
    """
    device, estimate, asked = explained.device, explained.chosen.estimate, explained.workload
    known = device.learned or Multipliers(speed_key=hash_speed(sustained(device)))
    return Measurement(
        card=device.name,
        total_bytes=device.total_bytes,
        torch_version=version("torch"),
        model=explained.model[:200],
        workload=Workload(**asked.model_dump(exclude={"arguments", "inputs", "calls"})),
        plan=explained.chosen.plan.model_copy(update={"reasons": {}}),
        compute_s=sum(phase.compute_s for phase in estimate.phases) / known.compute,
        transfer_s=estimate.transfer_s / known.moves,
        call_s=call_s,
        peak_reserved_bytes=peak_reserved_bytes,
        speed_key=known.speed_key,
        day=datetime.now(UTC).date(),
    )
