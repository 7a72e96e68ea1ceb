"""Sizes and times, read and printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.errors import BadSizeError
from autotune.units import GB, GIB, MB, both_sizes, duration, parse_bytes, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4GB", 4 * GB),
        (" 4 GB ", 4 * GB),
        ("3.5GiB", 3_758_096_384),
        ("0.4GB", 400_000_000),
        ("512MB", 512_000_000),
        ("512 MiB", 536_870_912),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("10KB", 10_000),
        ("10KiB", 10_240),
        ("7B", 7),
        (7, 7),
    ],
)
def test_sizes_are_read(text, value):
    assert parse_bytes(text) == value


WRITE = "write for example max_vram='4GB' or '3.7GiB'"
UNITS = "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4Gb", "max_vram='4Gb' reads as bits; write max_vram='4GB' if you mean bytes"),
        ("4gb", "max_vram='4gb' reads as bits; write max_vram='4GB' if you mean bytes"),
        ("4Gib", "max_vram='4Gib' reads as bits; write max_vram='4GB' if you mean bytes"),
        ("4G", f"max_vram='4G' has the unit 'G', which is not one of {UNITS}; write '4GB'"),
        ("4gB", f"max_vram='4gB' has the unit 'gB', which is not one of {UNITS}; write '4GB'"),
        ("4", f"max_vram='4' is not a size; {WRITE}"),
        ("", f"max_vram='' is not a size; {WRITE}"),
        ("GB", f"max_vram='GB' is not a size; {WRITE}"),
        ("-1GB", f"max_vram='-1GB' is not a size; {WRITE}"),
        ("1e9B", f"max_vram='1e9B' is not a size; {WRITE}"),
        ("0", f"max_vram='0' is not a size; {WRITE}"),
        ("0GB", "max_vram='0GB' is not a positive size; write for example max_vram='4GB'"),
        ("0.1B", "max_vram='0.1B' is not a positive size; write for example max_vram='4GB'"),
        (0, "max_vram=0 is not a positive number of bytes; write for example max_vram='4GB'"),
        (-4, "max_vram=-4 is not a positive number of bytes; write for example max_vram='4GB'"),
        (True, "max_vram=True is not a size; write for example max_vram='4GB' or a number of bytes"),
        (4.0, "max_vram=4.0 is not a size; write for example max_vram='4GB' or a number of bytes"),
        (None, "max_vram=None is not a size; write for example max_vram='4GB' or a number of bytes"),
    ],
)
def test_what_is_no_size_is_refused(text, message):
    with pytest.raises(BadSizeError) as caught:
        parse_bytes(text, name="max_vram")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (MB, "1 MB"),
        (999_400_000, "999 MB"),
        (999_600_000, "1.00 GB"),
        (4 * GB, "4.00 GB"),
        (-3_210_000_000, "-3.21 GB"),
        (141 * GB, "141 GB"),
    ],
)
def test_sizes_are_printed(value, text):
    assert size(value) == text


def test_both_conventions():
    assert both_sizes(8 * GIB) == "8.59 GB (8.00 GiB)"


@given(st.integers(MB, 900 * GB))
def test_a_printed_size_is_read_back(value):
    assert parse_bytes(size(value).replace(" ", "")) == pytest.approx(value, rel=0.01, abs=500_000)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.0096, "10 ms"),
        (0.045, "45 ms"),
        (0.996, "1.0 s"),
        (2.31, "2.3 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (250, "4 min 10 s"),
        (3600, "1 h 0 min"),
        (7384, "2 h 3 min"),
    ],
)
def test_durations_are_printed(seconds, text):
    assert duration(seconds) == text
