"""`autotune estimate`: figures that add up, a page for a person, and one sentence for what cannot be."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from autotune.cli.app import app
from autotune.cli.levers import lever_descriptions
from autotune.records.plan import LEVERS, Plan
from benchmarks import tiny

CARD = ["--gpu", "NVIDIA GeForce RTX 3060 12GB"]
SMALL = [*CARD, "--height", 256, "--width", 256]
BESIDE = ("activations_bytes", "workspace_bytes", "overhead_bytes")
STEP_BYTES = 2 * 2**20  # of the smallest limit


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small Stable Diffusion as a folder that holds configuration files and no weights."""
    folder = tmp_path_factory.mktemp("models") / "small-sd"
    tiny.sd().save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Estimates in an empty working directory and home, and sees to it that nothing is written there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(*words):
        result = CliRunner().invoke(app, ["estimate", *map(str, words)], env={"COLUMNS": "200"})
        assert list(tmp_path.iterdir()) == []
        return result

    return run


@pytest.fixture
def small(run, model_folder):
    """Estimates the small model."""

    def small(*words):
        return run(model_folder, *SMALL, *words)

    return small


def answer_of(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(result):
    """The sentence on standard error, which may be wrapped."""
    assert result.exit_code == 1, result.output
    return " ".join(line.strip() for line in result.stderr.splitlines()).removeprefix("error: ")


# figures


@pytest.mark.parametrize(
    "levers",
    [
        [],
        ["--dtype", "float16", "--offload", "model"],
        ["--offload", "sequential"],
        ["--offload", "group:leaf+stream"],
        ["--text-encoders", "cpu", "--vae-tiling"],
        ["--batch-split", 2, "--feed-forward-chunks", 4],
    ],
    ids=lambda levers: " ".join(map(str, levers)) or "as it is",
)
def test_bytes_add_up(small, levers):
    answer = answer_of(small(*levers, "--json"))
    estimate = answer["estimate"]
    for phase in estimate["phases"]:
        assert sum(phase["components_bytes"].values()) == phase["weights_bytes"]
        assert sum(phase[part] for part in BESIDE) + phase["weights_bytes"] == phase["peak_bytes"]
    assert estimate["process_bytes"] == max(phase["peak_bytes"] for phase in estimate["phases"])
    assert estimate["process_bytes"] == answer["context_bytes"] + estimate["reserved_bytes"]
    assert estimate["needed_bytes"] == estimate["process_bytes"] + estimate["margin_bytes"]
    assert estimate["allocated_bytes"] <= estimate["reserved_bytes"]
    assert answer["fits"] is (estimate["needed_bytes"] <= answer["cap_bytes"])


def test_the_smallest_cap_lies_between_what_is_allocated_and_what_is_taken(small):
    answer = answer_of(small("--offload", "group:leaf+stream", "--json"))
    lowest = answer["context_bytes"] + answer["estimate"]["allocated_bytes"]
    assert lowest - STEP_BYTES <= answer["smallest_cap_bytes"] <= answer["estimate"]["process_bytes"] + STEP_BYTES


def test_components_of_a_zoo_model_take_turns_under_model_offload(run):
    answer = answer_of(run("sd15", *SMALL, "--offload", "model", "--json"))
    encoding, denoising, _ = (phase["components_bytes"] for phase in answer["estimate"]["phases"])
    assert "text_encoder" in encoding
    assert "unet" not in encoding
    assert "unet" in denoising
    assert "text_encoder" not in denoising
    assert answer["estimate"]["host_ram_bytes"] > 0


def test_without_levers_the_pipeline_is_as_it_is(small):
    answer = answer_of(small("--json"))
    assert {name: answer["plan"][name] for name in LEVERS} == Plan().values
    assert answer["estimate"]["host_ram_bytes"] == 0


def test_levers_and_call_reach_the_estimate(small):
    levers = {
        "dtype": "float16", "tf32": True, "channels_last": True, "attention": "sliced:max", "feed_forward_chunks": 2,
        "batch_split": 2, "vae_slicing": True, "vae_tiling": 64, "compile": "none", "offload": "group:block",
        "text_encoders": "leave",
    }  # fmt: skip
    words = [word for name, value in levers.items() for word in spelled(name, value)]
    answer = answer_of(small(*words, "--batch", 2, "--steps", 7, "--json"))
    assert {name: answer["plan"][name] for name in levers} == levers
    assert (answer["workload"]["batch"], answer["workload"]["height"]) == (2, 256)
    assert answer["estimate"]["steps"] == 7


def spelled(lever, value):
    flag = "--" + lever.replace("_", "-")
    return [flag] if value is True else [flag, str(value)]


@pytest.mark.parametrize("words", [["--vae-tiling", "--json"], ["--json", "--vae-tiling"]], ids=" ".join)
def test_tiles_without_a_number_cut_the_image(small, words):
    assert 0 < answer_of(small(*words))["plan"]["vae_tiling"] < 256


def test_the_cpu_has_no_context(run, model_folder):
    answer = answer_of(run(model_folder, "--device", "cpu", "--json"))
    assert answer["device"]["kind"] == "cpu"
    assert answer["context_bytes"] == 0
    assert answer["smallest_cap_bytes"] == answer["estimate"]["process_bytes"]


# for a person


def test_the_page_has_components_phases_and_totals(run):
    shown = run("sd15", *SMALL, "--dtype", "float16", "-v").stdout
    [header] = [line for line in shown.splitlines() if line.startswith("phase ")]
    parts = ("text_encoder", "unet", "vae", "safety_checker", "activations", "workspace", "overhead", "process peak")
    assert [part for part in parts if part not in header] == []
    begins = ("encoding ", "denoising ", "decoding ", "allocated peak ", "reserved peak ", "process peak ", "margin ")
    for begin in (*begins, "needed ", "smallest cap ", "host RAM ", "plan ", "expect ", "do "):
        assert sum(line.startswith(begin) for line in shown.splitlines()) == 1, begin
    assert "fp16" in shown
    assert "simulated" in shown
    assert "originals" not in shown  # of a model that is still to be loaded


def test_what_does_not_fit_is_an_answer_too(run):
    words = ["flux-dev", *CARD, "--height", 256, "--width", 256]
    result = run(*words)
    assert result.exit_code == 0
    assert "expect   does not fit: needs " in result.stdout
    assert len(result.stdout.splitlines()) <= 6


# options


def test_every_lever_has_an_option_in_its_own_words():
    command = typer.main.get_command(app).commands["estimate"]
    command.describe()
    help_of = {option.name: option.help for option in command.params if option.name in LEVERS}
    assert set(help_of) == set(LEVERS)
    for name, text in help_of.items():
        assert text.startswith(lever_descriptions()[name])


# refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dtype", "fp61"], "fp61"),
        (["--offload", "modle"], "nearest: model"),
        (["--attention", "slicd:max"], "nearest: sliced:max"),
        (["--compile", "block"], "there are none, trace, blocks; nearest: blocks"),
        (["--text-encoders", "gpu"], "nearest: cpu"),
        (["--feed-forward-chunks", 1], "there are False and whole numbers from 2 to 64; nearest: 2"),
        (["--batch-split", 999], "nearest: 256"),
        (["--vae-tiling", "big"], "there are False and a whole number of pixels, for example 512"),
        (["--vae-tiling", 65], "vae_tiling=65 cannot be applied: a tile's edge is a multiple of"),
        (["--vae-tiling", "--height", 8, "--width", 8], "the image is no larger than the smallest tile"),
        (["--batch-split", 3], "batch_split=3 cannot be applied: unet is called with 2 at a time; what works is 2"),
        (["--compile", "trace", "--offload", "sequential"], "a traced UNet is one piece without its layers' hooks"),
        (["--attention", "backend:flash"], "does not ask diffusers' dispatcher"),
        (["--height", 255], "refuses this call: `height` and `width` have to be divisible by"),
        (["--frames", 8], "takes no num_frames; leave frames out of the workload"),
        (["--device", "cpu"], "give one"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_what_is_refused_and_how(small, words, message):
    assert message in refusal(small(*words))
    assert message in refusal(small(*words, "--json"))


def test_an_attention_whose_package_is_missing_says_so(small, monkeypatch):
    from autotune.upstream import backends

    monkeypatch.setattr(backends, "backend_missing", lambda name: f"{name} is not installed")
    message = "attention='xformers' cannot be applied: xformers is not installed; what works is 'as_is'"
    assert refusal(small("--attention", "xformers")) == message


def test_a_lever_that_the_card_lacks(run, model_folder):
    assert "tf32=True cannot be applied" in refusal(run(model_folder, "--gpu", "Tesla T4", "--tf32"))


def test_an_unknown_model_or_card_is_answered_with_the_nearest(run):
    assert "no model 'sd16'" in refusal(run("sd16", *CARD))
    assert "nearest: NVIDIA GeForce RTX 3060" in refusal(run("sd15", "--gpu", "RTX 3061"))


@pytest.mark.parametrize(
    "words", [["--height", 0], ["--feed-forward-chunks", "two"], ["--vae-tilings"], ["--offload"]], ids=str
)
def test_what_is_not_understood(small, words):
    result = small(*words)
    assert result.exit_code == 2
    assert str(words[0]) in result.stderr
    assert result.stdout == ""
