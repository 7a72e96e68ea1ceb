"""The benchmark for a card, on a machine without one: what it writes, what it leaves when time is up, what it refuses."""

from __future__ import annotations

import json
import os
from functools import partial
from itertools import count, product
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from autotune.errors import AutotuneError, PlanError
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from benchmarks.gpu import __main__ as main_module
from benchmarks.gpu import card as card_module
from benchmarks.gpu import grid, kernels, models
from benchmarks.gpu.__main__ import main
from benchmarks.gpu.again import again
from benchmarks.gpu.calibration import calibration
from benchmarks.gpu.card import Card
from benchmarks.gpu.grid import FURTHER, TELLING, Setting, further, telling
from benchmarks.gpu.history import history
from benchmarks.gpu.kernels import LAYOUTS
from benchmarks.gpu.probes import DTYPES
from benchmarks.gpu.results import Part, Results
from benchmarks.gpu.seconds import Predictions, compared, timed, warm
from benchmarks.gpu.show import show

SNAPSHOT = Path(__file__).parent / "fixtures" / "allocator_snapshot.json"
MODEL = "tiny-flux"
PLANS = [f"{MODEL}: as it is", f"{MODEL}: vae_slicing=True, batch=4", f"{MODEL}: offload=group:leaf+stream"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a run has written, over a small part of the grid."""
    path = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main_module, "calibration", partial(calibration, budget_s=0.5))
        patch.setattr(grid, "TELLING", TELLING[:1])
        patch.setattr(grid, "FURTHER", (Setting(Plan(vae_slicing=True), batch=4), TELLING[2]))
        patch.setattr(kernels, "_CONVOLUTIONS", (kernels._CONVOLUTIONS[0], kernels._CONVOLUTIONS[-1]))
        patch.setattr(kernels, "_ATTENTIONS", kernels._ATTENTIONS[-3:])
        assert main(["--out", str(path), "--device", "cpu", "--minutes", "10", "--models", MODEL]) == 0
    return path


@pytest.fixture
def results(folder):
    return content_of(folder)


@pytest.fixture
def fake_card(monkeypatch):
    """A card whose counters are made up: 100 bytes reserved, 70 of them allocated, 90 at the peak; 1000 in all, 600 free."""
    counters = {"memory_reserved": 100, "memory_allocated": 70, "max_memory_reserved": 120, "max_memory_allocated": 90}
    for name, value in counters.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="8e4f"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (600, 1000))
    card = Card("cpu")
    card.is_cuda, card.torch_device = True, torch.device("cuda:0")
    return card


def content_of(folder):
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def clock():
    """A card that marks one second after the other."""
    ticks = count()
    return SimpleNamespace(
        mark=lambda: next(ticks), between_s=lambda one, other: float(other - one), synchronize=lambda: None
    )


def part(results, name):
    return next(part for part in results["parts"] if part["name"] == name)


def test_a_run_is_complete(results):
    assert results["complete"]
    assert results["cut"] == []


def test_the_most_telling_parts_come_first(results):
    names = [part["name"] for part in results["parts"]]
    assert names[:5] == ["context", "cublas", PLANS[0], "calibration", "convolutions in float16, NCHW"]
    assert names[-3:] == [f"{MODEL}: history", *PLANS[1:]]


def test_only_what_needs_a_card_fails_without_one(results):
    assert {part["name"]: part["error"]["kind"] for part in results["parts"] if "error" in part} == {
        PLANS[2]: "PlanError"
    }


def test_only_the_results_and_the_speeds_are_left_in_the_folder(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["results.json", "speeds.json"]


def test_what_was_measured_stands_beside_what_was_believed(results, folder):
    found = part(results, "calibration")
    rows = {row["what"]: row for row in found["speeds"]}
    assert found["source"] == "calibrated"
    assert rows["matrix products, float32"]["measured"] > 0 < rows["matrix products, float32"]["predicted"]
    assert rows["pinned memory to the device"]["measured"] is None
    assert {(row["dtype"], row["layout"]) for row in found["convolutions"]} == set(product(DTYPES, LAYOUTS))
    assert set(json.loads((folder / found["file"]).read_text())) == {"measured", "believed"}


@pytest.mark.parametrize("call", ["first", "steady"])
@pytest.mark.parametrize("name", PLANS[:2])
def test_a_call_is_predicted_and_run(results, name, call):
    found = part(results, name)
    predicted, measured = found["predicted"][call], found["measured"][call]
    assert 0 < predicted["allocated_bytes"] <= predicted["reserved_bytes"] <= predicted["process_bytes"]
    assert measured["call_s"] > 0
    assert measured["allocated_bytes"] is measured["reserved_bytes"] is measured["process_bytes"] is None


def test_a_larger_batch_is_predicted_to_take_more(results):
    one, four = (part(results, name)["predicted"]["first"]["allocated_bytes"] for name in PLANS[:2])
    assert part(results, PLANS[1])["batch"] == 4
    assert four > one


def test_what_was_predicted_is_kept_where_the_plan_cannot_be_run(results):
    found = part(results, PLANS[2])
    assert found["predicted"]["first"]["allocated_bytes"] > 0
    assert "first" not in found["measured"]


@pytest.mark.parametrize("name", PLANS[:2])  # before the CPU is calibrated, and after
def test_seconds_of_warm_calls_stand_beside_both_predictions(results, name):
    found = part(results, name)
    seconds = found["seconds"]
    assert 1 <= seconds["calls"] <= 5
    for figure, constants in product(("call", "step"), ("", "_calibrated")):
        predicted_s, measured_s = seconds[f"predicted_{figure}{constants}_s"], seconds[f"{figure}_s"]
        assert predicted_s > 0 < measured_s
        assert seconds[f"{figure}{constants}_error_pct"] == round(100 * (predicted_s / measured_s - 1), 1)
    assert seconds["predicted_step_s"] < seconds["predicted_call_s"]
    assert seconds["predicted_call_s"] != seconds["predicted_call_calibrated_s"]


def test_seconds_are_predicted_where_the_plan_cannot_be_run(results):
    seconds = part(results, PLANS[2])["seconds"]
    assert seconds["predicted_call_s"] > 0 < seconds["predicted_call_calibrated_s"]
    assert "call_s" not in seconds


@pytest.mark.parametrize(("turns", "step_s"), [(1, None), (2, 1.0), (3, 1.5)])
def test_a_step_may_be_more_than_one_turn_of_the_scheduler(turns, step_s):
    class Pipe:
        def __call__(self, prompt, callback_on_step_end=None):
            for turn in range(turns):
                assert callback_on_step_end(self, turn, 0, {"latents": prompt}) == {"latents": prompt}

    assert timed(clock(), Pipe(), {"prompt": "a cat"}, steps=2).step_s == step_s


def test_steps_are_not_timed_where_the_pipeline_does_not_tell_them():
    class Pipe:
        def __call__(self, prompt):
            pass

    call = timed(clock(), Pipe(), {"prompt": "a cat"}, steps=2)
    assert call.step_s is None
    assert warm([call])["step_s"] is None


def test_a_speed_that_could_not_be_measured_changes_no_prediction():
    predictions, seconds, estimate = Predictions(), {}, SimpleNamespace(latency_s=3.0, step_s=1.0)
    predictions.add(seconds, estimate, lambda device: SimpleNamespace(latency_s=2.0, step_s=0.5))
    predictions.calibrate(SimpleNamespace(speed=SimpleNamespace(source="catalogue")))
    assert (seconds["predicted_call_s"], seconds["predicted_call_calibrated_s"]) == (3.0, None)
    seconds |= {"call_s": 4.0, "step_s": None}
    compared(seconds)
    assert (seconds["call_error_pct"], seconds["step_error_pct"]) == (-25.0, None)
    predictions.calibrate(SimpleNamespace(speed=SimpleNamespace(source="calibrated")))
    assert (seconds["predicted_call_calibrated_s"], seconds["call_calibrated_error_pct"]) == (2.0, -50.0)


@pytest.mark.parametrize("name", ["convolutions in float32, NCHW", "convolutions in float16, NHWC"])
def test_each_convolution_has_a_row(results, name):
    rows = part(results, name)["rows"]
    assert [len(row["sizes"]) for row in rows] == [2, 3]
    assert all(row["input_bytes"] and row["measured_bytes"] is None for row in rows)


def test_each_attention_has_a_row(results):
    rows = part(results, "attention in float32")["rows"]
    assert [row["masked"] for row in rows] == [True, False, False]
    assert {row["predicted_kernel"] for row in rows} == {"cpu"}


def test_what_constants_depend_on_is_written_down(results):
    found = results["environment"]
    assert found["torch"] == torch.__version__
    assert found["device"]["name"] == "CPU"
    assert {"cuda", "cudnn", "driver", "packages", "allocator_settings", "variables"} <= found.keys()


def test_no_time_leaves_everything_cut(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new"), "--device", "cpu", "--minutes", "0", "--models", MODEL]) == 0
    results = content_of(tmp_path / "new")
    assert not results["complete"]
    assert results["parts"] == []
    assert set(PLANS) < set(results["cut"])
    assert "cut by the time limit: context, cublas," in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--models", "tiny-nothing"], "no model 'tiny-nothing'"),
        (["--models", "taesd"], "no pipeline"),
        (["--minutes", "-1"], "--minutes -1 is no time"),
        (["--minutes", "nan"], "--minutes nan is no time"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "mps"], "not supported yet"),
    ],
)
def test_what_cannot_begin_is_refused_in_one_sentence(tmp_path, capsys, changes, words):
    assert main(["--out", str(tmp_path / "new"), "--device", "cpu", *changes]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert main(["--out", str(tmp_path / "file"), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("arguments", [[], ["--out", "here", "--minutes", "soon"], ["--out", "here", "--models"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: python -m benchmarks.gpu" in capsys.readouterr().err


def test_a_part_that_fails_keeps_what_it_found_and_stops_no_other(tmp_path):
    def fails(found):
        found["halfway"] = 1
        raise torch.OutOfMemoryError("CUDA out of memory.\nSee the documentation")

    results = Results(tmp_path, about={"minutes": 1}, parts=["one", "two"])
    results.add(Part("one", fails))
    early = content_of(tmp_path)
    assert not early["complete"]
    assert early["cut"] == ["two"]
    assert early["parts"][0]["halfway"] == 1
    assert early["parts"][0]["error"] == {"kind": "OutOfMemoryError", "message": "CUDA out of memory."}
    results.add(Part("two", lambda found: found.update(answer=42)))
    late = content_of(tmp_path)
    assert late["complete"]
    assert late["parts"][1]["answer"] == 42


def test_every_model_gets_every_setting_once():
    names = ["a", "b", "c"]
    pairs = [(name, setting.label) for name, setting in (*telling(names), *further(names))]
    assert len(pairs) == len(set(pairs)) == len(names) * len(TELLING + FURTHER)
    assert [name for name, _ in pairs[: 2 * len(TELLING)]] == ["a"] * len(TELLING) + ["b"] * len(TELLING)


def test_tiles_are_half_the_image():
    tiled = Setting(Plan(), tiled=True)
    assert tiled.plan_for(Workload(height=1024, width=1024)).vae_tiling == 512
    with pytest.raises(PlanError, match="no tile"):
        tiled.plan_for(Workload(height=8, width=8))


def test_made_up_weights_are_finite_and_stay_tied():
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.Linear(300, 300), torch.nn.BatchNorm1d(300))
    network[1].weight = network[0].weight
    models._give_weights(network)
    assert network[1].weight is network[0].weight
    assert all(tensor.device.type == "cpu" for tensor in network.state_dict().values())
    assert torch.isfinite(network[0].weight).all()
    assert network[0].weight.std() > 0.02


def test_a_model_that_does_not_fit_into_ram_is_refused(monkeypatch):
    monkeypatch.setattr(models, "host", lambda: SimpleNamespace(ram_available_bytes=10**9))
    with pytest.raises(AutotuneError, match=r"sd15 with weights takes 2\.74 GB of RAM, and 900 MB may be used"):
        models.load("sd15")


def test_the_process_is_asked_of_nvml(fake_card, monkeypatch):
    running = [SimpleNamespace(pid=1, usedGpuMemory=7), SimpleNamespace(pid=os.getpid(), usedGpuMemory=450)]
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: running if handle == "GPU-8e4f" else [],
    )
    monkeypatch.setattr(card_module, "_nvml", lambda: nvml)
    assert fake_card.outside() == (350, "NVML, this process")


def test_where_nvml_does_not_know_the_process_the_card_tells(fake_card, monkeypatch):
    monkeypatch.setattr(card_module, "_process_bytes", lambda uuid: None)
    monkeypatch.setattr(card_module, "_free_bytes", lambda: {"8e4f": 500})
    fake_card._free_before = {"8e4f": 900}
    assert fake_card.outside() == (300, "NVML, the card less what was used before")
    fake_card._free_before = {}
    assert fake_card.outside() == (300, "driver, the whole card with other processes")


def test_a_kernel_held_what_its_peak_has_beyond_what_is_left(fake_card):
    assert fake_card.held_bytes(lambda: torch.zeros(1)) == 20


def test_a_history_is_written_without_stacks_and_replayed(fake_card, monkeypatch, tmp_path):
    recorded = json.loads(SNAPSHOT.read_text())
    recorded["segments"][0]["frames"] = [{"filename": "secret.py"}]
    switched, called = [], []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda on, **_: switched.append(on))
    monkeypatch.setattr(torch.cuda.memory, "_snapshot", lambda: recorded)
    found = {}
    calls = SimpleNamespace(name="sd15", once=called.append)
    history(fake_card, calls, tmp_path / "history.json", found)
    assert (switched, called) == (["all", None], [Plan()])
    assert found["reserved_is_exact"]
    assert found["recorded_reserved_peak_bytes"] == found["replayed_reserved_peak_bytes"] == 72 * 2**20
    assert "secret" not in (tmp_path / "history.json").read_text()


def test_the_table_shows_errors_in_per_cent(capsys):
    counted = {"allocated_bytes": 100, "reserved_bytes": 200, "process_bytes": 400}
    predicted = {"allocated_bytes": 110, "reserved_bytes": 200, "process_bytes": 300}
    rows = [{"predicted_bytes": 50, "measured_bytes": 100}, {"predicted_bytes": 0, "measured_bytes": 0}]
    show(
        {
            "cut": [],
            "parts": [
                {"name": "a", "model": "sd15", "setting": "as it is", "predicted": {"first": predicted},
                 "measured": {"first": counted}},
                {"name": "convolutions", "rows": rows},
                {"name": "context", "predicted_bytes": 300, "warm_bytes": 200},
            ],
        }
    )  # fmt: skip
    printed = capsys.readouterr().out
    for words in ("+10.0 %", "+0.0 %", "-25.0 %", "-50.0 %", "+50.0 %", "complete: nothing was cut"):
        assert words in printed


def test_the_table_sums_up_how_far_seconds_are_off(capsys):
    parts = []
    for predicted_s, calibrated_s in ((1.5, 1.8), (2.5, 2.2), (2.6, 2.0)):
        seconds = {"call_s": 2.0, "step_s": None, "predicted_call_s": predicted_s, "predicted_step_s": 0.5}
        seconds |= {"predicted_call_calibrated_s": calibrated_s, "predicted_step_calibrated_s": None}
        compared(seconds)
        parts.append({"name": "a", "model": "sd15", "setting": "as it is", "seconds": seconds})
    parts.append(parts[0] | {"seconds": {"predicted_call_s": 1.0}})
    show({"cut": [], "parts": parts})
    rows = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith(("a call", "a step"))
    ]
    assert rows == [
        ["a", "call", "the", "catalogue's", "3", "25.0", "%", "30.0", "%"],
        ["a", "call", "calibrated", "3", "10.0", "%", "10.0", "%"],
    ]


def test_what_was_measured_is_predicted_anew_without_the_card(folder, tmp_path, capsys):
    """As if a card had been there: the same figures come out, and those of another day are gone."""
    content = content_of(folder)
    for found in content["parts"]:
        if found.get("predicted"):
            found["predicted"]["first"]["allocated_bytes"] += 1
        for row in found.get("rows", ()):
            row["predicted_bytes"] = -1
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "speeds.json").write_bytes((folder / "speeds.json").read_bytes())
    anew, before = again(path), content_of(folder)
    for name in PLANS[:2]:
        wanted = {**part(before, name)["predicted"], "prediction_s": 0}
        assert {**part(anew, name)["predicted"], "prediction_s": 0} == wanted
        assert part(anew, name)["seconds"] == part(before, name)["seconds"]
    name = "convolutions in float32, NCHW"
    assert part(anew, name)["rows"] == part(before, name)["rows"]
    assert main(["--again", str(path)]) == 0
    assert "Predicted beside measured" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"environment": {"device": 7}}'])
def test_another_file_is_refused_in_one_sentence(text, tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="utf-8")
    assert main(["--again", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {path} holds no results of benchmarks.gpu: ")
