"""What is on a card at a moment of a call: weights by component, tensors by number, all on one allocator."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.simulate.allocator import Allocator
from benchmarks.reference.events import Instruction, Program
from benchmarks.reference.parts import Parts

__all__ = ["Card"]

_GRAPH_STREAM = 2  # stands for the private pool of CUDA graphs


class Card:
    """A card during a call. `cublas_bytes` are taken at the first matrix product and stay."""

    def __init__(self, allocator: Allocator, cublas_bytes: int) -> None:
        self.allocator = allocator
        self._cublas_bytes = cublas_bytes
        self._weights: dict[str, list[int]] = {}
        self._shares: dict[str, float] = {}
        self._tensors: dict[int, int] = {}
        self._strangers: dict[int, list[int]] = {}
        self._graphs: dict[str, int] = {}

    def bring(self, name: str, sizes: Sequence[int]) -> None:
        """Puts a component's tensors on the card, one by one."""
        if name not in self._weights:
            self._weights[name] = [self.allocator.malloc(size) for size in sizes]
            self._shares[name] = 1.0

    def send(self, name: str) -> None:
        """Takes a component's tensors off."""
        for handle in self._weights.pop(name, ()):
            self.allocator.free(handle)

    def send_all_but(self, names: frozenset[str]) -> None:
        """Takes the others off, and gives what they held back to the driver."""
        for name in [name for name in self._weights if name not in names]:
            self.send(name)
        self.allocator.empty_cache()

    def resize(self, name: str, sizes: Sequence[int], share: float) -> None:
        """Exchanges each tensor of a component for one of another precision."""
        if name not in self._weights or self._shares[name] == share:
            return
        handles = self._weights[name]
        for index, size in enumerate(sizes):
            fresh = self.allocator.malloc(round(size * share))
            self.allocator.free(handles[index])
            handles[index] = fresh
        self._shares[name] = share

    def run(self, instructions: Program, parts: Parts | None, left_over: frozenset[int]) -> None:
        """Plays a segment. `left_over` are tensors that nobody frees under their own number: see `_left_over`."""
        malloc, free = self.allocator.malloc, self.allocator.free
        tensors, strangers = self._tensors, self._strangers
        for code, ref, size in instructions:
            if code == Instruction.MALLOC:
                tensors[ref] = malloc(size)
                if ref in left_over:
                    strangers.setdefault(size, []).append(ref)
            elif code == Instruction.FREE:
                if ref not in tensors and strangers.get(size):
                    ref = strangers[size].pop(0)
                free(tensors.pop(ref, 0))
            elif code == Instruction.HOLD:
                free(malloc(size))
            elif code == Instruction.MULTIPLY:
                if self._cublas_bytes:
                    malloc(self._cublas_bytes)
                    self._cublas_bytes = 0
            elif parts is not None:
                (parts.enter if code == Instruction.ENTER else parts.leave)(self.allocator, ref)

    def run_beside(self, instructions: Program) -> None:
        """A segment on the CPU: what is alive at its end is copied to the card."""
        born = {ref: size for code, ref, size in instructions if code == Instruction.MALLOC}
        for code, ref, _ in instructions:
            if code == Instruction.FREE:
                born.pop(ref, None)
        self._tensors |= {ref: self.allocator.malloc(size) for ref, size in born.items()}

    def run_graph(self, name: str, instructions: Program) -> None:
        """A segment in a pool of its own, which is as large as the call needs and stays."""
        if name not in self._graphs:
            pool = Card(Allocator(), 0)
            pool.run(instructions, None, frozenset())
            self._graphs[name] = self.allocator.malloc(pool.allocator.peak_reserved_bytes, _GRAPH_STREAM)
        for code, ref, _ in instructions:
            if code == Instruction.FREE:
                self.allocator.free(self._tensors.pop(ref, 0))

    def forget_activations(self) -> None:
        """The call is over, and its output is taken."""
        for handle in self._tensors.values():
            self.allocator.free(handle)
        self._tensors.clear()
        self._strangers.clear()
