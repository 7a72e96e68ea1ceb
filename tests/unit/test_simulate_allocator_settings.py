"""Options of the caching allocator, as torch reads them."""

from __future__ import annotations

import pytest

from autotune.errors import PlanError
from autotune.simulate.allocator_settings import Settings
from tests.unit.allocators import MIB


def read(text, **others):
    return Settings.from_environment({"PYTORCH_CUDA_ALLOC_CONF": text, **others})


def test_nothing_said():
    assert Settings.from_environment({}) == read("") == Settings()


def test_every_option():
    settings = read(
        " max_split_size_mb: 128, large_segment_size_mb:30 ,max_non_split_rounding_mb:40,expandable_segments:True,"
        "garbage_collection_threshold:0.8,roundup_power2_divisions:[1:2,>:4],pinned_use_background_threads:True,"
        "future:[1:2,3:4]"
    )
    assert settings == Settings(
        max_split_size_bytes=128 * MIB,
        large_segment_bytes=30 * MIB,
        max_non_split_rounding_bytes=40 * MIB,
        expandable_segments=True,
        garbage_collection_threshold=0.8,
        roundup_power2_divisions=(2, *[4] * 15),
    )


def test_the_older_name_counts_first():
    assert read("max_split_size_mb:64", PYTORCH_ALLOC_CONF="expandable_segments:True") == Settings(
        max_split_size_bytes=64 * MIB
    )
    assert Settings.from_environment({"PYTORCH_ALLOC_CONF": "expandable_segments:True"}).expandable_segments


def test_the_rounding_follows_the_large_segment():
    assert read("large_segment_size_mb:64").max_non_split_rounding_bytes == 64 * MIB


def test_the_drivers_own_pool_is_noticed():
    assert not read("backend:cudaMallocAsync").is_native
    assert read("backend:native").is_native


@pytest.mark.parametrize(
    ("text", "divisions"),
    [  # as torch 2.13 reads them
        ("8", [8] * 16),
        ("[64:8,256:4,>:1]", [8, 8, 8, 8, 8, 8, 8, 0, 4, 1, 1, 1, 1, 1, 1, 1]),
        ("[256:1,512:2,1024:4,>:8]", [1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 8, 8, 8, 8]),
        ("[>:4]", [0, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4]),
        ("[1:2,2:4,4:8,8:0,>:16]", [2, 4, 8, 0, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16, 16]),
        ("[131072:4]", [4] * 16),
        ("[64:8,2:2]", [8, 2, 8, 8, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("[]", [0] * 16),
    ],
)
def test_steps_between_powers_of_two(text, divisions):
    assert read(f"roundup_power2_divisions:{text}").roundup_power2_divisions == tuple(divisions)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_split_size_mb", "is not an option"),
        ("max_split_size_mb:", "is not an option"),
        (":3", "is not an option"),
        ("max_split_size_mb:many", "not a whole number of MiB"),
        ("max_split_size_mb:-1", "not a whole number of MiB"),
        ("max_split_size_mb:19", "at least 20"),
        ("max_non_split_rounding_mb:10", "at least 20"),
        ("large_segment_size_mb:64,max_split_size_mb:30", "at least 64"),
        ("large_segment_size_mb:10", "more than 10"),
        ("large_segment_size_mb:0", "more than 10"),
        ("expandable_segments:true", "none of False, True"),
        ("backend:other", "none of native, cudaMallocAsync"),
        ("garbage_collection_threshold:1", "not between 0 and 1"),
        ("garbage_collection_threshold:nan", "not between 0 and 1"),
        ("garbage_collection_threshold:x", "not between 0 and 1"),
        ("roundup_power2_divisions:3", "powers of two"),
        ("roundup_power2_divisions:0", "powers of two"),
        ("roundup_power2_divisions:[63:4]", "powers of two"),
        ("roundup_power2_divisions:[64:x]", "powers of two"),
        ("roundup_power2_divisions:[64]", "powers of two"),
    ],
)
def test_what_torch_would_refuse(text, words):
    with pytest.raises(PlanError, match=words):
        read(text)


def test_what_somebody_states_is_read_and_an_option_that_torch_lacks_is_refused():
    assert Settings.stated("expandable_segments:True,max_split_size_mb:128").max_split_size_bytes == 128 * 2**20
    for text in ("fast:True", "expandable:True", "max_split_size:128"):
        with pytest.raises(PlanError, match=r"torch has no option .*; nearest: "):
            Settings.stated(text)
