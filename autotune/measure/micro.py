"""How long a call takes: on the card itself, by its events; on the clock of the wall, where the host is what is measured.

A call is repeated for a share of a time budget. The first part of it only warms up: libraries load their kernels, a card
raises its clocks and meets its power limit. It does not know what is called.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, cast

__all__ = ["Clock", "others_cpu_s", "undisturbed"]

_WARM_SHARE = 0.3  # of the budget of one measurement
_BURST_S = 2e-3  # calls in a row between two readings: a thousand times what reading the clock takes
_MOST_CALLS = 100  # in a row: a card's queue takes some 1000 launches, and a call may be several
_HOST_S = 50e-6  # that the host may need for one call at the most, in a cloud, with Python
_CYCLES_PER_S = 2e9  # of a card at the most; `_sleep` counts them


class Clock:
    """Times calls on one device.

    Args:
        torch_device: "cuda:0", "cpu".
        budget_s: seconds that one measurement may take. A single slow call is let through.

    >>> Clock("cpu", budget_s=0.01).device_s(lambda: sum(range(100))) > 0
    True
    """

    def __init__(self, torch_device: str, *, budget_s: float) -> None:
        import torch

        self._torch: Any = torch
        self.budget_s = budget_s
        self.torch_device = torch_device
        self.is_cuda = torch_device.startswith("cuda")

    def device_s(self, run: Callable[[], object]) -> float:
        """Seconds of one call on the device, its launches queued beforehand. On the CPU the same as `wall_s`."""
        return self._median_s(run, self._between_events_s if self.is_cuda else self._on_the_wall_s)

    def wall_s(self, run: Callable[[], object]) -> float:
        """Seconds of one call for the host, until the device is done with all of a burst."""
        return self._median_s(run, self._on_the_wall_s)

    def synchronize(self) -> None:
        """Waits until the device has nothing left to do."""
        if self.is_cuda:
            self._torch.cuda.synchronize(self.torch_device)

    def _median_s(self, run: Callable[[], object], burst_s: Callable[[Callable[[], object], int], float]) -> float:
        start_s = time.perf_counter()
        first_s = self._on_the_wall_s(run, 1)
        one_s = self._on_the_wall_s(run, 1) if first_s < self.budget_s else first_s
        calls = min(max(round(_BURST_S / one_s), 1), _MOST_CALLS)
        while time.perf_counter() - start_s < _WARM_SHARE * self.budget_s:
            burst_s(run, calls)
        repeats = [burst_s(run, calls)]
        while time.perf_counter() - start_s < self.budget_s:
            repeats.append(burst_s(run, calls))
        return median(repeats)

    def _on_the_wall_s(self, run: Callable[[], object], calls: int) -> float:
        self.synchronize()
        start_s = time.perf_counter()
        for _ in range(calls):
            run()
        self.synchronize()
        return max(time.perf_counter() - start_s, 1e-9) / calls

    def _between_events_s(self, run: Callable[[], object], calls: int) -> float:
        cuda = self._torch.cuda
        before, after = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        cuda._sleep(int(calls * _HOST_S * _CYCLES_PER_S))  # the card waits while the host fills its queue
        before.record()
        for _ in range(calls):
            run()
        after.record()
        after.synchronize()
        return max(float(before.elapsed_time(after)) / 1e3, 1e-9) / calls


def others_cpu_s() -> float:
    """Seconds of all cores that other processes have had since this machine started: what grows while we measure disturbs us.

    >>> others_cpu_s() >= 0
    True
    """
    import psutil

    everybody, own = psutil.cpu_times(), psutil.Process().cpu_times()
    busy_s = sum(getattr(everybody, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
    return max(float(busy_s - own.user - own.system), 0.0)


@contextmanager
def undisturbed(torch_device: str) -> Iterator[None]:
    """Inside, nothing of this process's settings changes what is measured; afterwards all of them are as they were.

    Gradients and autocast are off, cuDNN picks its kernels as it does by default, and what was allocated is given back.

    >>> import torch
    >>> with undisturbed("cpu"):
    ...     torch.is_grad_enabled()
    False
    """
    import torch

    kind = torch_device.partition(":")[0]
    matmul, cudnn = torch.backends.cuda.matmul, cast("Any", torch.backends.cudnn)
    settings = [
        (matmul, "fp32_precision", matmul.fp32_precision),
        (cudnn.conv, "fp32_precision", cudnn.conv.fp32_precision),
        (cudnn, "benchmark", cudnn.benchmark),
    ]
    cards = [torch.device(torch_device)] if kind == "cuda" else []
    with (
        warnings.catch_warnings(),
        torch.random.fork_rng(cards),
        torch.no_grad(),
        torch.autocast(kind, enabled=False),
        torch.cuda.device(cards[0] if cards else -1),
    ):
        warnings.simplefilter("ignore")  # why a kernel of attention cannot be taken here
        cudnn.benchmark = False
        try:
            yield
        finally:
            for owner, name, value in settings:
                setattr(owner, name, value)
            if cards:
                torch.cuda.synchronize(torch_device)
                for name in ("_cuda_clearCublasWorkspaces", "_host_emptyCache"):  # not in every version
                    getattr(torch._C, name, lambda: None)()
                torch.cuda.empty_cache()
