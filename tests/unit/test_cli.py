"""The command line's answers: what stands in the JSON, what a person reads, and how each refusal sounds."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.flow import ask
from autotune.probe import gpu
from autotune.records.front import Front
from autotune.records.plan import LEVERS
from autotune.store import bundled, calls
from benchmarks import tiny

CARD = "NVIDIA GeForce RTX 3060 12GB"
HERE = ["--gpu", CARD]


FORBIDDEN = ("dtype", "channels_last", "attention", "feed_forward_chunks", "vae_tiling", "compile")
FEW_TRACES = [word for lever in FORBIDDEN for word in ("--forbid", lever)]  # for what is not about the plan


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A small Stable Diffusion as a folder that holds configuration files and no weights."""
    folder = tmp_path_factory.mktemp("models") / "small-sd"
    tiny.sd().save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    return folder


@pytest.fixture(scope="session")
def profile_folder(tmp_path_factory, model_folder):
    """What `plan` remembers of that folder for two cards."""
    folder = tmp_path_factory.mktemp("profiles")
    for card in (CARD, "Tesla T4"):
        result = CliRunner().invoke(app, ["plan", str(model_folder), "--gpu", card, "--profiles", str(folder)])
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in an empty working directory, away from the checkout's `./profiles`."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})

    return run


@pytest.fixture
def small(run, model_folder, profile_folder):
    """Runs a command on the small model, whose profiles are known."""

    def small(command, *words):
        return run(command, model_folder, *HERE, "--profiles", profile_folder, *words)

    return small


def answer_of(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def files_in(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.json")}


# plan


def test_plan_json_has_everything_a_program_needs(small):
    answer = answer_of(small("plan", "--max-vram", "2GB", "--json"))
    assert answer["fits"] is True
    assert answer["cap_bytes"] == 2 * 10**9
    assert answer["model"] == "small-sd"
    assert answer["device"]["name"] == "NVIDIA GeForce RTX 3060"
    assert answer["workload"]["height"] == answer["workload"]["width"] == 64
    assert set(answer["plan"]) == {*LEVERS, "id", "reasons", "lane"}
    assert answer["plan"]["id"] in {row["id"] for row in answer["front"]}
    assert isinstance(answer["advice"], list)
    assert answer["estimate"]["source"] == "catalogue"


def test_plan_json_bytes_and_seconds_add_up_by_phase(small):
    estimate = answer_of(small("plan", "--json"))["estimate"]
    assert [phase["name"] for phase in estimate["phases"]] == ["encoding", "denoising", "decoding"]
    parts = ("weights_bytes", "activations_bytes", "workspace_bytes", "overhead_bytes")
    for phase in estimate["phases"]:
        assert phase["peak_bytes"] == sum(phase[part] for part in parts)
    peaks = {phase["peak_bytes"]: phase["name"] for phase in reversed(estimate["phases"])}
    assert estimate["process_bytes"] == max(peaks)
    assert estimate["peak_phase"] == peaks[max(peaks)]
    assert estimate["needed_bytes"] == estimate["process_bytes"] + estimate["margin_bytes"]
    assert estimate["latency_s"] == pytest.approx(sum(phase["latency_s"] for phase in estimate["phases"]))


def test_plan_json_gives_a_reason_for_each_lever(small):
    plan = answer_of(small("plan", "--json"))["plan"]
    assert {lever: bool(plan["reasons"].get(lever)) for lever in LEVERS} == dict.fromkeys(LEVERS, True)


def test_plan_of_a_zoo_model_fits_its_cap(run):
    answer = answer_of(run("plan", "sd15", *HERE, "--max-vram", "4GB", "--json"))
    assert answer["fits"] is True
    assert answer["estimate"]["needed_bytes"] <= 4 * 10**9
    assert answer["workload"]["height"] == 512


LABELS = ["plan", "expect", "against", "more", "do"]


def test_a_plan_for_a_person_is_six_lines_and_with_v_they_come_last(small):
    result = small("plan", "--max-vram", "2GB")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) <= 6
    assert lines[0].startswith("small-sd 64x64, 50 steps | RTX 3060, 12.88 GB, bf16")
    assert lines[0].endswith("simulated")
    labels = [line.split()[0] for line in lines[1:]]
    assert labels == [label for label in LABELS if label in labels]
    assert {"plan", "expect", "do"} <= set(labels)
    assert "(cap 2.00 GB)" in lines[2]
    assert 'pipe = autotune.optimize(pipe, max_vram="2GB")' in lines[-1]
    verbose = small("plan", "--max-vram", "2GB", "-v").stdout.splitlines()
    assert verbose[-len(lines) : -1] == lines[:-1]
    for word in ("Phases, simulated", "encoding", "Levers that have a choice", "What a cap buys, simulated"):
        assert any(word in line for line in verbose), word
    assert len([line for line in verbose if line.startswith(">")]) == 1


def test_a_plan_as_code_is_a_script_and_nothing_else(small, monkeypatch):
    monkeypatch.setattr("autotune.report.progress._PATIENCE_S", float("inf"))  # however slow this machine is
    others = [word for lever in FORBIDDEN if lever != "vae_tiling" for word in ("--forbid", lever)]
    asked = ["--keep", "offload=model", "--keep", "vae_tiling=32", *others]
    result = small("plan", *asked, "--code")
    assert result.exit_code == 0
    assert result.stderr == ""
    compile(result.stdout, "plan", "exec")
    assert result.stdout.endswith('pipe.enable_model_cpu_offload(device="cuda")\n')
    assert "part.tile_sample_min_size = 32" in result.stdout
    assert "autotune" not in result.stdout
    for words in (["--json"], ["--json", "--code"]):
        assert answer_of(small("plan", *asked, *words))["code"] + "\n" == result.stdout


def test_the_code_names_the_device_that_was_planned_for(run, model_folder):
    words = ["plan", model_folder, "--keep", "offload=none", *FEW_TRACES, "--no-profiles"]
    assert 'pipe.to("cpu")' in run(*words, "--device", "cpu", "--code").stdout
    assert 'pipe.to("cuda")' in run(*words, "--gpu", "Tesla T4", "--code").stdout


def test_the_marked_row_is_the_chosen_plan(small):
    chosen = answer_of(small("plan", "--objective", "memory", "--json"))["plan"]["id"]
    shown = small("plan", "--objective", "memory", "-v").stdout
    marked = [line for line in shown.splitlines() if line.startswith(">")]
    assert [line.split()[1] for line in marked] == [chosen]


def test_a_known_plan_is_neither_traced_nor_searched(small, monkeypatch):
    from autotune.flow import planning

    monkeypatch.setattr(planning, "front_of", lambda *_, **__: pytest.fail("searched"))
    assert answer_of(small("plan", "--json"))["fits"] is True


def test_without_profiles_none_is_read_or_written(run, model_folder, profile_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(ask, "recalled", lambda store, job, search: search() if store is None else pytest.fail("read"))
    answer_of(run("plan", model_folder, *HERE, *FEW_TRACES, "--no-profiles", "--json"))
    assert list(tmp_path.rglob("*.json")) == []


def test_options_reach_the_question(run, model_folder):
    words = ["--height", 128, "--width", 96, "--batch", 2, "--steps", 4, "--calls", 3, "--no-profiles", "--json"]
    kept = ["--keep", "vae_slicing=true", "--keep", "offload=model", *FEW_TRACES, "--no-undo"]
    answer = answer_of(run("plan", model_folder, *HERE, *words, *kept))
    call = answer["workload"]
    assert (call["height"], call["width"], call["batch"], call["steps"], call["calls"]) == (128, 96, 2, 4, 3)
    assert answer["estimate"]["steps"] == 4
    for row in answer["front"]:
        assert (row["vae_slicing"], row["offload"], row["dtype"]) == (True, "model", "float32")


def test_a_named_model_keeps_no_originals(run, model_folder):
    words = ["plan", model_folder, *HERE, *FEW_TRACES[2:], "--keep", "dtype=float16", "--no-profiles", "--json"]
    for answer in (answer_of(run(*words)), answer_of(run(*words, "--no-undo"))):
        assert answer["plan"]["dtype"] == "float16"
        assert answer["estimate"]["undo_bytes"] == 0


def test_the_cpu_can_be_named(run, model_folder):
    answer = answer_of(run("plan", model_folder, "--device", "cpu", *FEW_TRACES, "--no-profiles", "--json"))
    assert answer["device"]["torch_device"] == "cpu"
    assert answer["host"]["ram_total_bytes"] > 0


def test_a_cap_of_digits_is_bytes(small):
    assert answer_of(small("plan", "--max-vram", "2000000000", "--json"))["cap_bytes"] == 2 * 10**9


# progress


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(run, model_folder, monkeypatch):
    words = ["plan", model_folder, *HERE, *FEW_TRACES, "--no-profiles"]
    monkeypatch.setattr("autotune.report.progress._PATIENCE_S", 0.0)
    piped = run(*words).stderr.splitlines()
    assert all(re.fullmatch(r".*small-sd: [\w ]+, \d+ of \d+ \(\d+%\)", line) for line in piped)
    assert 1 <= len(piped) <= 2 * 11
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    watched = run(*words)
    assert "small-sd" in watched.stderr
    assert "tracing" in watched.stderr or "searching" in watched.stderr
    assert run(*words, "--json").stderr == ""


# refusals


def refusal(result, *, exit_code=1):
    """The sentence on standard error, which may be wrapped; with --json the document has it too."""
    assert result.exit_code == exit_code, result.output
    lines = [line for line in result.stderr.splitlines() if ": tracing, " not in line and ": searching, " not in line]
    assert 1 <= len(lines) <= 6
    assert lines[0].startswith("error: ")
    assert all(line.startswith("       ") for line in lines[1:])
    message = " ".join(line.strip() for line in lines)
    if result.stdout:
        assert json.loads(result.stdout)["error"]["message"] == message.removeprefix("error: ")
    return message


def test_nothing_fits(small):
    result = small("plan", "--max-vram", "10MB", "--json")
    message = refusal(result, exit_code=3)
    said = json.loads(result.stdout)["error"]
    assert set(said) == {"kind", "message", "nearest", "smallest_bytes", "phase"}
    assert said["kind"] == "DoesNotFitError"
    assert "max_vram=10 MB, but the smallest plan for small-sd at 64x64, 50 steps needs" in message
    assert said["phase"] in message
    cap = message.split("Try max_vram='")[1].split("'")[0]
    assert small("plan", "--max-vram", cap, "--json").exit_code == 0
    assert small("plan", "--max-vram", str(said["smallest_bytes"] - 1)).exit_code == 3


@pytest.mark.parametrize("words", [[], ["--code"]])
def test_nothing_fits_for_a_person_prints_no_json(small, words):
    result = small("plan", "--max-vram", "10MB", *words)
    assert "smallest plan for small-sd" in refusal(result, exit_code=3)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "sd15", *HERE, "--max-vram", "4Gb"], "max_vram='4Gb' reads as bits; write max_vram='4GB'"),
        (["plan", "sd15", *HERE, "--max-ram", "-1GB"], "max_ram='-1GB' is not a positive size"),
        (["plan", "sd15", *HERE, "--max-vram", "0"], "max_vram='0' is not a positive number of bytes"),
        (["plan", "sd15", "--gpu", "RTX 3061"], "nearest: NVIDIA GeForce RTX 3060"),
        (["plan", "sd15", "--gpu", "RTX 3080"], "write 'NVIDIA GeForce RTX 3080 10GB' or"),
        (
            ["plan", "sd16", *HERE],
            "no model 'sd16': it is no folder here and no name in the zoo; nearest: sdxl-base-1.0, sd15, ",
        ),
        (["plan", "sd15", *HERE, "--keep", "vae_tilin=512"], "no lever 'vae_tilin'"),
        (["plan", "sd15", *HERE, "--keep", "dtype=float8"], "float8"),
        (["plan", "sd15", *HERE, "--keep", "vae_tiling=maybe"], "pixels, for example 512"),
        (["plan", "sd15", *HERE, "--max-vram", "8"], "max_vram='8' is a number of bytes; 8 GB? Write max_vram='8GB'"),
        (["explore", "sd15", *HERE, "--max-ram", "16"], "16 GB? Write max_ram='16GB'"),
        (["plan", "sd15", *HERE, "--width", "513"], "width=513 is not; nearest: 512"),
        (["plan", "sd15", "--device", "tpu"], "device='tpu' was asked for, but devices are named"),
        (["explore", "sd15", *HERE, "--forbid", "dtyp"], "nearest: dtype"),
        (["plan", "sd15", *HERE, "--device", "cpu"], "give one"),
        (["explain", "sd15", *HERE, "--max-vram", "x"], "max_vram='x' is not a size"),
    ],
)
def test_what_is_refused_and_how(run, words, message):
    result = run(*words, "--json")
    assert message in refusal(result)
    error = json.loads(result.stdout)["error"]
    assert set(error) == {"kind", "message", "nearest"}
    assert error["kind"].endswith("Error")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep", "vae_tiling"], "'vae_tiling' is not LEVER=VALUE; write for example vae_tiling=false"),
        (["--keep", "=3"], "'=3' is not LEVER=VALUE"),
        (["--keep", "dtype="], "'dtype=' is not LEVER=VALUE"),
        (["--height", "0"], "--height"),
        (["--profiles", "x", "--no-profiles"], "give one"),
    ],
)
def test_what_is_not_understood(run, words, message):
    result = run("plan", "sd15", *HERE, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_value_that_a_lever_cannot_take(run, model_folder):
    result = run("plan", model_folder, *HERE, "--keep", "vae_tiling=250", "--no-profiles")
    assert "vae_tiling=250 cannot be applied" in refusal(result)


# explore, explain


def test_explore_json_rows_and_candidates_agree(small):
    answer = answer_of(small("explore", "--json"))
    assert len(answer["front"]) == len(answer["candidates"]) > 1
    assert answer["searched"] >= len(answer["front"])
    for row, candidate in zip(answer["front"], answer["candidates"], strict=True):
        assert row["id"] == candidate["plan"]["id"]
        assert row["latency_s"] == candidate["estimate"]["latency_s"]


def test_explore_shows_every_plan(small):
    answer = answer_of(small("explore", "--json"))
    shown = small("explore").stdout
    assert "simulated" in shown
    assert all(f" {row['id']} " in shown for row in answer["front"])


def test_explain_says_what_the_model_costs_as_it_is(run, model_folder):
    answer = answer_of(run("explain", model_folder, *HERE, "--max-vram", "1GB", "--json"))
    assert answer["state"] == "as it is"
    assert answer["runs"]["offload"] == "none"
    assert answer["estimate"]["host_ram_bytes"] == 0
    assert answer["fits"] is True


def test_explain_for_a_person(run, model_folder):
    shown = run("explain", model_folder, *HERE, "--max-vram", "100MB").stdout
    assert "plan     fp32, everything on the card" in shown
    assert re.search(r"expect   does not fit: needs \d+ MB, the cap is 100 MB", shown)
    assert "simulated" in shown
    assert "Phases, simulated" not in shown
    assert "Phases, simulated" in run("explain", model_folder, *HERE, "--max-vram", "100MB", "-v").stdout


# probe


def test_probe_json_without_a_card(run, monkeypatch):
    monkeypatch.setattr(gpu, "_nvml", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    answer = answer_of(run("probe", "--json"))
    told = {"autotune", "devices", "used", "host", "name_clash", "unsupported", "compiled_allocator"}
    assert set(answer) == told
    assert answer["devices"] == []
    assert answer["used"]["kind"] == "cpu"
    assert answer["host"]["packages"]["diffusers"]


def test_probe_for_a_person_says_why_there_is_no_card(run, monkeypatch):
    monkeypatch.setattr(gpu, "_nvml", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shown = run("probe").stdout
    assert "CPU" in shown
    assert "packages: torch " in shown
    assert "note: torch " in shown


def test_probe_says_whether_memory_is_replayed_in_c(run, monkeypatch):
    for is_compiled in (True, False):
        monkeypatch.setattr("autotune.simulate.heap.IS_COMPILED", is_compiled)
        assert answer_of(run("probe", "--json"))["compiled_allocator"] is is_compiled
        assert ("the allocator in C was not built" in run("probe").stdout) is not is_compiled


def test_probe_tells_of_a_name_clash(run, monkeypatch):
    monkeypatch.setattr("autotune.probe.host.name_clash", lambda: "another package supplies autotune")
    assert "note: another package supplies autotune" in run("probe").stdout
    assert answer_of(run("probe", "--json"))["name_clash"] == "another package supplies autotune"


@pytest.fixture
def calibrating(monkeypatch, tmp_path):
    """Calibrating takes no time and nobody else runs; what it says is remembered in a folder of its own."""

    def calibrate(device, *, base, budget_s, progress):
        progress("products float32", 0, 1)
        return base.model_copy(update={"source": "calibrated", "host_s": 7e-6})

    monkeypatch.setattr("autotune.measure.calibrate.calibrate", calibrate)
    monkeypatch.setattr("autotune.measure.micro.others_cpu_s", lambda: 0.0)
    monkeypatch.setattr(gpu, "_nvml", lambda: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))


def test_probe_calibrates_the_cpu_and_says_so(run, calibrating):
    result = run("probe", "--calibrate")
    assert result.exit_code == 0
    assert "no CUDA device can be used here" in result.stderr
    assert "measuring the CPU" in result.stderr
    assert "CPU, measured" in result.stdout
    assert "7 us" in result.stdout
    assert "note: speeds measured on this CPU on " in result.stdout


def test_what_was_calibrated_is_shown_later(run, calibrating):
    assert "speeds measured" not in run("probe").stdout
    run("probe", "--calibrate")
    assert "note: speeds measured on this CPU on " in run("probe").stdout
    assert answer_of(run("probe", "--json"))["used"]["speed"]["host_s"] == 7e-6


def test_probe_calibrate_json_is_alone_on_standard_output(run, calibrating):
    result = run("probe", "--calibrate", "--json")
    answer = answer_of(result)
    assert answer["used"]["speed"]["source"] == "calibrated"
    assert answer["believed"]["source"] == "catalogue"
    assert answer["believed"].keys() == answer["used"]["speed"].keys()
    assert result.stderr == ""


def test_probe_says_where_nothing_could_be_measured(run, calibrating, monkeypatch):
    monkeypatch.setattr("autotune.measure.calibrate.calibrate", lambda device, *, base, **_: base)
    result = run("probe", "--calibrate")
    assert result.exit_code == 0
    assert "nothing could be measured" in result.stderr
    assert answer_of(run("probe", "--calibrate", "--json"))["used"]["speed"] is None


# profiles


def test_a_search_is_remembered_for_each_card(profile_folder):
    assert {str(path) for path in files_in(profile_folder)} == {
        "nvidia-geforce-rtx-3060-12gb/small-sd--64x64-b1-50steps.json",
        "tesla-t4-16gb/small-sd--64x64-b1-50steps.json",
    }


@pytest.fixture(scope="module")
def built_folder(tmp_path_factory):
    """What `profiles build` makes of one model."""
    folder = tmp_path_factory.mktemp("built")
    result = CliRunner().invoke(app, ["profiles", "build", "--model", "sd-turbo", "--out", str(folder), "--json"])
    assert result.exit_code == 0, result.output
    (path,) = json.loads(result.stdout)
    assert [str(one) for one in folder.rglob("*.npz")] == [path]
    return folder


@pytest.mark.parametrize("card", ["RTX 3060 12GB", "Tesla T4", "RTX 5090"])
def test_what_is_built_answers_for_every_card(run, built_folder, card, monkeypatch, tmp_path):
    """As tracing does, and says so; without any cap, under one, and with other settings of the allocator."""
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(bundled, "shipped_directory", lambda: built_folder)
    monkeypatch.setattr(calls, "shipped_directory", lambda: built_folder)
    for number, words in enumerate(([], ["--max-vram", "3GB"], ["--allocator", "expandable_segments:True"])):
        asked = ["plan", "sd-turbo", "--gpu", card, *words, "--json"]
        traced = answer_of(run(*asked, "--no-profiles"))
        with monkeypatch.context() as patch:
            patch.setattr("autotune.trace.session.Session.__init__", None)
            known = answer_of(run(*asked, "--profiles", tmp_path / str(number)))
        assert traced.pop("answered_from") == "traced for this question"
        assert known.pop("answered_from") == "traces that came with autotune"
        assert known == traced


def test_what_other_versions_have_built_is_traced_anew(run, built_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(calls, "shipped_directory", lambda: built_folder)
    monkeypatch.setattr("autotune.store.key.versions", lambda: {"diffusers": "0.99.0"})
    answer = answer_of(run("plan", "sd-turbo", *HERE, "--profiles", tmp_path / "new", "--json"))
    assert answer["answered_from"] == "traced for this question"


def test_what_is_built_is_listed_and_shown(run, built_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(calls, "shipped_directory", lambda: built_folder)
    (entry,) = (one for one in answer_of(run("profiles", "list", "--json")) if "traces" in one)
    assert entry["name"].startswith("calls/sd-turbo--512x512")
    shown = answer_of(run("profiles", "show", entry["name"], "--json"))
    assert {**shown, "name": entry["name"]} == entry
    assert "autotune plan sd-turbo --gpu NAME" in run("profiles", "show", entry["name"]).stdout


def test_a_model_that_is_a_folder_is_not_built(run, model_folder, tmp_path):
    result = run("profiles", "build", "--model", model_folder, "--out", tmp_path)
    assert "cannot be named without being built" in refusal(result)


def test_list_names_what_show_takes(run, profile_folder):
    listed = answer_of(run("profiles", "list", "--profiles", profile_folder, "--json"))
    ours = [entry for entry in listed if entry["model"] == "small-sd" and "gpu" in entry]
    assert sorted(entry["gpu"] for entry in ours) == ["NVIDIA GeForce RTX 3060", "Tesla T4"]
    for entry in ours:
        shown = answer_of(run("profiles", "show", entry["name"], "--profiles", profile_folder, "--json"))
        assert shown["file"] == entry["file"]
        assert len(shown["front"]) == entry["plans"]


def test_list_and_show_for_a_person(run, profile_folder):
    name = "tesla-t4-16gb/small-sd--64x64-b1-50steps"
    listed = run("profiles", "list", "--profiles", profile_folder).stdout
    assert name in listed
    shown = run("profiles", "show", name, "--profiles", profile_folder).stdout
    assert "Pareto front, simulated" in shown
    assert str(profile_folder / f"{name}.json") in shown


def test_an_unknown_profile_is_answered_with_the_nearest(run, profile_folder):
    result = run("profiles", "show", "tesla-t4/small-sd--64x64-b1-50steps", "--profiles", profile_folder)
    assert "nearest: tesla-t4-16gb/small-sd--64x64-b1-50steps" in refusal(result)


def test_a_profile_is_a_front_that_the_library_reads(profile_folder):
    for data in files_in(profile_folder).values():
        front = Front.model_validate(json.loads(data)["front"])
        assert front.best(max_vram="2GB") is not None
