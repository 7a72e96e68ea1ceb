"""What torch's caching allocator is told: its constants, and the options read from the environment.

Checked against `AcceleratorAllocatorConfig::parseArgs` of torch 2.13 (c10/core/AllocatorConfig.h), value by value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from autotune.errors import PlanError, nearest
from autotune.records.base import Record
from autotune.units import MIB

__all__ = ["MIN_BLOCK_BYTES", "SMALL_BYTES", "SMALL_SEGMENT_BYTES", "Settings"]

# c10/core/AllocatorConfig.h
MIN_BLOCK_BYTES = 512  # kMinBlockSize
SMALL_BYTES = MIB  # kSmallSize: up to this a request goes to the small pool
SMALL_SEGMENT_BYTES = 2 * MIB  # kSmallBuffer
_MIN_LARGE_BYTES = 10 * MIB  # kMinLargeAlloc: from this on a request has a segment of its own size
_ROUND_LARGE_BYTES = 2 * MIB  # kRoundLarge
_SIZE_CLASSES = 16  # kRoundUpPowerOfTwoIntervals: 1 MiB, 2 MiB, ... 32 GiB and more

_VARIABLES = (
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
)  # CUDAAllocatorConfig::instance() reads the first one set
# Every option that torch knows (c10/core/AllocatorConfig.h, c10/cuda/CUDAAllocatorConfig.h); most change no byte of a call.
_KEYS = (
    *("max_split_size_mb", "max_non_split_rounding_mb", "large_segment_size_mb", "garbage_collection_threshold"),
    *("roundup_power2_divisions", "expandable_segments", "backend", "release_lock_on_cudamalloc"),
    *("pinned_use_cuda_host_register", "pinned_num_register_threads", "pinned_use_background_threads"),
    *("pinned_reserve_segment_size_mb", "pinned_max_round_threshold_mb", "pinned_max_cached_size_mb"),
    *("graph_capture_record_stream_reuse", "per_process_memory_fraction"),
)


class Settings(Record):
    """Options of the allocator, with torch's defaults.

    >>> Settings().segment_bytes(11 * 2**20) // 2**20
    12
    >>> Settings.from_environment({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}).expandable_segments
    True
    """

    large_segment_bytes: int = 20 * MIB
    """Segment for a request of 1 to 10 MiB; also the page of an expandable segment."""
    max_split_size_bytes: int | None = None
    """Blocks of this size and more serve only requests of this size and more, whole. None: there is no such size."""
    max_non_split_rounding_bytes: int = 20 * MIB
    """By less than this may such a block be larger than the request."""
    expandable_segments: bool = False
    """One growing range of addresses per stream and pool instead of segments."""
    roundup_power2_divisions: tuple[int, ...] = ()
    """Steps between powers of two that sizes are rounded up to, for 1 MiB, 2 MiB and so on; 0 and empty for none."""
    garbage_collection_threshold: float = 0.0
    """Share of the limit from which blocks that were long unused are given back before a segment is opened; 0 for off."""
    pinned_max_round_bytes: int | None = None
    """Pinned host memory is rounded up to a power of two up to this size; None for always (CachingHostAllocator)."""
    is_native: bool = True
    """Whether torch's own allocator is at work; "backend:cudaMallocAsync" is the driver's, which cannot be replayed."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """The settings that torch would read there; keys that do not change sizes are passed over.

        Raises:
            PlanError: a value that torch would refuse as well.
        """
        name = next((name for name in _VARIABLES if name in environment), None)
        if name is None:
            return cls()
        options = _options(name, environment[name])
        large = _mebibytes(name, options, "large_segment_size_mb")
        large = cls().large_segment_bytes if large is None else large
        if large <= _MIN_LARGE_BYTES:
            raise PlanError(f"{name}: large_segment_size_mb has to be more than {_MIN_LARGE_BYTES // MIB}")
        sizes = {key: _mebibytes(name, options, key) for key in ("max_split_size_mb", "max_non_split_rounding_mb")}
        pinned = _mebibytes(name, options, "pinned_max_round_threshold_mb")
        for key, value in sizes.items():
            if value is not None and value < large:
                raise PlanError(f"{name}: {key} has to be at least {large // MIB}, the size of a large segment in MiB")
        return cls(
            large_segment_bytes=large,
            max_split_size_bytes=sizes["max_split_size_mb"],
            max_non_split_rounding_bytes=sizes["max_non_split_rounding_mb"] or large,
            expandable_segments=_choice(name, options, "expandable_segments", ("False", "True")) == "True",
            roundup_power2_divisions=_divisions(name, options.get("roundup_power2_divisions")),
            pinned_max_round_bytes=pinned,
            garbage_collection_threshold=_threshold(name, options.get("garbage_collection_threshold")),
            is_native=_choice(name, options, "backend", ("native", "cudaMallocAsync")) == "native",
        )

    @classmethod
    def stated(cls, text: str) -> Settings:
        """Those that somebody says a machine has, as in PYTORCH_CUDA_ALLOC_CONF.

        Raises:
            PlanError: an option that torch does not have, or a value that it would refuse.

        >>> Settings.stated("expandable_segments:True").expandable_segments
        True
        """
        name = _VARIABLES[0]
        for key in _options(name, text):
            if key and key not in _KEYS:
                raise PlanError(f"{name}: torch has no option {key!r}; nearest: {nearest(key, list(_KEYS), 1)}")
        return cls.from_environment({name: text})

    def block_bytes(self, requested_bytes: int) -> int:
        """Bytes of the block that a request asks for (`round_size`)."""
        divisions = self._divisions_at(requested_bytes)
        if divisions > 1 and requested_bytes > MIN_BLOCK_BYTES * divisions:
            power = 1 << (requested_bytes.bit_length() - 1)
            step = power // divisions
            return -(-requested_bytes // step) * step
        return max(-(-requested_bytes // MIN_BLOCK_BYTES), 1) * MIN_BLOCK_BYTES

    def segment_bytes(self, block_bytes: int) -> int:
        """Bytes of the segment that is opened for such a block (`get_allocation_size`)."""
        if block_bytes <= SMALL_BYTES:
            return SMALL_SEGMENT_BYTES
        if block_bytes < _MIN_LARGE_BYTES:
            return self.large_segment_bytes
        return -(-block_bytes // _ROUND_LARGE_BYTES) * _ROUND_LARGE_BYTES

    def splits(self, block_bytes: int, rest_bytes: int) -> bool:
        """Whether what such a block leaves of the one it is cut from becomes a block of its own (`should_split`)."""
        if block_bytes <= SMALL_BYTES or self.expandable_segments:
            return rest_bytes >= MIN_BLOCK_BYTES
        return rest_bytes > SMALL_BYTES and (
            self.max_split_size_bytes is None or block_bytes < self.max_split_size_bytes
        )

    def _divisions_at(self, requested_bytes: int) -> int:
        if not self.roundup_power2_divisions:
            return 0
        size_class = max(requested_bytes.bit_length() - MIB.bit_length(), 0)
        return self.roundup_power2_divisions[min(size_class, _SIZE_CLASSES - 1)]


def _options(name: str, text: str) -> dict[str, str]:
    """The pairs of "key:value,key:[a:b,c:d]"; white space means nothing, and of two alike the last one counts."""
    options = {}
    for part in re.split(r",(?![^\[]*\])", re.sub(r"\s", "", text)):
        key, colon, value = part.partition(":")
        if part and not (key and colon and value):
            raise PlanError(f"{name}={text!r}: {part!r} is not an option; write for example max_split_size_mb:128")
        options[key] = value
    return options


def _mebibytes(name: str, options: Mapping[str, str], key: str) -> int | None:
    text = options.get(key)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,12}", text) is None:
        raise PlanError(f"{name}: {key}:{text} is not a whole number of MiB; write for example {key}:128")
    return int(text) * MIB


def _choice(name: str, options: Mapping[str, str], key: str, known: tuple[str, ...]) -> str:
    """One of `known`; the first of them where nothing is said."""
    text = options.get(key, known[0])
    if text not in known:
        raise PlanError(f"{name}: {key}:{text} is none of {', '.join(known)}")
    return text


def _threshold(name: str, text: str | None) -> float:
    if text is None:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise PlanError(f"{name}: garbage_collection_threshold:{text} is not between 0 and 1, both excluded")
    return value


def _divisions(name: str, text: str | None) -> tuple[int, ...]:
    """One number for all sizes, or "[256:1,512:2,>:4]" with sizes in MiB; those below the first share its number."""
    if text is None:
        return ()
    if not text.startswith("["):
        return (_power_of_two(name, text),) * _SIZE_CLASSES
    divisions, last = [0] * _SIZE_CLASSES, None
    for part in filter(None, text.strip("[]").split(",")):
        boundary, _, number = part.partition(":")
        value = 0 if number == "0" else _power_of_two(name, number)
        if boundary == ">":
            start = 1 if last is None else last + 1  # as torch has it: alone, it leaves the first class out
            divisions[start:] = [value] * len(divisions[start:])
            continue
        size_class = min(_power_of_two(name, boundary).bit_length() - 1, _SIZE_CLASSES - 1)
        if last is None:
            divisions[:size_class] = [value] * size_class
        divisions[size_class], last = value, size_class
    return tuple(divisions)


def _power_of_two(name: str, text: str) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,12}", text) else 0
    if value < 1 or value & (value - 1):
        raise PlanError(f"{name}: roundup_power2_divisions takes powers of two, and {text!r} is none")
    return value
