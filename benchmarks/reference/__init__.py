"""Bytes of a call under a plan from raw events, on the allocator in Python: what `autotune.simulate` is held against.

Frozen. It plays a trace event by event, as torch, accelerate and diffusers would, without anything that would make it fast:
nothing is written beforehand or kept between plans. It shares the records, the temporaries of kernels and `residency` with what
it judges, and nothing else.
"""
