"""What every profile store keeps, wherever its folders lie: one suite, run over each kind of store."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import shutil
import tempfile
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.records.described import MAX_PICTURE_PX
from autotune.records.device import Device
from autotune.records.estimate import PHASES, Estimate, Phase
from autotune.records.front import Candidate, Front
from autotune.records.plan import Plan
from autotune.records.profile import Profile, ProfileKey
from autotune.records.workload import Workload
from autotune.store import bundled
from autotune.store.key import hash_options, hash_workload, profile_key, versions
from autotune.store.profiles import ProfileStore

GPU = "tesla-t4-16gb"
CALL = Workload(height=512, width=512, steps=30)
CARD = Device(
    name="Tesla T4",
    kind="cuda",
    torch_device="cuda:0",
    compute_capability=(7, 5),
    total_bytes=16 * 10**9,
    bandwidth_bytes_per_s=320e9,
    fp32_flops_per_s=8.1e12,
)


def candidate(name: str, peak_bytes: int) -> Candidate:
    parts = {"weights_bytes": peak_bytes - 3, "activations_bytes": 1, "workspace_bytes": 1, "overhead_bytes": 1}
    phases = tuple(
        Phase(name=phase, peak_bytes=peak_bytes, compute_s=1.5, transfer_s=0.1, moment="unet.mid_block", **parts)
        for phase in PHASES
    )
    estimate = Estimate(
        phases=phases,
        allocated_bytes=peak_bytes,
        reserved_bytes=peak_bytes,
        process_bytes=peak_bytes,
        margin_bytes=100,
        host_ram_bytes=5,
        steps=30,
        step_s=0.1,
        latency_margin=0.25,
    )
    return Candidate(plan=Plan(id=name, offload="model", reasons={"offload": "does not fit"}), estimate=estimate)


def a_profile(
    structural: str = "1f0c",
    *,
    workload: Workload = CALL,
    options: dict[str, object] | None = None,
    aliases: tuple[str, ...] = (),
    made_with: dict[str, str] | None = None,
    searched: int = 64,
) -> Profile:
    front = Front(
        model="Stable Diffusion 1.5",
        device=CARD,
        workload=workload,
        candidates=(candidate("p1", 10**9), candidate("p2", 10**8)),
        searched=searched,
    )
    key = profile_key(structural=structural, gpu_slug=GPU, workload=workload, options=options or {"quality": "near"})
    return Profile(key=key, aliases=aliases, versions=made_with or versions(), front=front)


def digests(folder: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.json") if path.is_file()}


@dataclass
class Place:
    """A store, and the store that puts into the folder in which it is expected to look."""

    store: ProfileStore
    folder: Path

    def put(self, profile: Profile, *, label: str = "sd15") -> Path:
        path = ProfileStore([self.folder], self.folder).save(profile, label=label)
        assert path is not None
        return path


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch):
    """No test sees this machine's cache, a checkout's `./profiles` or what ships."""
    working = tmp_path / "work"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "shipped_directory", lambda: None)


def warnings_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


BROKEN = {
    "empty": lambda whole: b"",
    "cut short before the key": lambda whole: whole[: whole.index(b'"key"')],
    "cut short after the key": lambda whole: whole[: whole.index(b'"schema_version"')],
    "cut short at an inner brace": lambda whole: whole[: whole.rindex(b"  }") + 4],
    "not closed": lambda whole: whole[:-2],
    "words before": lambda whole: b"see " + whole,
    "conflict markers": lambda whole: whole.replace(b'  "key"', b'<<<<<<< ours\n  "key"'),
    "other schema": lambda whole: whole.replace(b'"schema_version": 2', b'"schema_version": 1').replace(
        b"aliases", b"names"
    ),
    "unknown field": lambda whole: whole.replace(b'"searched"', b'"surched"'),
    "other object": lambda whole: b'{\n  "name": "1f0c"\n}\n',
    "other json": lambda whole: b"[1, 2, 3]",
    "deeply nested": lambda whole: b"[" * 100_000,
    "text": lambda whole: b"1f0c\n",
    "not utf-8": lambda whole: whole.replace(b"Stable", b"St\xe4ble"),
    "utf-16": lambda whole: whole.decode().encode("utf-16"),
    "too big": lambda whole: whole + b" " * 16_000_000,
}


class StoreContract:
    """Looking: the same for every store."""

    @pytest.fixture
    def place(self) -> Place:
        raise NotImplementedError

    def test_an_empty_store_is_a_miss_and_creates_nothing(self, place, tmp_path, caplog):
        before = set(tmp_path.rglob("*"))
        assert place.store.find(a_profile().key) is None
        assert place.store.find_alias("zoo", GPU, "w", "o") is None
        assert place.store.entries() == []
        assert set(tmp_path.rglob("*")) == before
        assert caplog.records == []

    def test_hit(self, place, caplog):
        profile = a_profile(aliases=("zoo",))
        path = place.put(profile)
        assert place.store.find(profile.key) == profile
        assert place.store.entries() == [(path, profile)]
        assert caplog.records == []

    @pytest.mark.parametrize("part", ProfileKey.model_fields)
    def test_miss_by_each_part_of_the_key(self, place, part, caplog):
        profile = a_profile()
        place.put(profile)
        changed = getattr(profile.key, part)[:-1] + "x"
        assert place.store.find(profile.key.model_copy(update={part: changed})) is None
        assert caplog.records == []

    def test_another_gpu_with_the_same_folder_name_is_a_miss(self, place):
        profile = a_profile()
        place.put(profile)
        assert place.store.find(profile.key.model_copy(update={"gpu": GPU.upper()})) is None

    def test_names_of_files_are_labels(self, place):
        one, two = a_profile("1f0c"), a_profile("2e0d")
        paths = place.put(one, label="sd15"), place.put(two, label="sdxl")
        spare = paths[0].with_name("spare.json")
        paths[0].rename(spare)
        paths[1].rename(paths[0])
        spare.rename(paths[1])
        assert place.store.find(one.key) == one
        assert place.store.find(two.key) == two

    def test_hit_by_alias(self, place):
        other, profile = a_profile("2e0d", aliases=("xl",)), a_profile(aliases=("hub", "zoo"))
        place.put(other)
        place.put(profile)
        rest = (GPU, hash_workload(CALL), hash_options({"quality": "near"}))
        assert place.store.find_alias("zoo", *rest) == profile
        assert place.store.find_alias("xl", *rest) == other
        assert place.store.find_alias("1f0c", *rest) is None, "a structural key is no alias"
        for index in range(3):
            wrong = [*rest[:index], rest[index] + "x", *rest[index + 1 :]]
            assert place.store.find_alias("zoo", *wrong) is None

    def test_only_profiles_that_mention_the_key_are_parsed(self, place, monkeypatch):
        for number in range(20):
            place.put(a_profile(f"model-{number}"))
        parsed = []
        real = Profile.model_validate_json
        monkeypatch.setattr(Profile, "model_validate_json", lambda data: parsed.append(data) or real(data))
        assert place.store.find(a_profile("model-7").key) is not None
        assert len(parsed) == 1

    def test_other_spellings_of_the_same_json_are_found(self, place):
        profile = a_profile()
        place.put(profile).write_text(profile.model_dump_json())
        assert place.store.find(profile.key) == profile
        assert place.store.find(a_profile("2e0d").key) is None

    @pytest.mark.parametrize("kind", BROKEN)
    def test_a_broken_file_is_a_miss_with_one_warning_and_stays(self, place, kind, caplog):
        path = place.put(a_profile())
        whole = path.read_bytes()
        path.write_bytes(BROKEN[kind](whole))
        assert path.read_bytes() != whole
        before = digests(place.folder)

        assert place.store.find(a_profile().key) is None
        assert place.store.find_alias("zoo", GPU, "w", "o") is None
        assert place.store.find(a_profile().key) is None
        assert place.store.entries() == []

        (warning,) = warnings_in(caplog)
        assert warning.startswith(f"{path} is ignored: ")
        assert digests(place.folder) == before

    @pytest.mark.parametrize("kind", sorted(BROKEN.keys() - {"conflict markers", "unknown field", "not utf-8"}))
    def test_a_file_that_is_not_whole_is_noticed_by_a_search_for_any_key(self, place, kind, caplog):
        path = place.put(a_profile())
        path.write_bytes(BROKEN[kind](path.read_bytes()))
        assert place.store.find(a_profile("2e0d").key) is None
        (warning,) = warnings_in(caplog)
        assert warning.startswith(f"{path} is ignored: ")

    def test_hidden_and_other_files_are_not_looked_at(self, place, caplog):
        path = place.put(a_profile())
        for name in ["._sd15.json", "sd15.json.tmp", "notes.txt"]:
            path.with_name(name).write_text("1f0c")
        assert place.store.find(a_profile().key) == a_profile()
        assert place.store.entries() == [(path, a_profile())]
        assert caplog.records == []

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            ("other schema", "no profile of this version of autotune: schema_version: Input should be 2, found 1."),
            ("too big", "16 MB is more than a profile may have (16 MB)."),
            ("empty", "no profile: Invalid JSON: EOF while parsing"),
            ("unknown field", "front.searched: Field required"),
        ],
    )
    def test_the_warning_says_what_is_wrong(self, place, kind, words, caplog):
        path = place.put(a_profile())
        path.write_bytes(BROKEN[kind](path.read_bytes()))
        place.store.find(a_profile().key)
        assert words in caplog.text
        assert "remove it, or write it anew with `autotune profiles build`" in caplog.text

    def test_a_folder_called_like_a_profile_is_a_miss_with_one_warning(self, place, caplog):
        folder = place.folder / GPU / "sd15.json"
        folder.mkdir(parents=True)
        assert place.store.find(a_profile().key) is None
        assert place.store.find(a_profile().key) is None
        assert [text.partition(". It")[0] for text in warnings_in(caplog)] == [f"{folder} is ignored: not a file"]
        assert folder.is_dir()

    def test_a_broken_file_hides_no_other(self, place, caplog):
        profile = a_profile()
        path = place.put(profile)
        for number, kind in enumerate(BROKEN):
            path.with_name(f"a{number}.json").write_bytes(BROKEN[kind](path.read_bytes()))
        assert place.store.find(profile.key) == profile
        assert len(warnings_in(caplog)) == len(BROKEN)

    @pytest.mark.parametrize("library", ["autotune", "torch", "diffusers"])
    @pytest.mark.parametrize("place_in_version", [0, 1])
    def test_another_major_or_minor_version_is_a_miss_that_is_told(
        self, place, library, place_in_version, caplog, monkeypatch
    ):
        here = {"autotune": "0.1.0", "torch": "2.13.0+cpu", "diffusers": "0.42.1", "transformers": "5.1.0"}
        monkeypatch.setattr("autotune.store.key.versions", lambda: here)
        caplog.set_level(logging.INFO, "autotune")
        parts = here[library].split(".")
        parts[place_in_version] = "99"
        profile = a_profile(made_with=here | {library: ".".join(parts)})
        path = place.put(profile)

        assert place.store.find(profile.key) is None
        assert place.store.find(profile.key) is None
        told = f"{path} was made with {library} {'.'.join(parts)} (here {here[library]}): searching anew"
        assert [record.getMessage() for record in caplog.records] == [told]
        assert place.store.entries() == [(path, profile)]

    @pytest.mark.parametrize(
        "change",
        [{"diffusers": "0.42.9"}, {"torch": "2.13.7"}, {"transformers": "7.0"}, {"accelerate": "9.9"}],
    )
    def test_patch_versions_and_other_libraries_make_no_difference(self, place, change, monkeypatch):
        here = {"torch": "2.13.0+cpu", "diffusers": "0.42.1", "transformers": "5.1.0"}
        monkeypatch.setattr("autotune.store.key.versions", lambda: here)
        profile = a_profile(made_with=here | {"autotune": "0.1.0"} | change)
        place.put(profile)
        assert place.store.find(profile.key) == profile


class WritableStoreContract(StoreContract):
    """Looking and writing."""

    def test_saved_and_found(self, place, caplog):
        profile = a_profile()
        path = place.store.save(profile, label="SD 1.5")
        assert path == place.folder / GPU / "sd-1-5--512x512-b1-30steps.json"
        assert place.store.find(profile.key) == profile
        assert caplog.records == []

    def test_the_same_profile_has_the_same_bytes(self, place, tmp_path):
        first = place.store.save(a_profile(aliases=("zoo", "hub")), label="sd15").read_bytes()
        again = Profile.model_validate_json(first)
        turned = {"versions": dict(reversed(again.versions.items())), "aliases": ("hub", "zoo", "hub")}
        other = ProfileStore([], tmp_path / "other").save(again.model_copy(update=turned), label="sd15")
        assert other.read_bytes() == first
        assert first.endswith(b"\n}\n")
        assert first.count(b"\n") > 50, "one value a line"

    def test_the_same_key_is_written_in_place_and_keeps_its_aliases(self, place):
        path = place.store.save(a_profile(aliases=("zoo",), searched=1), label="sd15")
        renamed = path.rename(path.with_name("by-hand.json"))
        assert place.store.save(a_profile(aliases=("hub",), searched=2), label="other label") == renamed
        assert place.store.entries() == [(renamed, a_profile(aliases=("hub", "zoo"), searched=2))]

    def test_other_searches_of_the_same_model_and_size_get_names_of_their_own(self, place):
        base = a_profile()
        profiles = [
            base,
            a_profile(options={"quality": "exact"}),
            a_profile(workload=CALL.model_copy(update={"calls": 9})),
            a_profile(workload=CALL.model_copy(update={"calls": 10})),
        ]
        names = [place.store.save(profile, label="sd15").name for profile in profiles]
        stem, near, exact = "sd15--512x512-b1-30steps", base.key.options[:8], profiles[1].key.options[:8]
        assert names == [f"{stem}.json", f"{stem}--{exact}.json", f"{stem}--{near}.json", f"{stem}--{near}-2.json"]
        assert [place.store.find(profile.key) for profile in profiles] == profiles

    @pytest.mark.parametrize("kind", BROKEN)
    def test_a_save_goes_around_a_broken_file(self, place, kind):
        path = place.store.save(a_profile(), label="sd15")
        path.write_bytes(BROKEN[kind](path.read_bytes()))
        before = path.read_bytes()
        assert place.store.save(a_profile(), label="sd15") != path
        assert path.read_bytes() == before
        assert place.store.find(a_profile().key) == a_profile()

    def test_a_name_that_is_taken_by_anything_is_left_alone(self, place):
        folder = place.folder / GPU
        (folder / "sd15--512x512-b1-30steps.json").mkdir(parents=True)
        dangling = folder / f"sd15--512x512-b1-30steps--{a_profile().key.options[:8]}.json"
        dangling.symlink_to("nowhere")
        path = place.store.save(a_profile(), label="sd15")
        assert path.name.endswith("-2.json")
        assert dangling.is_symlink()
        assert place.store.find(a_profile().key) == a_profile()

    def test_nothing_but_profiles_and_a_lock_is_left(self, place):
        paths = {place.store.save(a_profile(f"model-{number}"), label="sd15") for number in range(3)}
        left = {path for path in place.folder.rglob("*") if path.is_file()}
        assert left - {place.folder / ".lock"} == paths

    def test_a_write_that_fails_leaves_the_old_profile(self, place, caplog, monkeypatch):
        path = place.store.save(a_profile(searched=1), label="sd15")
        before = digests(place.folder)

        def full(self, data):
            with self.open("wb") as file:
                file.write(data[:100])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
        assert place.store.save(a_profile(searched=2), label="sd15") is None
        assert digests(place.folder) == before
        assert list(path.parent.iterdir()) == [path]
        assert "No space left on device" in caplog.text

    def test_the_file_can_be_read_by_whoever_the_umask_lets(self, place):
        path = place.store.save(a_profile(), label="sd15")
        control = path.parent / "control"
        control.touch()
        assert path.stat().st_mode == control.stat().st_mode

    def test_concurrent_writers_lose_nothing(self, place, caplog):
        processes = multiprocessing.get_context("spawn")
        writers = [processes.Process(target=write_several, args=(place.folder, number)) for number in range(4)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            place.store.entries()
            writers[0].join(0.01)
        assert [writer.exitcode for writer in writers] == [0] * 4
        assert warnings_in(caplog) == []

        entries = [profile for _, profile in place.store.entries()]
        assert len(entries) == 4 * WRITES + 1
        for number in range(4):
            for write in range(WRITES):
                assert place.store.find(a_profile(f"model-{number}-{write}").key) is not None
        shared = place.store.find(a_profile("shared").key)
        assert len(shared.aliases) == 4 * WRITES


WRITES = 5


def write_several(folder: Path, number: int) -> None:
    """Each process writes keys of its own under one label, and adds aliases to one key that all share."""
    store = ProfileStore([folder], folder)
    for write in range(WRITES):
        assert store.save(a_profile(f"model-{number}-{write}"), label="sd15") is not None
        shared = a_profile("shared", aliases=(f"alias-{number}-{write}",))
        assert store.save(shared, label="sd15") is not None


class TestNamedFolder(WritableStoreContract):
    @pytest.fixture
    def place(self, tmp_path) -> Place:
        return Place(ProfileStore(*bundled.directories(tmp_path / "a" / "named")), tmp_path / "a" / "named")


class TestLocalFolder(WritableStoreContract):
    @pytest.fixture
    def place(self) -> Place:
        local = Path.cwd() / "profiles"
        local.mkdir()
        return Place(ProfileStore(*bundled.directories()), local)


class TestCache(WritableStoreContract):
    @pytest.fixture
    def place(self, tmp_path) -> Place:
        return Place(ProfileStore(*bundled.directories()), tmp_path / "cache" / "profiles")


class TestShippedWithReadOnlyCache(StoreContract):
    @pytest.fixture
    def place(self, tmp_path, monkeypatch) -> Place:
        (tmp_path / "file").touch()  # a folder below a file cannot be made, not even by root
        monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "file"))
        monkeypatch.setattr(bundled, "shipped_directory", lambda: tmp_path / "shipped")
        return Place(ProfileStore(*bundled.directories()), tmp_path / "shipped")

    def test_a_save_is_one_warning_and_none(self, place, tmp_path, caplog):
        place.put(a_profile())
        before = digests(tmp_path)
        assert place.store.save(a_profile("2e0d"), label="sdxl") is None
        (warning,) = warnings_in(caplog)
        assert warning == (
            f"profile of sdxl not saved in {tmp_path / 'file' / 'profiles'}: Not a directory; "
            "the next call searches again. Name a folder that can be written to with profiles=..."
        )
        assert digests(tmp_path) == before


def test_the_first_folder_wins_unless_other_versions_made_its_profile(tmp_path):
    folders = [tmp_path / name for name in ["one", "two", "three"]]
    made_with = [{"torch": "1.0"}, versions(), versions()]
    for number, folder in enumerate(folders):
        ProfileStore([], folder).save(a_profile(searched=number, made_with=made_with[number]), label="sd15")
    assert ProfileStore(folders, folders[0]).find(a_profile().key).front.searched == 1


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
counts = st.integers(min_value=1, max_value=10_000)
edges = st.none() | st.integers(min_value=1, max_value=isqrt(MAX_PICTURE_PX))
many = st.integers(min_value=1, max_value=10**6)
workloads = st.builds(
    Workload,
    batch=counts,
    height=edges,
    width=edges,
    frames=st.none() | many,
    steps=st.none() | counts,
    guidance=st.none() | st.booleans(),
    calls=many,
    arguments=st.dictionaries(st.text(), scalars | st.lists(scalars, max_size=3), max_size=3),
    inputs=st.dictionaries(st.text(), st.text(), max_size=3),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(workloads, min_size=1, max_size=4), label=st.text())
def test_what_is_saved_is_found(calls, label):
    folder = Path(tempfile.mkdtemp())
    try:
        store = ProfileStore([folder], folder)
        profiles = [a_profile(workload=call) for call in calls]
        for profile in profiles:
            assert store.save(profile, label=label) is not None
        fresh = ProfileStore([folder], folder)
        assert [fresh.find(profile.key) for profile in profiles] == profiles
        assert len(fresh.entries()) == len({profile.key.workload for profile in profiles})
    finally:
        shutil.rmtree(folder)
