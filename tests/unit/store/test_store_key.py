"""Keys: equal for the same search, different for any other, wherever they are made."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.records.profile import ProfileKey
from autotune.records.workload import Workload
from autotune.store.key import hash_options, hash_workload, profile_key, slug, versions

BASE = Workload(
    batch=2,
    height=512,
    width=768,
    frames=8,
    steps=30,
    guidance=True,
    calls=3,
    arguments={"clip_skip": 1, "sigmas": [1.0, 0.5]},
    inputs={"image": "512x768 RGB", "mask_image": "512x768 L"},
)
CHANGES = {
    "batch": 3,
    "height": 520,
    "width": 776,
    "frames": 9,
    "steps": 31,
    "guidance": False,
    "calls": 4,
    "arguments": {"clip_skip": 2, "sigmas": [1.0, 0.5]},
    "inputs": {"image": "1024x768 RGB", "mask_image": "512x768 L"},
    "prompt_tokens": 300,
    "computed": (512, 512, None),
    "additions": ("LoRA rank 16",),
}


def test_every_field_of_a_workload_has_a_change_here():
    assert CHANGES.keys() == Workload.model_fields.keys()


@pytest.mark.parametrize("field", CHANGES)
def test_each_field_of_the_workload_changes_its_hash(field):
    assert hash_workload(BASE.model_copy(update={field: CHANGES[field]})) != hash_workload(BASE)


def test_sizes_cannot_be_mistaken_for_one_another():
    hashes = {hash_workload(Workload(**{name: 8})) for name in ["batch", "height", "width", "frames", "steps", "calls"]}
    assert len(hashes) == 6


def test_a_default_that_is_spelled_out_is_the_same_workload():
    assert hash_workload(Workload(batch=1, guidance=None, arguments={})) == hash_workload(Workload())


def test_a_list_keeps_its_order():
    turned = BASE.model_copy(update={"arguments": {"clip_skip": 1, "sigmas": [0.5, 1.0]}})
    assert hash_workload(turned) != hash_workload(BASE)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
options = st.dictionaries(st.text(), scalars | st.lists(scalars) | st.dictionaries(st.text(), scalars))


@given(options, st.randoms())
def test_the_order_of_options_and_arguments_makes_no_difference(original, random):
    turned = list(original.items())
    random.shuffle(turned)
    assert hash_options(dict(turned)) == hash_options(original)

    flat = {name: value for name, value in original.items() if not isinstance(value, dict)}
    turned_flat = {name: value for name, value in turned if name in flat}
    assert hash_workload(Workload(arguments=turned_flat)) == hash_workload(Workload(arguments=flat))


@pytest.mark.parametrize(
    "other",
    [{}, {"quality": "exact"}, {"quality": "near", "undo": None}, {"quality": "near", "allow": {"step_cache"}}],
)
def test_other_options_have_another_hash(other):
    assert hash_options(other) != hash_options({"quality": "near"})


def test_options_may_be_sets_tuples_and_read_only_mappings():
    one = {
        "allow": frozenset({"a", "b", "c"}),
        "keep": MappingProxyType({"tf32": True, "dtype": "as_is"}),
        "forbid": (),
    }
    two = {"forbid": [], "keep": {"dtype": "as_is", "tf32": True}, "allow": {"c", "b", "a"}}
    assert hash_options(one) == hash_options(two)


def test_an_option_without_a_stable_text_is_refused_by_name():
    with pytest.raises(TypeError, match=r"^object <object .*> cannot be part of a profile's key; numbers, strings"):
        hash_options({"allow": object()})


def test_a_key_has_four_parts():
    key = profile_key(structural="1f0c", gpu_slug="tesla-t4-16gb", workload=BASE, options={"undo": True})
    expected = {"workload": hash_workload(BASE), "options": hash_options({"undo": True})}
    assert key == ProfileKey(structural="1f0c", gpu="tesla-t4-16gb", **expected)


def test_another_process_makes_the_same_key():
    code = (
        "from autotune.records.workload import Workload; from autotune.store.key import hash_options, hash_workload;"
        "print(hash_workload(Workload(height=64, arguments={'b': 1, 'a': [None, 2.5]})));"
        "print(hash_options({'allow': {*'abcdef'}}))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ["1", "2"]
    }
    here = Workload(height=64, arguments={"a": [None, 2.5], "b": 1})
    assert seen == {f"{hash_workload(here)}\n{hash_options({'allow': {*'abcdef'}})}\n"}


def test_versions_are_those_of_our_distribution_and_the_traced_libraries(monkeypatch):
    installed = {"diffusers-autotune": "0.1.0", "torch": "2.13.0+cpu", "diffusers": "0.42.1", "autotune": "9.9"}

    def version(distribution: str) -> str:
        if distribution not in installed:
            raise metadata.PackageNotFoundError(distribution)
        return installed[distribution]

    monkeypatch.setattr(metadata, "version", version)
    assert versions() == {"autotune": "0.1.0", "torch": "2.13.0+cpu", "diffusers": "0.42.1"}


def test_the_store_imports_neither_torch_nor_diffusers():
    code = (
        "import sys; from autotune.store import bundled, profiles; profiles.ProfileStore(*bundled.directories());"
        "print({'torch', 'diffusers', 'transformers', 'accelerate', 'filelock'} & sys.modules.keys())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVIDIA GeForce RTX 3060 12GB", "nvidia-geforce-rtx-3060-12gb"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "stabilityai-stable-diffusion-xl-base-1-0"),
        ("../../etc/passwd", "etc-passwd"),
        ("Café -- Modèle", "cafe-modele"),
        ("猫", "unnamed"),
        ("", "unnamed"),
        ("x" * 79 + "/yz", "x" * 79),
    ],
)
def test_slugs(text, expected):
    assert slug(text) == expected


@given(st.text())
def test_a_slug_is_a_plain_name_and_its_own_slug(text):
    name = slug(text)
    assert name.replace("-", "").isalnum()
    assert name.isascii()
    assert "--" not in name
    assert slug(name) == name
