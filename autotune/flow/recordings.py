"""Every trace that a space needs, from as few recordings as do.

A whole call is recorded once for each precision. What other levers change is one component's code, so that component's calls
alone are recorded again, once for each combination of the levers that touch it, and exchanged in the whole. Values that do
not run have no trace, and a reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from autotune.errors import AutotuneError, PlanError, WorkloadError
from autotune.flow.job import Job
from autotune.flow.remedy import remedy_for
from autotune.levers.base import Subject
from autotune.levers.engine import EXECUTED, executed
from autotune.records.device import Device
from autotune.records.model import DenoiserFacts
from autotune.records.plan import DECODE_LEVERS, EXECUTION_LEVERS
from autotune.records.precision import Precision
from autotune.records.trace import Segment, Trace
from autotune.records.values import typed, typed_all
from autotune.records.workload import Workload
from autotune.search.space import Space
from autotune.simulate.memory import segment_memory
from autotune.trace.blame import words_of

__all__ = ["Recordings", "is_small"]

_SMALL_SHARE = 0.1  # of its weights: a denoiser whose activations are less gains nothing worth a slower step


class Recordings:
    """The recordings of one call of a job.

    Args:
        job: what is planned.
        workload: the call.
        call: its arguments.

    `refused` is why some values of `traces` have none, by lever and value; `computed` the height and width in pixels and the
    frames that the call really makes, None before a recording and where that is no picture.
    """

    def __init__(self, job: Job, workload: Workload, call: Mapping[str, Any]) -> None:
        from autotune.trace.session import Session

        self.workload = workload
        self.refused: dict[tuple[str, Any], str] = {}
        self.computed: tuple[int, int, int | None] | None = None
        self._job, self._call = job, call
        self._session = Session(job.pipe, denoisers=job.model.denoisers, on_card=job.device.kind == "cuda")
        self._whole: dict[Precision | None, Trace] = {}
        self._touched: dict[tuple[str, str], bool] = {}
        self._twin = Subject(self._session.twin, job.device, workload)
        self._base: dict[str, Any] = {}
        self._together = ""

    def facts(self, *, prove: bool = False) -> dict[str, DenoiserFacts]:
        """What the call shows of each denoiser; whether a batch can be split only where that may be worth it, or on demand."""
        whole = self.whole()
        with executed(self._twin, self._values(None)):
            found = self._session.facts(prove=False)
            small = {name for name in found if is_small(whole, name, self._job.device)}
            if prove or len(small) < len(found):
                # Slices would go through the batch one by one; fused processors compute the same.
                with executed(self._twin, {"attention": "sdpa"}):
                    found = self._session.facts(prove=True)
        return {name: facts.model_copy(update={"small": name in small}) for name, facts in found.items()}

    @property
    def made(self) -> Workload:
        """The workload with the size that is really computed."""
        if self.computed is None:
            return self.workload
        height, width, frames = self.computed
        return self.workload.model_copy(update={"computed": (height, width, frames or self.workload.frames)})

    def traces(self, space: Space) -> dict[tuple[Any, ...], Trace]:
        """A trace for each execution in the space that runs; `refused` says why others do not.

        Raises:
            WorkloadError: the pipeline as it was loaded does not run this call.
            PlanError: nothing in the space runs.
        """
        wanted = list(product(*(space.values[name] for name in EXECUTION_LEVERS)))
        traces: dict[tuple[Any, ...], Trace] = {}
        for dtype in space.values["dtype"]:
            try:
                whole = self.whole(dtype)
            except Exception as error:  # whatever a variant raises, it is that variant's
                if dtype is None:
                    raise
                self.refused["dtype", dtype] = _reason(error)
                continue
            with executed(self._twin, self._values(dtype)):
                variants: dict[tuple[str, tuple[Any, ...]], list[Segment] | None] = {}
                for key in (key for key in wanted if key[0] == dtype):
                    self._job.tell("tracing", len(traces), len(wanted))
                    trace = whole if whole.untraced else self._assembled(whole, key, variants)
                    if trace is not None:
                        traces[key] = trace
        if not traces:
            raise PlanError(self.why_not(wanted[0]))
        self._job.tell("tracing", len(wanted), len(wanted))
        return traces

    def why_not(self, execution: tuple[Any, ...]) -> str:
        """Why these values of the execution levers have no trace."""
        values = dict(zip(EXECUTION_LEVERS, execution, strict=True))
        reasons = [
            f"{name}={typed(value if value is not None else getattr(self._job.found, name))} does not run: {why}"
            for name, value in values.items()
            if (why := self.refused.get((name, value)))
        ]
        changes = typed_all({name: value for name, value in values.items() if value is not None})
        return "; ".join(reasons) or f"{changes} do not run together: {self._together}"

    def _values(self, dtype: Any) -> dict[str, Any]:
        return {"dtype": dtype, **self._base}

    def whole(self, dtype: Precision | None = None) -> Trace:
        """The whole call in this precision. Recorded again only after another one was.

        Raises:
            WorkloadError: the call does not run in it, for reasons of its own.
        """
        if list(self._whole) != [dtype]:
            self._whole = {}
            with executed(self._twin, self._values(dtype)):
                self._whole[dtype] = self._whole_call()
            self.computed = self._session.computed
        return self._whole[dtype]

    def _whole_call(self) -> Trace:
        try:
            return self._record()
        except WorkloadError as error:
            component = self._session.failed_in
            if isinstance(error.__cause__, NotImplementedError) and component:
                other = self._another_way(component, str(error))
                if other is not None:
                    return other
            remedy = remedy_for(self._session.twin, self._call, component, error.__cause__)
            raise WorkloadError(f"{error}; {remedy}" if remedy else str(error)) from error

    def _record(self) -> Trace:
        return self._session.record(self._call, steps=self.workload.steps or 1)

    def _another_way(self, component: str, why: str) -> Trace | None:
        """The call with the first value of a lever that does what the component's usual code has not implemented (Allegro's
        VAE decodes in tiles only). From now on that value is where other variants start."""
        for name in (name for name in reversed(EXECUTION_LEVERS) if name != "dtype"):
            if not self._touches(name, component):
                continue
            for value in EXECUTED[name].domain(self._twin).values:
                if value == self._base.get(name):
                    continue
                try:
                    with executed(self._twin, {name: value}):
                        trace = self._record()
                except Exception:  # whatever this way raises: the next may do
                    continue
                self.refused[name, self._base.get(name)] = why
                self._base[name] = value
                return trace
        return None

    def _assembled(
        self, whole: Trace, key: tuple[Any, ...], variants: dict[tuple[str, tuple[Any, ...]], list[Segment] | None]
    ) -> Trace | None:
        """The whole call with the calls exchanged that these values change; None if one of these does not run."""
        values = dict(zip(EXECUTION_LEVERS, key, strict=True))
        del values["dtype"]
        if any(one in self.refused for one in values.items()):
            return None
        started = self._job.found.values | self._base
        changed = {name: value for name, value in values.items() if value is not None and value != started[name]}
        for component in {segment.component for segment in whole.segments} - {""}:
            mine = {name: value for name, value in changed.items() if self._touches(name, component)}
            if not mine:
                continue
            variant = (component, tuple(mine.items()))
            if variant not in variants:
                alone = [variants.get((component, (one,)), ()) for one in mine.items()]
                variants[variant] = None if None in alone else self._again(whole, component, mine)
            segments = variants[variant]
            if segments is None:
                return None
            whole = whole.replaced(component, segments)
        return whole

    def _again(self, whole: Trace, component: str, values: Mapping[str, Any]) -> list[Segment] | None:
        """The component's calls under these values; None if it cannot run so."""
        subject = self._twin._replace(denoisers=self._splittable(), workload=self.made)
        try:
            for name in DECODE_LEVERS:
                if values.get(name) is not None:
                    EXECUTED[name].check(subject, values[name])
            with executed(subject, dict(values)):
                return self._session.again(whole, component)
        except Exception as error:  # whatever a variant raises, it is that variant's
            self._together = _reason(error)
            if len(values) == 1:
                self.refused[next(iter(values.items()))] = self._together
            return None

    def _touches(self, lever: str, component: str) -> bool:
        if (lever, component) not in self._touched:
            self._touched[lever, component] = EXECUTED[lever].touches(component, self._session.part(component))
        return self._touched[lever, component]

    def _splittable(self) -> dict[str, DenoiserFacts]:
        return self._session.facts(prove=False)


def is_small(trace: Trace, component: str, device: Device) -> bool:
    """Whether the component allocates little beside its weights there."""
    segments = [segment for segment in trace.segments if segment.component == component]
    peak_bytes = max((segment_memory(segment, device).peak.total_bytes for segment in segments), default=0)
    return peak_bytes < _SMALL_SHARE * trace.weights.get(component, 0)


def _reason(error: Exception) -> str:
    """Why a variant does not run: our own words, or the class and first line of somebody else's."""
    return str(error) if isinstance(error, AutotuneError) else words_of(error)
