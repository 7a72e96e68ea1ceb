"""Records read, mapped, skipped and clustered; the comparison itself on a few small records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from autotune.simulate.margins import MOVES, SHARES
from autotune.trace.weights import weight_bytes
from benchmarks import published
from benchmarks.cases import card_of, case_of, plan_of
from benchmarks.eras import CrossAttention011, version_at
from benchmarks.measured import Metric, Skip, SkippedError, Timed, UnreadableError, read
from benchmarks.pipelines import prepared
from tests.unit.published_record import RECORD, record

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, Metric.ALLOCATED),
        ({"use_for": ["latency", "reserved_memory"]}, Metric.RESERVED),
        ({"use_for": ["resident_memory"]}, Skip.RESIDENT_ONLY),
        ({"use_for": ["latency"]}, Skip.NOT_STATED),
        ({"peak_gib": None}, Metric.RAN),
        ({"oom": True, "peak_gib": None}, Metric.OUT_OF_MEMORY),
    ],
)
def test_what_a_figure_is(changes, kind):
    assert record(**changes).metric_kind is kind


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "nobody/knows-this"}, Skip.NO_ARCHITECTURE),
        ({"pipeline": "NoSuchPipeline"}, Skip.NO_ARCHITECTURE),
        ({"dtype": "fp16/bf16"}, Skip.NOT_STATED),
        ({"attention": "magic"}, Skip.NOT_STATED),
        ({"offload": "by hand"}, Skip.NOT_STATED),
        ({"quantization": "somebody's int3"}, Skip.NOT_STATED),
        ({"layerwise_casting": "float8"}, Skip.NOT_STATED),
        ({"other": "1 LoRA"}, Skip.NOT_STATED),
    ],
)
def test_what_is_not_compared_and_why(changes, reason):
    with pytest.raises(SkippedError) as caught:
        case_of(record(**changes))
    assert caught.value.reason is reason


def test_a_card_must_be_known():
    assert card_of(record()).compute_capability == (8, 0)
    for gpu in (None, "NVIDIA Nothing 9000"):
        with pytest.raises(SkippedError) as caught:
            card_of(record(gpu=gpu))
        assert caught.value.reason is Skip.UNKNOWN_CARD


@pytest.mark.parametrize(
    ("model", "recipe", "vae"),
    [
        ("runwayml/stable-diffusion-v1-5", "sd15", ""),
        ("CompVis/stable-diffusion-v1-4", "sd15", ""),
        (
            "stabilityai/stable-diffusion-xl-base-1.0 (+ madebyollin/sdxl-vae-fp16-fix)",
            "sdxl-base-1.0",
            "sdxl-vae-fp16-fix",
        ),
        ("stable-diffusion-v1-5 + lllyasviel/sd-controlnet-canny", "controlnet-sd15-canny", ""),
        ("CompVis/stable-diffusion-v1-4 + TencentARC/t2iadapter_canny_sd14v1", "t2i-adapter-sd15", ""),
        ("stabilityai/stable-diffusion-3.5-large", "sd3.5-large", ""),
        ("SD 1.x (not named)", "sd15", ""),
        ("SD1.5 + sd-controlnet-canny", "controlnet-sd15-canny", ""),
    ],
)
def test_names_lead_to_the_zoo(model, recipe, vae):
    case = case_of(record(model=model, pipeline=None))
    assert (case.recipe, case.vae) == (recipe, vae)


def test_a_record_says_what_runs():
    case = case_of(
        record(
            dtype="bf16", offload="group_offload leaf_level use_stream non_blocking", vae_slicing=True,
            compile="reduce-overhead",
            components="UNet; safety checker removed in script", quantization="torchao int8wo transformer+T5",
            other="fuse_qkv_projections", diffusers="0.15.1", attention="xformers",
        )
    )  # fmt: skip
    assert (case.dtype, case.vae_slicing, case.graphed, case.safety_checker, case.fused_qkv) == (
        "bfloat16",
        True,
        True,
        False,
        True,
    )
    assert case.quantization == (("denoiser", "torchao-int8wo"), ("T5", "torchao-int8wo"))
    assert case.diffusers == (0, 15)
    assert (plan_of(case).offload, plan_of(case).attention) == ("group:leaf+stream", "xformers")


@pytest.mark.parametrize(
    ("changes", "timings_s"),
    [
        ({}, {}),
        ({"latency_s": 4.0, "use_for": ["latency"]}, {Timed.CALL: 4.0}),
        ({"its_per_s": 4.0, "use_for": ["latency_per_step"]}, {Timed.LOOP: 0.25}),
        (
            {"latency_s": 4.0, "its_per_s": 8.0, "use_for": ["latency", "latency_per_step"]},
            {Timed.CALL: 4.0, Timed.LOOP: 0.125},
        ),
        (
            {"latency_s": 0.5, "scope": "denoiser-forward (one)", "use_for": ["latency_per_step"]},
            {Timed.FORWARD: 0.5},
        ),
        ({"latency_s": 4.0, "use_for": ["peak_memory"]}, Skip.NOT_STATED),
        ({"latency_s": 4.0, "use_for": ["latency"], "oom": True}, {}),
    ],
)
def test_what_published_seconds_are_of(changes, timings_s):
    assert record(**changes).timings_s == timings_s


def test_repeats_by_card_and_compiler_are_one_cluster():
    same = record(id="two", gpu="NVIDIA A10", compile="default", torch="2.0")
    assert same.cluster == record().cluster
    for changes in ({"batch": 2}, {"offload": "model_cpu_offload"}, {"dtype": "fp32"}, {"source": "elsewhere"}):
        assert record(**changes).cluster != record().cluster


@pytest.mark.parametrize(
    ("stated", "date", "version"),
    [
        ("0.15.1", None, (0, 15)), (None, "2022-12..2023-01", (0, 11)), (None, "2023-03", (0, 16)), (None, "2024-09", (0, 30)),
        (None, "2025", (0, 42)), (None, None, (0, 42)),
    ],
)  # fmt: skip
def test_the_version_of_a_day(stated, date, version):
    assert version_at(stated, date) == version


def test_old_attention_gives_what_todays_gives():
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    module = Attention(query_dim=32, heads=4, dim_head=8).eval()
    states = torch.randn(2, 16, 32)
    with torch.no_grad():
        today = module(states)
        for efficient in (False, True):
            module.set_processor(CrossAttention011(efficient))
            scaled = module(states) if efficient else None
            assert scaled is None or torch.allclose(scaled, today, atol=1e-5)


def test_the_stated_resident_size_tells_t5s_precision():
    case = case_of(record(model="THUDM/CogVideoX-2b", pipeline="CogVideoXPipeline", resident_value=12.4))
    bytes_of = {gib: weight_bytes(prepared(case._replace(resident_gib=gib)).text_encoder) for gib in (12.4, 16.0)}
    assert bytes_of[16.0] - bytes_of[12.4] == 24 * 4096 * 10240 * 2  # 24 projections, two more bytes a weight


def test_the_comparison_of_a_file(tmp_path, monkeypatch, capsys):
    file, out = tmp_path / "records.json", tmp_path / "out" / "result.json"
    others = [
        RECORD | {"id": "two", "gpu": None, "latency_s": 1.0, "use_for": ["latency"]},
        RECORD | {"id": "three", "oom": True, "peak_gib": None, "batch": 64},
        RECORD | {"id": "four", "latency_s": 1.0, "its_per_s": 20.0, "use_for": ["latency", "latency_per_step"]},
        RECORD | {"id": "five", "latency_s": 1.0},
    ]
    file.write_text(json.dumps([RECORD, *others]), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["published", str(file), "--json", str(out)])
    published.main()
    result = json.loads(out.read_text(encoding="utf-8"))
    assert [row["id"] for row in result["errors"]] == ["one", "three", "five"]
    assert abs(result["errors"][0]["error_pct"]) < 10
    assert {(row["id"], row["reason"]) for row in result["skipped"]} == {
        ("two", "unknown card"),
        ("four", "setting not stated"),  # its use_for names no memory
    }
    assert result["figures"]["memory_records_used"] == 3
    assert result["figures"]["false_fits"] == 1  # 64 small images do fit an A100
    assert [(row["id"], row["kind"]) for row in result["latency_errors"]] == [("four", "call"), ("four", "loop")]
    assert [(row["id"], row["reason"]) for row in result["latency_skipped"]] == [
        ("two", "unknown card"),
        ("five", "setting not stated"),
    ]
    assert result["figures"]["latency_records_used"] == 1
    assert all(set(row) == {"id", "confidence", "kind", "error_pct"} for row in result["latency_errors"])
    assert "unknown card" in capsys.readouterr().out


@pytest.mark.parametrize("content", ['[{"id": "x"', "[{}]", '{"a": 1}', "\x00"])
def test_a_broken_file_is_one_sentence(tmp_path, monkeypatch, content):
    file, out = tmp_path / "records.json", tmp_path / "out.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UnreadableError, match=r"records\.json"):
        read(file)
    monkeypatch.setattr(sys, "argv", ["published", str(file), "--json", str(out)])
    with pytest.raises(SystemExit) as stopped:
        published.main()
    assert str(stopped.value).startswith("error: ")
    assert "\n" not in str(stopped.value)
    assert not out.exists()


def test_the_margins_hold_the_last_published_residuals():
    last = sorted(RESULTS.glob("published_*.json"))[-1]
    bars = json.loads(last.read_text(encoding="utf-8"))["bars"]
    assert len(bars) == len(SHARES)
    for bar in bars:
        assert 100 * SHARES[bar["tensor_cores"], bar["mode"]] == pytest.approx(bar["bar_pct"])
        assert bar["above_p90_pct"] <= bar["bar_pct"]


def test_the_bars_of_seconds_hold_the_last_published_residuals():
    last = sorted(RESULTS.glob("published_*.json"))[-1]
    bars = json.loads(last.read_text(encoding="utf-8"))["latency_bars"]
    assert {bar["moves"] for bar in bars} == set(MOVES)
    for bar in bars:
        assert bar["bar_of_moving_pct"] == [pytest.approx(100 * share) for share in MOVES[bar["moves"]]]
        assert bar["held_pct"] >= 90
