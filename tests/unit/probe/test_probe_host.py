"""The host: limits of containers from a made-up proc and sys, versions and name clashes from real metadata."""

import os
import sys
from importlib import metadata
from types import SimpleNamespace

import psutil
import pytest

from autotune.probe import host as probe
from autotune.units import GIB, MIB

TOTAL_BYTES, AVAILABLE_BYTES = 32 * GIB, 20 * GIB


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    memory = SimpleNamespace(total=TOTAL_BYTES, available=AVAILABLE_BYTES)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_no_container(tmp_path):
    facts = probe.host(root=tmp_path)
    assert (facts.ram_total_bytes, facts.ram_available_bytes) == (TOTAL_BYTES, AVAILABLE_BYTES)
    assert facts.cgroup_limit_bytes is None
    assert not facts.wsl


def test_cgroup_v2_limit_less_usage_but_not_less_file_cache(tmp_path):
    group = "sys/fs/cgroup/box"
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/box",
            f"{group}/memory.max": 8 * GIB,
            f"{group}/memory.current": 5 * GIB,
            f"{group}/memory.stat": f"anon 1\ninactive_file {2 * GIB}\nslab 7",
        },
    )
    facts = probe.host(root=tmp_path)
    assert (facts.ram_total_bytes, facts.cgroup_limit_bytes) == (8 * GIB, 8 * GIB)
    assert facts.ram_available_bytes == 5 * GIB


def test_cgroup_v2_ancestors_bind_too(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner",
            "sys/fs/cgroup/outer/inner/memory.max": "max",
            "sys/fs/cgroup/outer/memory.max": 4 * GIB,
            "sys/fs/cgroup/outer/memory.current": 1 * GIB,
        },
    )
    facts = probe.host(root=tmp_path)
    assert facts.cgroup_limit_bytes == 4 * GIB
    assert facts.ram_available_bytes == 3 * GIB


def test_cgroup_v1_with_the_hosts_path_inside_a_container(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 6 * GIB,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": 2 * GIB,
            "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {512 * MIB}",
        },
    )
    facts = probe.host(root=tmp_path)
    assert facts.cgroup_limit_bytes == 6 * GIB
    assert facts.ram_available_bytes == int(4.5 * GIB)


def test_cgroup_v1_without_a_limit(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": GIB,
        },
    )
    facts = probe.host(root=tmp_path)
    assert facts.cgroup_limit_bytes is None
    assert facts.ram_total_bytes == TOTAL_BYTES


def test_a_loose_limit_does_not_raise_what_the_system_has(tmp_path):
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/",
            "sys/fs/cgroup/memory.max": 31 * GIB,
            "sys/fs/cgroup/memory.current": GIB,
        },
    )
    assert probe.host(root=tmp_path).ram_available_bytes == AVAILABLE_BYTES


def test_usage_above_the_limit_leaves_nothing(tmp_path):
    write(
        tmp_path,
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": GIB, "sys/fs/cgroup/memory.current": 2 * GIB},
    )
    assert probe.host(root=tmp_path).ram_available_bytes == 0


def test_wsl_is_recognised_by_its_kernel(tmp_path):
    write(tmp_path, {"proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2"})
    assert probe.host(root=tmp_path).wsl


def test_cores_are_those_this_process_may_use(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert probe.host(root=tmp_path).cores == 3


def test_only_installed_packages_are_listed(tmp_path, monkeypatch):
    def version(name):
        if name in {"torch", "diffusers"}:
            return "9.9"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    assert probe.host(root=tmp_path).packages == {"torch": "9.9", "diffusers": "9.9"}


def install(folder, name, version="1.0"):
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    write(info, {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", "top_level.txt": "autotune"})


def test_another_owner_of_the_import_name_is_named(tmp_path, monkeypatch):
    install(tmp_path, "diffusers-autotune")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert probe.name_clash() is None
    install(tmp_path, "autotune")
    assert probe.name_clash() == (
        "the import name 'autotune' is also supplied by autotune, which is not diffusers-autotune; "
        "run: pip uninstall autotune && pip install --force-reinstall --no-deps diffusers-autotune"
    )
