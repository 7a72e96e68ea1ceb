"""Precision by component: of recipes, of folders by their files and configurations, and as a person asks for it."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from autotune.errors import PipelineError
from autotune.zoo.agreed import agreed
from autotune.zoo.build import build
from autotune.zoo.locate import locate
from autotune.zoo.recipes import find, recipes
from autotune.zoo.recognise import known_as
from autotune.zoo.sources import read, source_key
from autotune.zoo.stored import stored_dtype

Json = dict[str, Any]
HALF, FULL = torch.bfloat16, torch.float32


def precisions(pipe: Any) -> dict[str, torch.dtype]:
    return {name: part.dtype for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def test_a_pipeline_is_built_in_the_precisions_of_its_documentation() -> None:
    recipe = find("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    assert recipe is not None
    assert [part.dtype for part in recipe.components] == ["float32", "float32", "bfloat16"]  # as published
    assert precisions(build(recipe)) == {"transformer": HALF, "vae": FULL, "text_encoder": HALF}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("fp16", {"unet": torch.float16, "vae": torch.float16, "text_encoder": torch.float16}),
        ("bfloat16", {"unet": HALF, "vae": HALF, "text_encoder": HALF}),
        ({"vae": "fp16"}, {"unet": FULL, "vae": torch.float16, "text_encoder": FULL}),
        ({"default": "bf16", "vae": "float32"}, {"unet": HALF, "vae": FULL, "text_encoder": HALF}),
        ({"default": "torch.float16"}, {"unet": torch.float16, "vae": torch.float16, "text_encoder": torch.float16}),
    ],
)
def test_a_named_model_is_loaded_as_asked(wanted: Any, expected: Json) -> None:
    found = locate("sd21-base", wanted)
    assert precisions(found.pipe) == expected
    assert found.source_key != locate("sd21-base").source_key


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("int8", "'int8' is not a precision that a model can be loaded in; fp32, fp16, bf16 are"),
        ({"unet": 16}, "16 is not a precision that a model can be loaded in; fp32, fp16, bf16 are"),
        ({"vea": "fp16"}, "sd15 has no component 'vea' to load in fp16; nearest: vae"),
        ({"transformer": "fp16"}, "sd15 has no component 'transformer' to load in fp16; nearest: text_encoder"),
    ],
)
def test_what_cannot_be_loaded_is_refused(wanted: Any, message: str) -> None:
    with pytest.raises(PipelineError) as error:
        locate("sd15", wanted)
    assert str(error.value) == message


def folder_of(tmp_path: Path, name: str, **stated: str) -> Path:
    """A zoo pipeline's configuration files; these components state a dtype."""
    recipe = find(name)
    assert recipe is not None
    pipe = build(recipe)
    pipe.save_config(tmp_path)
    for part_name, part in pipe.components.items():
        if part_name.startswith("tokenizer"):
            (tmp_path / part_name).mkdir()
            (tmp_path / part_name / "tokenizer_config.json").write_text("{}")
        elif hasattr(part, "save_config"):
            part.save_config(tmp_path / part_name)
        elif isinstance(part, torch.nn.Module):
            part.config.save_pretrained(tmp_path / part_name)
            file = tmp_path / part_name / "config.json"
            config = {k: v for k, v in json.loads(file.read_text()).items() if k not in {"dtype", "torch_dtype"}}
            file.write_text(json.dumps(config | ({"dtype": stated[part_name]} if part_name in stated else {})))
        elif part is not None:
            part.save_pretrained(tmp_path / part_name)
    return tmp_path


def store(folder: Path, component: str, dtype: torch.dtype, name: str = "diffusion_pytorch_model") -> None:
    save_file(
        {"a.weight": torch.zeros(4, dtype=dtype), "b": torch.zeros(2, dtype=torch.int64)},
        folder / component / f"{name}.safetensors",
    )


def test_a_folder_whose_text_encoder_is_bf16_keeps_its_vae_in_fp32(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "wan2.1-t2v-1.3b", text_encoder="bfloat16")
    found = locate(folder)
    assert precisions(found.pipe) == {"transformer": HALF, "vae": FULL, "text_encoder": HALF}
    assert found.recipe is recipes()["wan2.1-t2v-1.3b"]
    assert precisions(locate(folder, {"vae": "bf16"}).pipe) == dict.fromkeys(
        ("transformer", "vae", "text_encoder"), HALF
    )
    assert precisions(locate(folder, "fp32").pipe) == dict.fromkeys(("transformer", "vae", "text_encoder"), FULL)
    with pytest.raises(PipelineError, match="has no component 'vea' to load in fp16; nearest: vae"):
        locate(folder, {"vea": "fp16"})


def test_a_folder_that_says_nothing_is_fp32(tmp_path: Path) -> None:
    assert set(precisions(locate(folder_of(tmp_path, "sd15")).pipe).values()) == {FULL}


def test_weights_say_more_than_configurations(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "wan2.1-t2v-1.3b", text_encoder="bfloat16")
    key = source_key(read(folder))
    for component in ("transformer", "vae"):
        store(folder, component, FULL)
    store(folder, "text_encoder", HALF, "model")
    assert read(folder).stored == {"transformer": "float32", "vae": "float32", "text_encoder": "bfloat16"}
    assert precisions(locate(folder).pipe) == {"transformer": FULL, "vae": FULL, "text_encoder": HALF}
    assert source_key(read(folder)) != key


def test_a_folder_of_fp16_files_only_is_fp16(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "sd15", text_encoder="float32", safety_checker="float32")
    for component in ("unet", "vae"):
        store(folder, component, torch.float16, "diffusion_pytorch_model.fp16")
    for component in ("text_encoder", "safety_checker"):
        store(folder, component, torch.float16, "model.fp16")
    assert set(precisions(locate(folder).pipe).values()) == {torch.float16}
    store(folder, "unet", FULL)  # the full file goes before its variant
    assert stored_dtype(folder, "unet") == "float32"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.fp16-00001-of-00002.safetensors",
        "model-00001-of-00002.fp16.safetensors",
        "diffusion_pytorch_model.bf16.safetensors",
    ],
)
def test_files_and_shards_under_the_names_of_the_libraries(name: str, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    save_file({"a": torch.zeros(2, dtype=torch.float16)}, tmp_path / "unet" / name)
    save_file({"a": torch.zeros(2)}, tmp_path / "unet" / "adapter.safetensors")
    assert stored_dtype(tmp_path, "unet") == "float16"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        struct.pack("<Q", 2**63) + b"{",
        struct.pack("<Q", 10) + b'{"a":"b"}',
        b'"dtype":' * 10**6,
        b'"dtype":"I8"',
    ],
)
def test_a_header_that_says_nothing_is_no_precision(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "model.safetensors").write_bytes(content)
    assert stored_dtype(tmp_path, "unet") is None


def test_weights_that_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in" / "unet").mkdir(parents=True)
    save_file({"a": torch.zeros(2)}, tmp_path / "elsewhere.safetensors")
    (tmp_path / "in" / "unet" / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(PipelineError, match=r"unet/model.safetensors is a link to a place outside the folder"):
        stored_dtype(tmp_path / "in", "unet")


@pytest.mark.parametrize(
    ("pipeline_class", "stated", "expected"),
    [
        (
            "WanPipeline",
            {"transformer": None, "vae": None, "text_encoder": "bfloat16"},
            ("bfloat16", "float32", "bfloat16"),
        ),
        (
            "WanPipeline",
            {"transformer": "float32", "vae": None, "text_encoder": "bfloat16"},
            ("float32", "float32", "bfloat16"),
        ),
        ("FluxPipeline", {"transformer": None, "vae": "float32", "text_encoder": "bfloat16"}, ("bfloat16",) * 3),
        ("NoSuchPipeline", {"transformer": "float16", "vae": None, "text_encoder": "float32"}, ("float16",) * 3),
        ("StableDiffusionPipeline", {"unet": None, "vae": None, "text_encoder": None}, ("float32",) * 3),
        ("StableDiffusionPipeline", {"unet": None, "vae": None, "text_encoder": "float16"}, ("float16",) * 3),
    ],
)
def test_mixes_that_are_not_known_to_run_are_levelled(
    pipeline_class: str, stated: Any, expected: tuple[str, ...]
) -> None:
    assert tuple(agreed(pipeline_class, stated).values()) == expected


@pytest.mark.parametrize("value", ["-Infinity", "Infinity", "NaN"])
def test_bounds_that_are_switched_off_in_a_scheduler(value: str, tmp_path: Path) -> None:
    from diffusers import DPMSolverMultistepScheduler

    folder = folder_of(tmp_path, "sd15")
    shutil.rmtree(folder / "scheduler")
    DPMSolverMultistepScheduler().save_config(folder / "scheduler")
    file = folder / "scheduler" / "scheduler_config.json"
    assert '"lambda_min_clipped": -Infinity' in file.read_text()  # as diffusers writes it
    file.write_text(file.read_text().replace("-Infinity", value))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DPMSolverMultistepScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    bound = locate(folder).pipe.scheduler.config.lambda_min_clipped
    assert bound == float(value) or (bound != bound and value == "NaN")


def test_a_scheduler_without_end_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "sd15")
    file = folder / "scheduler" / "scheduler_config.json"
    for value in (10**9, 1e9, float("inf")):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"num_train_timesteps": value}))
        with pytest.raises(PipelineError, match=f"'num_train_timesteps' is {value}; up to 100000 is built"):
            read(folder)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"num_train_timesteps": float("nan")}))
    with pytest.raises(PipelineError, match=r"scheduler_config.json does not describe a PNDMScheduler"):
        locate(folder)


FLUX = {"transformer": ("FluxTransformer2DModel", 11901408320), "vae": ("AutoencoderKL", 83819683)}


@pytest.mark.parametrize(
    ("hub_id", "parts", "expected"),
    [
        (None, FLUX, "flux1-dev"),
        ("black-forest-labs/FLUX.1-Krea-dev", FLUX, "flux1-krea-dev"),
        ("someone/fine-tune", FLUX, "flux1-dev"),
        (
            "black-forest-labs/FLUX.1-dev",
            {"transformer": ("FluxTransformer2DModel", 11901408320 + 10**6)},
            "flux1-dev",
        ),  # a LoRA
        ("someone/fine-tune", {"transformer": ("FluxTransformer2DModel", 1)}, None),
        ("black-forest-labs/FLUX.1-dev", {"unet": ("UNet2DConditionModel", 859520964)}, "sd15"),
        (None, {"unet": ("UNet2DConditionModel", 2567463684)}, "sdxl-base-1.0"),
        (None, {"vae": ("AutoencoderKL", 83819683)}, None),
        (None, {}, None),
    ],
)
def test_a_pipeline_is_known_by_its_denoisers(hub_id: str | None, parts: Any, expected: str | None) -> None:
    found = known_as(hub_id, parts)
    assert (found and found.name) == expected


def test_every_recipe_is_known_by_its_own_networks() -> None:
    for recipe in recipes().values():
        if recipe.pipeline_class is not None and recipe.precision is not None:
            parts = {part.name: (part.class_name, part.parameters) for part in recipe.components}
            found = known_as(recipe.hub_id, parts)
            if found is not None:  # Kandinsky's and Cascade's denoisers have names of their own
                assert found.precision == recipe.precision, recipe.name
