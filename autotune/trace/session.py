"""Recording one call of a pipeline: real glue, weightless components.

Only what happens inside a component is fake; schedulers, tokenizers and time steps stay real. Two denoising steps are
recorded: the second is the steady state. A component whose code a lever changes is recorded again by itself, with inputs
of the same shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map_only, tree_unflatten

from autotune.errors import PlanError, WorkloadError
from autotune.records.model import DenoiserFacts
from autotune.records.trace import Segment, Trace
from autotune.trace.batch import mixing
from autotune.trace.blame import is_the_calls, words_of
from autotune.trace.borders import Borders
from autotune.trace.computed import Size, computed_size, picture_in
from autotune.trace.quiet import undisturbed
from autotune.trace.record import Recorder
from autotune.trace.routing import Routing
from autotune.trace.shapes import Shape
from autotune.trace.shortcuts import Shortcuts
from autotune.trace.tape import Tape, ends_of_strangers
from autotune.trace.turns import Stretch, denoiser_calls, places, recorded_steps
from autotune.trace.twin import ENTRY_POINTS, own_tensors, set_precision, twin_of
from autotune.trace.weights import block_bytes, buffer_bytes, own_bytes, precision, tensor_bytes, weight_bytes
from autotune.upstream.fakes import born
from autotune.upstream.port import networks

__all__ = ["Session", "Size"]

_RECORDED_TURNS = 2


class _Call(NamedTuple):
    """One call of a component: enough to make it again."""

    component: str
    method: str
    args: Any
    kwargs: Any
    precision: torch.dtype
    processors: dict[Any, Any]
    """Attention processors that were there and went again before the pipeline was done (perturbed attention guidance)."""


class _Cut(NamedTuple):
    """A tape and whose it is; component "" is the pipeline's own code."""

    tape: Tape
    component: str
    method: str
    weights: dict[str, int]


class Session:
    """The twin of one pipeline and the recorder that watches it.

    Args:
        pipe: a `DiffusionPipeline`; it is only read.
        denoisers: names of the components that are called once or more in each denoising step.
        on_card: whether the call is for a card.

    `twin` may be changed between recordings by the levers that change what is executed.
    """

    def __init__(self, pipe: Any, *, denoisers: frozenset[str], on_card: bool = False) -> None:
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._recorder = Recorder(on_card=on_card)
        self._shortcuts = Shortcuts(self._recorder, self._mode, lambda fake: self._borders.value_of(fake))
        self._denoisers = denoisers
        self._depth = 0
        self._cuts: list[_Cut] = []
        self._calls: list[_Call] = []
        self._weights: dict[str, int] = {}
        self.failed_in = ""
        """The component that stopped the last recording; empty if none did, or the pipeline's own code."""
        self.computed: Size | None = None
        """Height and width in pixels and frames of what the recorded call makes; None where that is no picture."""
        self._decoded: list[tuple[int, ...]] = []
        self._borders = Borders(self._recorder)
        self._scheduler = copy.deepcopy(getattr(pipe, "scheduler", None))
        self.twin = twin_of(pipe, self._mode)
        self._parts = networks(self.twin)
        for name, part in self._parts.items():
            self._wrap(name, part)

    def record(self, call: Mapping[str, Any], *, steps: int) -> Trace:
        """One call of the pipeline with these arguments, as a trace for `steps` denoising steps.

        Raises:
            WorkloadError: the pipeline refuses the arguments.
        """
        stretch = Stretch.of(call)
        few = recorded_steps(self._scheduler, steps, stretch, turns=_RECORDED_TURNS)
        arguments = dict(call)
        if "num_inference_steps" in arguments:
            arguments["num_inference_steps"] = few
        tensors = {path: own for name, part in self._parts.items() for path, own in tensor_bytes(part, name).items()}
        with undisturbed():
            error = self._called(arguments)
        untraced = {} if error is None else self._unreached(error)
        if not self.failed_in:
            self._end("", "")
        for recorded in self._calls:
            for module in [m for m, processor in recorded.processors.items() if m.processor is processor]:
                del recorded.processors[module]
        return Trace(
            segments=self._segments(),
            weights=self._initial_weights,
            resident_buffers={name: buffer_bytes(part) for name, part in self._parts.items()},
            blocks={path: size for name, part in self._parts.items() for path, size in block_bytes(part, name).items()},
            tensors=tensors,
            denoiser_calls=denoiser_calls(
                self._scheduler, self._recorded_calls(), recorded_steps=few, steps=steps, stretch=stretch
            ),
            untraced=untraced,
        )

    def _called(self, arguments: Mapping[str, Any]) -> Exception | None:
        """Records the call; what stopped it, where that is the twin's fault (`blame.py`).

        Raises:
            WorkloadError: it is the call's.
        """
        first = ""
        for number in (0, 1):
            self._borders = borders = Borders(self._recorder, number)
            error = self._attempt(arguments, borders)
            if error is None or not is_the_calls(error, borders.refused):
                return error
            if not borders.made_up or words_of(error) == first:
                raise WorkloadError(self._refusal(error)) from error
            first = words_of(error)
        return error

    def _attempt(self, arguments: Mapping[str, Any], borders: Borders) -> Exception | None:
        self._start()
        self._calls, self._decoded, self.computed = [], [], None
        self.twin.__dict__["scheduler"] = copy.deepcopy(self._scheduler)
        try:
            with self._entry_points(), self._recorder, borders:
                output = self.twin(**arguments)
        except Exception as error:  # whatever the pipeline's code raises on a fake: reported, not hidden
            return error
        has_vae = any(hasattr(part, "decode") for part in self._parts.values())
        self.computed = computed_size(output, self._decoded, has_vae=has_vae)
        return None

    def _refusal(self, error: Exception) -> str:
        if self.failed_in:
            return f"the call fails in {self.failed_in}: {words_of(error)}"
        return f"{type(self.twin).__name__} refuses this call: {words_of(error).removeprefix('ValueError: ')}"

    def part(self, component: str) -> torch.nn.Module:
        """The twin's component of that name."""
        return self._parts[component]

    def again(self, trace: Trace, component: str) -> list[Segment]:
        """The segments of this component's calls, recorded again as the twin is now.

        Raises:
            PlanError: the component cannot run in this way, or not on a twin.
        """
        calls = [call for call in self._calls if call.component == component]
        kept = list(self._calls)
        old = [segment for segment in trace.segments if segment.component == component]
        try:
            with undisturbed():
                return [self._once_again(call, segment) for call, segment in zip(calls, old, strict=True)]
        finally:
            self._calls = kept

    def _once_again(self, call: _Call, before: Segment) -> Segment:
        """One call of a component, in the place of the segment that it was before."""
        component = call.component
        self._restore_precision(call)
        self._start()
        self._borders = borders = Borders(self._recorder)
        args, kwargs = tree_map_only(Shape, self._materialise, (call.args, call.kwargs))
        with _processors(call.processors), self._entry_points(), self._recorder:
            try:
                with borders:
                    output = getattr(self._parts[component], call.method)(*args, **kwargs)
            except Exception as error:  # whatever the component's code raises in this way
                verb = "raises" if is_the_calls(error, borders.refused) else "cannot be traced:"
                raise PlanError(f"{component} {verb} {words_of(error)}") from error
            cut = self._cuts[-1]
            del output
        cut.tape.events.extend(ends_of_strangers(before))
        return cut.tape.segment(component, call.method, before.phase, before.turn, before.weights)

    def facts(self, *, prove: bool) -> dict[str, DenoiserFacts]:
        """What the recorded calls show of each denoiser, with `prove` whether its batch can be split. After `record`."""
        first = {call.component: call for call in reversed(self._calls) if call.component in self._denoisers}
        return {name: self._facts(call, prove) for name, call in first.items()}

    def _facts(self, call: _Call, prove: bool) -> DenoiserFacts:
        leaves, spec = tree_flatten_with_path((call.args, call.kwargs))
        shapes = [(keystr(path), leaf) for path, leaf in leaves if isinstance(leaf, Shape) and leaf.shape]
        batch = shapes[0][1].shape[0] if shapes else 1
        batched = tuple(path for path, leaf in shapes if leaf.shape[0] == batch)
        if batch < 2 or not prove:
            return DenoiserFacts(batch=batch, batched=batched)

        def run(samples: int) -> None:
            self._borders = Borders(self._recorder, routing=Routing(all_to_few=True))
            sized = [leaf.of_batch(samples) if keystr(path) in batched else leaf for path, leaf in leaves]
            args, kwargs = tree_map_only(Shape, self._materialise, tree_unflatten(sized, spec))
            with self._borders, self._mode:
                self._parts[call.component].forward(*args, **kwargs)

        with (
            undisturbed(),
            self._recorder,
            _processors(call.processors),
        ):  # what watches operators stands above the recorder
            try:
                with self._shortcuts.anew():  # each distinct block is seen once
                    mixes = mixing(run, batch)
            finally:
                self._recorder.cut()
            with (
                self._recorder.pause()
            ):  # blocks that are the same in one run need not be in the other: all are looked at
                return DenoiserFacts(batch=batch, batched=batched, mixes=mixes and mixing(run, batch))

    def _start(self) -> None:
        self._recorder.begin()
        self._shortcuts.forget_signatures()
        self._cuts, self._weights, self.failed_in, self._depth = [], {}, "", 0
        for part in self._parts.values():
            for module in part.modules():
                for tensor in own_tensors(module):
                    self._recorder.know_weight(tensor)
        self._initial_weights = {name: weight_bytes(part) for name, part in self._parts.items()}

    def _restore_precision(self, call: _Call) -> None:
        """Brings the component to the precision it had in that call (SDXL upcasts its VAE to decode)."""
        part = self._parts[call.component]
        if precision(part) != call.precision:
            set_precision(part, self._mode, call.precision)

    def _end(self, component: str, method: str) -> None:
        self._cuts.append(_Cut(self._recorder.cut(), component, method, dict(self._weights)))

    def _wrap(self, name: str, part: torch.nn.Module) -> None:
        """Puts the recorder's hooks on the twin's component."""
        offloads_buffers = len(part._parameters) > 0  # pipeline_utils.py enable_sequential_cpu_offload
        blocks = {id(child) for m in part.modules() if isinstance(m, torch.nn.ModuleList) for child in m}
        grouped = block_bytes(part, name)
        for path, module in part.named_modules():
            module.__dict__["to"] = self._caster(name, module)
            full = f"{name}.{path}" if path else name
            if path and (id(module) in blocks or full in grouped or any(True for _ in own_tensors(module))):
                self._hook(full, module, offloads_buffers)
        if hasattr(part, "decode"):
            blocks |= {id(part._modules[name]) for name in ("encoder", "decoder") if name in part._modules}
            for blend in ("blend_v", "blend_h", "blend_t"):
                if hasattr(part, blend):
                    part.__dict__[blend] = self._shortcuts.shorten_blend(getattr(part, blend))
        for path, module in part.named_modules():
            if id(module) in blocks:
                self._shortcuts.shorten(module, f"{name}.{path}")
        if name in self._denoisers:  # whose batch may go through it in slices
            self._shortcuts.shorten(part, name)

    @contextmanager
    def _entry_points(self) -> Iterator[None]:
        """While recording, calls of components go through the recorder, outside whatever a lever has put around them."""
        before = [
            (part, {m: part.__dict__[m] for m in ENTRY_POINTS if m in part.__dict__}) for part in self._parts.values()
        ]
        try:
            for name, part in self._parts.items():
                offloads_buffers = len(part._parameters) > 0
                for method in ENTRY_POINTS:
                    if callable(getattr(part, method, None)):
                        part.__dict__[method] = self._inside(name, method, getattr(part, method), offloads_buffers)
            yield
        finally:
            for part, own in before:
                for method in ENTRY_POINTS:
                    part.__dict__.pop(method, None)
                part.__dict__.update(own)

    def _hook(self, path: str, module: torch.nn.Module, offloads_buffers: bool) -> None:
        recorder = self._recorder
        module.register_forward_pre_hook(lambda m, _: recorder.enter(path, own_bytes(m, offloads_buffers)))
        module.register_forward_hook(lambda m, _, __: recorder.leave(path, own_bytes(m, offloads_buffers)))

    def _inside(self, name: str, method: str, function: Callable[..., Any], buffers: bool) -> Callable[..., Any]:
        """The component's method with fake inputs, between two cuts of the tape. Pipelines read its signature (SVD's)."""

        @wraps(function, updated=())
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return function(*args, **kwargs)
            self._end("", "")
            shapes = tree_map_only(torch.Tensor, self._shape, (args, kwargs))
            present = {m: vars(m)["processor"] for m in self._parts[name].modules() if "processor" in vars(m)}
            self._calls.append(_Call(name, method, shapes[0], shapes[1], precision(self._parts[name]), present))
            args, kwargs = tree_map_only(torch.Tensor, self._fake, (args, kwargs))
            self._depth, self.failed_in = 1, name
            part = self._parts[name]
            self._recorder.enter(name, own_bytes(part, buffers))
            with self._mode:
                output = function(*args, **kwargs)
            self._recorder.leave(name, own_bytes(part, buffers))
            if method == "decode":
                self._decoded.append(picture_in(output))
            self._depth, self.failed_in = 0, ""
            del args, kwargs
            self._end(name, method)
            return output

        return wrapped

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        with self._recorder.pause():
            fake = born(self._mode, tensor)
        self._recorder.know_weight(fake)  # the real tensor is recorded already
        self._borders.tell(fake, self._borders.value_of(tensor))
        return fake

    def _shape(self, tensor: torch.Tensor) -> Shape:
        return Shape.of(tensor, self._borders.value_of(tensor))

    def _materialise(self, shape: Shape) -> torch.Tensor:
        with self._recorder.pause(), self._mode:
            fake = torch.empty_strided(shape.shape, shape.stride, dtype=shape.dtype, device="cpu")
        self._recorder.know_weight(fake)
        self._borders.tell(fake, shape.values)
        return fake

    def _caster(self, name: str, module: torch.nn.Module) -> Callable[..., Any]:
        """Stands for `module.to`: a change of precision is an event, a change of device is none."""

        def to(*args: Any, **kwargs: Any) -> torch.nn.Module:
            wanted = (*args, *kwargs.values())
            dtype = next((arg for arg in wanted if isinstance(arg, torch.dtype)), None)
            if dtype is not None:
                self._shortcuts.forget_signatures()
                with self._recorder.pause():
                    set_precision(module, self._mode, dtype)
                for part in module.modules():
                    for tensor in own_tensors(part):
                        self._recorder.know_weight(tensor)
                self._weights[name] = weight_bytes(self._parts[name])
            return module

        return to

    def _unreached(self, error: Exception) -> dict[str, str]:
        """The component that failed, and those whose turn never came."""
        done = {cut.component for cut in self._cuts}
        failed = self.failed_in or "the pipeline's own code"
        late = {name: f"not reached: {failed} stopped the trace" for name in self._parts if name not in done}
        return late | {failed: words_of(error)}

    def _segments(self) -> tuple[Segment, ...]:
        """The tapes as segments, with their phases and turns."""
        found = places([cut.component for cut in self._cuts], self._denoisers)
        return tuple(
            cut.tape.segment(cut.component, cut.method, place.phase, place.turn, cut.weights)
            for cut, place in zip(self._cuts, found, strict=True)
        )

    def _recorded_calls(self) -> int:
        return sum(cut.component in self._denoisers for cut in self._cuts)


@contextmanager
def _processors(processors: Mapping[Any, Any]) -> Iterator[None]:
    """These attention processors inside; those that were there afterwards."""
    before = [(module, module.processor) for module in processors]
    try:
        for module, processor in processors.items():
            module.processor = processor
        yield
    finally:
        for module, processor in before:
            module.processor = processor
