"""What the device here was measured to sustain: put on it where it is known, measured and remembered where that is asked."""

from __future__ import annotations

import logging
import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from autotune.errors import NoAcceleratorError
from autotune.records.device import Device
from autotune.records.speed import Speed
from autotune.simulate.speed import sustained
from autotune.store.speeds import SpeedStore

if TYPE_CHECKING:
    from autotune.flow.question import Progress

__all__ = ["calibrated", "with_speed"]

# Threads that compute together wait for the last of them: seen on two cores, one busy process makes a product a thousand times
# slower. A card does not care, and its host's share grows by what the host really lacks.
_QUIET_CORES = 0.25

_log = logging.getLogger("autotune")


def with_speed(device: Device, store: SpeedStore | None = None) -> Device:
    """The device with the speed that was measured on it; itself where none was, or where it is not here.

    Args:
        device: any device.
        store: where speeds are kept; the user's cache if None.

    >>> from pathlib import Path
    >>> from autotune.probe.gpu import cpu_device
    >>> with_speed(cpu_device(), SpeedStore(Path("no-such-folder"))).speed is None
    True
    """
    if not device.is_here:
        return device
    measured = (store or SpeedStore()).find(device)
    return device if measured is None else _known(device, measured.speed, measured.day)


def calibrated(
    device: Device, *, budget_s: float | None = None, progress: Progress | None = None, store: SpeedStore | None = None
) -> Device:
    """The device with its speed, which is measured now and remembered.

    Args:
        device: a device of this machine.
        budget_s: seconds to spend; some 15 if None.
        progress: told of what is measured.
        store: where it is remembered; the user's cache if None.

    Raises:
        NoAcceleratorError: the device is not here.
    """
    if not device.is_here:
        raise NoAcceleratorError(
            f"the speed of {device.name} was to be measured, but it is not in this machine; "
            "what works: `autotune probe --calibrate` there, or device='cpu' here"
        )
    from autotune.measure.calibrate import BUDGET_S, calibrate
    from autotune.measure.micro import others_cpu_s

    bare = device.model_copy(update={"speed": None})
    before_s, start_s = others_cpu_s(), time.perf_counter()
    speed = calibrate(bare, base=sustained(bare), budget_s=budget_s or BUDGET_S, progress=progress)
    others_cores = (others_cpu_s() - before_s) / (time.perf_counter() - start_s)
    if speed.source != "calibrated":
        return bare
    today = datetime.now(UTC).date()
    if device.kind == "cpu" and others_cores > _QUIET_CORES:
        note = (
            f"other processes kept {others_cores:.1f} cores busy while the CPU was measured: "
            "the figures are not remembered; measure again when they rest"
        )
        _log.warning("%s", note)
        return _known(bare, speed, today, note)
    (store or SpeedStore()).save(bare, speed, today)
    return _known(bare, speed, today)


def _known(device: Device, speed: Speed, day: date, *more: str) -> Device:
    start = f"speeds measured on this {'CPU' if device.kind == 'cpu' else 'card'} on "
    notes = (*(note for note in device.notes if not note.startswith(start)), start + day.isoformat(), *more)
    return device.model_copy(update={"speed": speed, "notes": notes})
