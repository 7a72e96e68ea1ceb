"""Every trace that a space needs, from as few recordings as do.

A whole call is recorded once for each precision. What other levers change is one component's code, so that component's calls
alone are recorded again, once for each combination of the levers that touch it, and exchanged in the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from autotune.errors import WorkloadError
from autotune.flow.job import Job
from autotune.levers.base import Subject
from autotune.levers.engine import EXECUTED, executed
from autotune.probe.workload import missing_inputs
from autotune.records.model import DenoiserFacts
from autotune.records.plan import EXECUTION_LEVERS, Plan
from autotune.records.trace import Segment, Trace
from autotune.records.workload import Workload
from autotune.search.space import Space
from autotune.simulate.memory import segment_memory

__all__ = ["Recordings"]

_NEUTRAL = {name: getattr(Plan(), name) for name in EXECUTION_LEVERS if name != "dtype"}
_SMALL_SHARE = 0.1  # of its weights: a denoiser whose activations are less gains nothing worth a slower step


class Recordings:
    """The recordings of one call of a job.

    Args:
        job: what is planned.
        workload: the call.
        call: its arguments.
        untouched: record the pipeline as it is, its VAE's own switches included.
    """

    def __init__(self, job: Job, workload: Workload, call: Mapping[str, Any], *, untouched: bool = False) -> None:
        from autotune.trace.session import Session

        self.workload = workload
        self._job, self._call, self._untouched = job, call, untouched
        self._session = Session(job.pipe, denoisers=job.model.denoisers)
        self._whole: dict[str, Trace] = {}
        self._touched: dict[tuple[str, str], bool] = {}
        self._twin = Subject(self._session.twin, job.device, workload)

    def facts(self, *, prove: bool = False) -> dict[str, DenoiserFacts]:
        """What the call shows of each denoiser; whether a batch can be split only where that may be worth it, or on demand."""
        with executed(self._twin, self._values("as_is")):
            whole = self._recorded("as_is")
            found = self._session.facts(prove=False)
            small = {name for name in found if self._is_small(whole, name)}
            if prove or len(small) < len(found):
                # Slices would go through the batch one by one; fused processors compute the same.
                with executed(self._twin, {"attention": "sdpa"}):
                    found = self._session.facts(prove=True)
        return {name: facts.model_copy(update={"small": name in small}) for name, facts in found.items()}

    def traces(self, space: Space) -> dict[tuple[Any, ...], Trace]:
        """A trace for each execution in the space."""
        wanted = list(product(*(space.values[name] for name in EXECUTION_LEVERS)))
        traces: dict[tuple[Any, ...], Trace] = {}
        for dtype in space.values["dtype"]:
            with executed(self._twin, self._values(dtype)):
                whole = self._recorded(dtype)
                variants: dict[tuple[str, tuple[Any, ...]], list[Segment]] = {}
                for key in (key for key in wanted if key[0] == dtype):
                    self._job.tell("tracing", len(traces), len(wanted))
                    traces[key] = whole if whole.untraced else self._assembled(whole, key, variants)
        self._job.tell("tracing", len(wanted), len(wanted))
        return traces

    def _values(self, dtype: str) -> dict[str, Any]:
        return {} if self._untouched else {"dtype": dtype, **_NEUTRAL}

    def _recorded(self, dtype: str) -> Trace:
        """The whole call in this precision, which the twin has now. Recorded again only after another one was."""
        if list(self._whole) != [dtype]:
            self._whole = {dtype: self._whole_call()}
        return self._whole[dtype]

    def _whole_call(self) -> Trace:
        try:
            return self._session.record(self._call, steps=self.workload.steps or 1)
        except WorkloadError as error:
            missing = missing_inputs(self._job.pipe, self._call)
            if missing:
                raise WorkloadError(
                    f"{error}; pass example={{...}} with real inputs, for example {missing[0]!r}"
                ) from error
            raise

    def _assembled(
        self, whole: Trace, key: tuple[Any, ...], variants: dict[tuple[str, tuple[Any, ...]], list[Segment]]
    ) -> Trace:
        """The whole call with the calls exchanged that these values change."""
        values = dict(zip(EXECUTION_LEVERS, key, strict=True))
        changed = {name: value for name, value in values.items() if _NEUTRAL.get(name, value) != value}
        for component in {segment.component for segment in whole.segments} - {""}:
            mine = {name: value for name, value in changed.items() if self._touches(name, component)}
            if not mine or self._untouched:
                continue
            variant = (component, tuple(mine.items()))
            if variant not in variants:
                with executed(self._twin._replace(denoisers=self._splittable()), mine):
                    variants[variant] = self._session.again(whole, component)
            whole = whole.replaced(component, variants[variant])
        return whole

    def _touches(self, lever: str, component: str) -> bool:
        if (lever, component) not in self._touched:
            self._touched[lever, component] = EXECUTED[lever].touches(component, self._session.part(component))
        return self._touched[lever, component]

    def _splittable(self) -> dict[str, DenoiserFacts]:
        return self._session.facts(prove=False)

    def _is_small(self, trace: Trace, component: str) -> bool:
        segments = [segment for segment in trace.segments if segment.component == component]
        peak_bytes = max((segment_memory(s, self._job.device).peak.total_bytes for s in segments), default=0)
        return peak_bytes < _SMALL_SHARE * trace.weights.get(component, 0)
