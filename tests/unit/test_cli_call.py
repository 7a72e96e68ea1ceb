"""Options of the call and of the setup: what they become, and how what they cannot be is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from autotune.cli.call import CallOptions, SetupOptions
from autotune.errors import AutotuneError, PlanError, WorkloadError
from autotune.flow.ask import Question
from autotune.records.workload import Workload


@pytest.mark.parametrize(
    ("options", "workload"),
    [
        ({}, Workload()),
        ({"height": 512, "width": 768, "steps": 4, "batch": 2, "frames": 9},
         Workload(height=512, width=768, steps=4, batch=2, frames=9)),
        ({"guidance": False}, Workload(guidance=False)),
        ({"guidance_scale": 3.5}, Workload(arguments={"guidance_scale": 3.5})),
        ({"negative_prompt": "a dog", "prompt_tokens": 300},
         Workload(arguments={"negative_prompt": "text"}, prompt_tokens=300)),
        ({"image": ["512x768"]}, Workload(inputs={"image": "512x768 RGB"})),
        ({"image": ["64x64", "64x64"], "mask": ["64x64"]},
         Workload(inputs={"image": "2 x 64x64 RGB", "mask": "64x64 L"})),
        ({"video": "832x480x81"}, Workload(inputs={"video": "81 x 832x480 RGB"})),
        ({"argument": ["true_cfg_scale=4", "sigmas=[1.0, 0.5]", "use_x=true", "eta=none", "mode=fast", "negative_prompt_2=a"],
          "strength": 0.6},
         Workload(arguments={"true_cfg_scale": 4, "sigmas": [1.0, 0.5], "use_x": True, "eta": None, "mode": "fast",
                             "negative_prompt_2": "text", "strength": 0.6})),
        ({"argument": ["control_image=64x32"]}, Workload(inputs={"control_image": "64x32 RGB"})),
    ],
)  # fmt: skip
def test_a_call_from_its_options(options, workload):
    assert CallOptions(**options).workload == workload


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": float("nan")}, "--guidance-scale nan is not between 0 and 100"),
        ({"guidance_scale": -1.0}, "--guidance-scale -1 is not between 0 and 100"),
        (
            {"guidance_scale": 4.0, "guidance": False},
            "--guidance-scale 4 decides about guidance; leave out --no-guidance",
        ),
        ({"strength": 1.5}, "--strength 1.5 is not between 0 and 1"),
        ({"image": ["512"]}, "image='512' is not a size in pixels"),
        ({"image": ["64x64", "32x32"]}, "are pictures of several sizes"),
        ({"image": ["999999999x999999999"]}, "is too large"),
        ({"height": 10**9}, "height=1000000000 is too large"),
        ({"argument": ["true_cfg_scale"]}, "is not NAME=VALUE"),
        ({"argument": ["height=512"]}, "height has an option of its own; write --height 512"),
        ({"argument": ["a=1", "a=2"]}, "gives a twice"),
        ({"argument": ["a=NaN"]}, "a=NaN is not a finite number"),
        ({"argument": ['a={"b": 1}']}, "a value is a number, a word, or a list of those"),
    ],
)
def test_what_no_call_can_be_is_refused_in_one_sentence(options, message):
    with pytest.raises(WorkloadError) as error:
        _ = CallOptions(**options).workload
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_precision_by_component_and_additions_reach_the_question():
    nets = ["controlnet-sd15-canny", "controlnet-sdxl-canny"]
    said = SetupOptions(loaded_as=["fp16", "vae=fp32"], controlnet=nets, lora_rank=8, torch="2.9.0",
                        allocator="expandable_segments:True")  # fmt: skip
    question = Question("sd15", gpu="Tesla T4", **said.question)
    assert question.loaded_as == {"default": "fp16", "vae": "fp32"}
    assert question.controlnets == tuple(nets)
    assert question.settings is not None
    assert question.settings.expandable_segments
    assert question.added
    assert SetupOptions(loaded_as=["bf16"]).question["loaded_as"] == "bf16"
    for twice in (["fp16", "bf16"], ["=fp16"], ["vae="]):
        with pytest.raises(PlanError, match="--loaded-as"):
            _ = SetupOptions(loaded_as=twice).question


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ({"loaded_as": "fp12"}, "there are fp32, fp16, bf16"),
        ({"controlnets": "controlnet-sd15-cany"}, "nearest: controlnet-sd15-canny"),
        ({"controlnets": ["x" * 5000]}, "no ControlNet"),
        ({"ip_adapter": "ip-adapter-sd1"}, "nearest: ip-adapter-sd15"),
        ({"lora_rank": 0}, "lora_rank=0 is not a rank"),
        ({"lora_rank": 10**9}, "is not a rank"),
        ({"torch_version": "new"}, "is not a version; write for example 2.9.0"),
        ({"allocator": "max_split_size_mb:x"}, "is not a whole number of MiB"),
    ],
)
def test_what_no_setup_can_be_is_refused(setup, message):
    with pytest.raises(AutotuneError, match=message):
        Question("sd15", gpu="Tesla T4", **setup)


def test_refusals_need_no_torch():
    script = """if True:
        import sys
        from typer.testing import CliRunner
        from autotune.cli.app import app
        for command in ("plan", "explore", "explain", "estimate"):
            for words in (["--image", "5"], ["--height", "99999999"], ["--loaded-as", "fp12"], ["--lora-rank", "99999999"]):
                assert CliRunner().invoke(app, [command, "sd15", "--gpu", "Tesla T4", *words]).exit_code == 1, (command, words)
        assert "torch" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", script], check=True)
