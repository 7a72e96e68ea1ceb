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
        ("4\u00a0GB", 4 * GB),
        ("4gb", 4 * GB),
        ("4gB", 4 * GB),
        ("4G", 4 * GB),
        ("4 g", 4 * GB),
        ("4 gigabytes", 4 * GB),
        ("4,5 GB", 4_500_000_000),
        ("4.0GB", 4 * GB),
        ("4e9", 4 * GB),
        ("4E9", 4 * GB),
        ("1e9B", GB),
        ("4000000000", 4 * GB),
        ("8000000000B", 8 * GB),
        (4e9, 4 * GB),
        ("3.5GiB", 3_758_096_384),
        ("8 gib", 8 * GIB),
        ("8GIB", 8 * GIB),
        ("8gi", 8 * GIB),
        ("8 GibiBytes", 8 * GIB),
        ("0.4GB", 400_000_000),
        ("512MB", 512_000_000),
        ("6144 mb", 6_144_000_000),
        ("512 MiB", 536_870_912),
        ("6144MiB", 6144 * 2**20),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("10KB", 10_000),
        ("10KiB", 10_240),
        ("7B", 7),
        ("7 bytes", 7),
        (1000, 1000),
    ],
)
def test_sizes_are_read(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("prefix", ["k", "m", "g", "t", "ki", "mi", "gi", "ti"])
def test_small_letters_are_bytes_and_a_lone_small_b_is_bits(prefix):
    usual = prefix[0].upper() + prefix[1:] + "B"
    assert parse_bytes(f"4{prefix}b") == parse_bytes(f"4{prefix}") == parse_bytes(f"4{prefix.upper()}B")
    for bits in (usual.replace("B", "b"), f"{prefix[0]}bit", f"{prefix[0].upper()}bits", f"{prefix[0]}bps"):
        with pytest.raises(BadSizeError, match=f"'4 ?{bits}' reads as bits; write size='4{prefix[0].upper()}i?B'"):
            parse_bytes(f"4{bits}")


WRITE = "write for example max_vram='4GB' or '3.7GiB'"
UNITS = "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4Gb", "max_vram='4Gb' reads as bits; write max_vram='4GB' if you mean bytes"),
        ("4Gib", "max_vram='4Gib' reads as bits; write max_vram='4GiB' if you mean bytes"),
        ("4b", "max_vram='4b' reads as bits; write max_vram='4B' if you mean bytes"),
        ("4gigs", f"max_vram='4gigs' has the unit 'gigs', which is not one of {UNITS}; write '4GB'"),
        ("8", "max_vram='8' is a number of bytes; 8 GB? Write max_vram='8GB'"),
        (8, "max_vram=8 is a number of bytes; 8 GB? Write max_vram='8GB'"),
        (7.5, "max_vram=7.5 is a number of bytes; 7.5 GB? Write max_vram='7.5GB'"),
        (999, "max_vram=999 is a number of bytes; 999 GB? Write max_vram='999GB'"),
        ("1,024MB", "max_vram='1,024MB' can be read in two ways; write max_vram='1024MB' or use a point"),
        ("", f"max_vram='' is not a size; {WRITE}"),
        ("GB", f"max_vram='GB' is not a size; {WRITE}"),
        ("4 G B", f"max_vram='4 G B' is not a size; {WRITE}"),
        ("\u0664GB", f"max_vram='\u0664GB' is not a size; {WRITE}"),
        ("\u00b2GB", f"max_vram='\u00b2GB' is not a size; {WRITE}"),
        ("nan", f"max_vram='nan' is not a size; {WRITE}"),
        ("infGB", f"max_vram='infGB' is not a size; {WRITE}"),
        (float("nan"), f"max_vram=nan is not a size; {WRITE}"),
        (float("inf"), f"max_vram=inf is not a size; {WRITE}"),
        ("-1GB", "max_vram='-1GB' is not a positive size; write for example max_vram='4GB'"),
        ("0", "max_vram='0' is not a positive number of bytes; write for example max_vram='4GB'"),
        ("0GB", "max_vram='0GB' is not a positive size; write for example max_vram='4GB'"),
        ("0.1B", "max_vram='0.1B' is not a positive size; write for example max_vram='4GB'"),
        (0, "max_vram=0 is not a positive number of bytes; write for example max_vram='4GB'"),
        (-4, "max_vram=-4 is not a positive number of bytes; write for example max_vram='4GB'"),
        ("1e400GB", "max_vram='1e400GB' is more than any machine has; write for example max_vram='4GB'"),
        ("9" * 30, f"max_vram='{'9' * 30}' is more than any machine has; write for example max_vram='4GB'"),
        ("9" * 9000, f"max_vram='{'9' * 39}... is not a size; {WRITE}"),
        (10**9000, "max_vram has more bytes than any machine; write for example max_vram='4GB'"),
        (True, "max_vram=True is not a size; write for example max_vram='4GB' or a number of bytes"),
        (None, "max_vram=None is not a size; write for example max_vram='4GB' or a number of bytes"),
    ],
    ids=lambda value: str(value)[:20] if not isinstance(value, int) else "int",
)
def test_what_is_no_size_is_refused(text, message):
    with pytest.raises(BadSizeError) as caught:
        parse_bytes(text, name="max_vram")
    assert str(caught.value) == message


def test_a_refused_size_tells_programs_what_to_write():
    for text, nearest in ((8, "8GB"), ("4Gb", "4GB"), ("5 gigs", "5GB")):
        with pytest.raises(BadSizeError) as caught:
            parse_bytes(text)
        assert caught.value.nearest == (nearest,)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KB"),
        (999_600, "1 MB"),
        (MB, "1 MB"),
        (999_400_000, "999 MB"),
        (999_600_000, "1.00 GB"),
        (4 * GB, "4.00 GB"),
        (-3_210_000_000, "-3.21 GB"),
        (99_994_000_000, "99.99 GB"),
        (99_997_000_000, "100 GB"),
        (141 * GB, "141 GB"),
        (-141 * GB, "-141 GB"),
    ],
)
def test_sizes_are_printed(value, text):
    assert size(value) == text


def test_both_conventions():
    assert both_sizes(8 * GIB) == "8.59 GB (8.00 GiB)"


@given(
    st.sampled_from([1000, MB, GB, 100 * GB]).flatmap(
        lambda edge: st.tuples(*[st.integers(edge - edge // 500, edge + edge // 500)] * 2)
    )
)
def test_printed_sizes_of_one_value_are_one_text(values):
    """Where units and decimals change."""
    fewer, more = map(size, sorted(values))
    read = parse_bytes(fewer.replace(" ", "")), parse_bytes(more.replace(" ", ""))
    assert read[0] <= read[1]
    assert (read[0] == read[1]) == (fewer == more)


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
