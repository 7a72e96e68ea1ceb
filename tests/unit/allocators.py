"""Allocators in a few words."""

from __future__ import annotations

from autotune.simulate.allocator import Allocator

KIB, MIB = 2**10, 2**20
MAIN, SIDE = 0, 1


def mib(count):
    """Whole MiB, which it has to be."""
    assert count % MIB == 0
    return count // MIB


def after(*requests, settings=None):
    """An allocator that has served these, and the handles."""
    allocator = Allocator(settings)
    return allocator, [allocator.malloc(request) for request in requests]


def pieces(allocator):
    """(MiB, state) of every block, segment by segment."""
    return [[(stretch.size / MIB, stretch.state) for stretch in segment] for segment in allocator.segments()]
