"""Where profiles are looked for and written."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.store import bundled


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A working directory, a cache and a shipped folder of our own; of these only the shipped folder exists."""
    working = tmp_path / "work"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    package = tmp_path / "site" / "autotune"
    (package / "_profiles").mkdir(parents=True)
    (package / "store").mkdir()
    monkeypatch.setattr(bundled, "__file__", str(package / "store" / "bundled.py"))
    return tmp_path


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_without_any_folder_the_cache_is_written_and_nothing_is_created(elsewhere):
    before = everything(elsewhere)
    cache = elsewhere / "cache" / "profiles"
    assert bundled.directories() == ([cache, elsewhere / "site/autotune/_profiles"], cache)
    assert everything(elsewhere) == before


def test_a_local_profiles_folder_comes_before_the_cache(elsewhere):
    local = elsewhere / "work" / "profiles"
    local.mkdir()
    looked_in, write_to = bundled.directories()
    assert looked_in == [local, elsewhere / "cache/profiles", elsewhere / "site/autotune/_profiles"]
    assert write_to == local


@pytest.mark.parametrize("name", ["mine", Path("mine"), "../work/mine"])
def test_a_named_folder_comes_first_and_need_not_exist(elsewhere, name):
    local = elsewhere / "work" / "profiles"
    local.mkdir()
    looked_in, write_to = bundled.directories(name)
    assert looked_in[0] == write_to
    assert write_to.resolve() == elsewhere / "work" / "mine"
    assert looked_in[1:] == [local, elsewhere / "cache/profiles", elsewhere / "site/autotune/_profiles"]
    assert not write_to.exists()


def test_a_home_directory_is_expanded(elsewhere, monkeypatch):
    monkeypatch.setenv("HOME", str(elsewhere / "home"))
    monkeypatch.setenv("USERPROFILE", str(elsewhere / "home"))
    assert bundled.directories("~/mine")[1] == elsewhere / "home" / "mine"


def test_a_local_folder_that_is_only_read_is_looked_in_and_the_cache_written(elsewhere, monkeypatch):
    local = elsewhere / "work" / "profiles"
    local.mkdir()
    real = bundled.os.access
    monkeypatch.setattr(bundled.os, "access", lambda path, mode: mode != bundled.os.W_OK and real(path, mode))
    looked_in, write_to = bundled.directories()
    assert looked_in[0] == local
    assert write_to == elsewhere / "cache" / "profiles"


def test_a_file_called_profiles_is_no_folder(elsewhere):
    (elsewhere / "work" / "profiles").write_text("")
    looked_in, write_to = bundled.directories()
    assert elsewhere / "work" / "profiles" not in looked_in
    assert write_to == elsewhere / "cache" / "profiles"


def test_a_folder_that_is_named_and_local_is_looked_in_once(elsewhere):
    (elsewhere / "work" / "profiles").mkdir()
    assert bundled.directories("profiles") == bundled.directories()
    assert bundled.directories("../work/profiles")[0][1:] == bundled.directories()[0][1:]


def test_the_working_directory_is_fixed_when_asked(elsewhere, monkeypatch):
    looked_in, write_to = bundled.directories("mine")
    monkeypatch.chdir(elsewhere)
    assert write_to == looked_in[0] == elsewhere / "work" / "mine"


def test_without_the_variable_the_system_decides_about_the_cache(elsewhere, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", "")
    monkeypatch.setattr(bundled.platformdirs, "user_cache_dir", lambda name: f"/caches/{name}")
    assert bundled.cache_directory() == Path("/caches/autotune/profiles")


def test_a_checkout_ships_the_folder_beside_the_package(elsewhere):
    site = elsewhere / "site"
    (site / "autotune" / "_profiles").rmdir()
    (site / "profiles").mkdir()
    assert bundled.shipped_directory() is None, "a folder beside an installed package belongs to someone else"
    (site / "pyproject.toml").touch()
    assert bundled.shipped_directory() == site / "profiles"


def test_this_library_ships_profiles():
    shipped = bundled.shipped_directory()
    assert shipped is not None
    assert shipped.is_dir()
