"""Calls that are copied leave the tape that they would have written, whatever they do with caches that they are given."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from autotune.records.trace import EventKind
from autotune.trace.record import Recorder
from autotune.trace.shortcuts import Shortcuts

SLOTS = 3
ACTIONS = ("compute", "store", "store a view", "store the argument", "use", "clear", "mark", "swap", "count", "grow")
actions = st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, SLOTS - 1)), min_size=1, max_size=8)


class Cached(torch.nn.Module):
    """Does what it is told, with a list of caches and a list of one number."""

    def __init__(self, script):
        super().__init__()
        self.script = script

    def forward(self, x, cache, index):
        argument = x
        for action, slot in self.script:
            held = cache[slot]
            if action == "compute":
                x = x + 1
            elif action == "store":
                cache[slot] = x.clone()
            elif action == "store a view":
                cache[slot] = x[1:]
            elif action == "store the argument":
                cache[slot] = argument
            elif action == "use" and isinstance(held, torch.Tensor):
                x = x + held.sum()
            elif action == "clear":
                cache[slot] = None
            elif action == "mark":
                cache[slot] = "Rep"
            elif action == "swap":
                cache[slot], cache[slot - 1] = cache[slot - 1], held
            elif action == "count":
                index[0] = min(index[0] + 1, 2)
            elif action == "grow" and len(cache) < 6:
                cache.append(x * 2)
            held = None
        return x * 1 if x is argument else x


def tape_of(script, calls, holds, *, shortened):
    """Events of several calls: kind, size, and for an end how long ago the storage began; and what is in the caches."""
    recorder, mode, kept = Recorder(), FakeTensorMode(allow_non_fake_inputs=True), []
    module = Cached(script)
    if shortened:
        Shortcuts(recorder, mode, lambda _: None).shorten(module, "block")
    cache, index = [None] * SLOTS, [0]
    with mode:
        inputs = [torch.empty(4 + rows, 2) for rows in (0, 1)]
    with recorder, mode:
        for which, held in zip(calls, holds, strict=True):
            kept.append(module(inputs[which] * 2, cache, index))
            kept.append(cache[0] if held else None)
            if not held:
                kept.clear()
        events, begun, told = list(recorder.tape.events), {}, []
        for number, (kind, ref, size) in enumerate(events):
            if kind == EventKind.ALLOC:
                begun[ref] = number
            told.append((kind, size, number - begun.get(ref, 0) if kind == EventKind.FREE else 0))
        return told, [tuple(item.shape) if isinstance(item, torch.Tensor) else item for item in (*cache, *index)]


SCRIPTS = given(
    script=actions, calls=st.lists(st.sampled_from([0, 0, 0, 1]), min_size=2, max_size=7), seed=st.integers(0, 127)
)
PATIENT = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SCRIPTS
@PATIENT
def test_copied_calls_are_as_good_as_made_ones(script, calls, seed):
    holds = [bool(seed % 2)] * len(calls)
    assert tape_of(script, calls, holds, shortened=True) == tape_of(script, calls, holds, shortened=False)


@SCRIPTS
@PATIENT
def test_what_somebody_held_when_a_call_was_recorded_ends_no_earlier(script, calls, seed):
    """And what somebody holds when it is copied does not end."""
    holds = [bool(seed >> number & 1) for number in range(len(calls))]
    (copied, left), (made, same) = (tape_of(script, calls, holds, shortened=short) for short in (True, False))
    assert left == same
    assert sorted(event[:2] for event in copied) == sorted(event[:2] for event in made)
    assert peak_bytes(copied) >= peak_bytes(made)


def peak_bytes(events):
    live, peak = 0, 0
    for kind, size, _ in events:
        live += {EventKind.ALLOC: size, EventKind.FREE: -size}.get(kind, 0)
        peak = max(peak, live)
    return peak
