"""Folders of configuration files: the same pipeline as `from_pretrained` makes, and every refusal by its text."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from autotune.errors import PipelineError
from autotune.zoo.build import build
from autotune.zoo.folder import build_folder
from autotune.zoo.recipes import find
from autotune.zoo.sources import Sources, read, source_key
from autotune.zoo.tokenizers import stand_in

Json = dict[str, Any]


def clip() -> CLIPTextModel:
    size: Json = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    return CLIPTextModel(CLIPTextConfig(vocab_size=64, max_position_embeddings=16, projection_dim=32, **size, **ids))


def small_sd() -> Any:
    kinds = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    encoder = clip()
    return StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(32,), latent_channels=4, **kinds),
        text_encoder=encoder,
        tokenizer=stand_in("CLIPTokenizer", 16, encoder.config),
        unet=UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def small_flux() -> Any:
    torch.manual_seed(0)
    first = clip().to(torch.bfloat16)
    second = T5EncoderModel(T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4))
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=AutoencoderKL(block_out_channels=(4,), latent_channels=1, norm_num_groups=1),
        text_encoder=first,
        tokenizer=stand_in("CLIPTokenizer", 16, first.config),
        text_encoder_2=second.to(torch.float16),
        tokenizer_2=stand_in("T5TokenizerFast", 16, second.config),
        transformer=FluxTransformer2DModel(
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        ),
    )


def save_configs(pipe: Any, folder: Path) -> None:
    """What a hub repository holds besides weights and vocabularies."""
    pipe.save_config(folder)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and not hasattr(part, "save_config"):
            part.config.save_pretrained(folder / name)
        elif name.startswith("tokenizer"):
            (folder / name).mkdir()
            content = {"model_max_length": part.model_max_length, "pad_token": {"content": part.pad_token}}
            (folder / name / "tokenizer_config.json").write_text(json.dumps(content))
        elif hasattr(part, "save_config"):
            part.save_config(folder / name)
        elif part is not None:
            part.save_pretrained(folder / name)


def structure(pipe: Any) -> Json:
    """Classes, shapes, types, ties and configurations of everything in the pipeline."""
    found: Json = {}
    for name, part in pipe.components.items():
        found[name] = type(part)
        if isinstance(part, torch.nn.Module):
            tensors = [*part.named_parameters(remove_duplicate=False), *part.named_buffers()]
            found[name] = {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in tensors}
            found[f"{name} size"] = sum(parameter.numel() for parameter in part.parameters())
            found[f"{name} training"] = part.training
        elif hasattr(part, "model_max_length"):
            found[f"{name} ids"] = (part.model_max_length, part.pad_token_id, part("a cat").input_ids)
        elif name == "scheduler":
            found[f"{name} config"] = {key: value for key, value in part.config.items() if key[0] != "_"}
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Stable Diffusion's configuration files, to be copied and spoiled."""
    folder = tmp_path_factory.mktemp("plain")
    save_configs(small_sd(), folder)
    return folder


Spoil = Callable[[str, Json], Path]


@pytest.fixture
def spoil(plain: Path, tmp_path: Path) -> Spoil:
    """The folder with some entries of one file changed."""

    def changed(file: str, entries: Json) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(plain, folder)
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**content, **entries}))
        return folder

    return changed


def refusal(path: Path) -> str:
    with pytest.raises(PipelineError) as error:
        read(path)
    return str(error.value)


def build_refusal(sources: Sources) -> str:
    with pytest.raises(PipelineError) as error:
        build_folder(sources)
    return str(error.value)


@pytest.mark.parametrize("make", [small_sd, small_flux])
@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
def test_weightless_folder_is_what_from_pretrained_makes_of_the_full_one(
    make: Callable[[], Any], dtype: Any, tmp_path: Path
) -> None:
    pipe = make()
    pipe.save_pretrained(tmp_path / "full")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "full", dtype=dtype and getattr(torch, dtype))
    shutil.copytree(tmp_path / "full", tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    built = build_folder(read(tmp_path / "bare"), dtype=dtype)
    assert structure(built) == structure(loaded)
    assert built.device.type == "meta"
    assert built._progress_bar_config == {"disable": True}


@pytest.mark.parametrize("name", ["sd15", "sdxl-base-1.0", "flux1-dev"])
def test_folder_written_from_a_zoo_pipeline_builds_the_same(name: str, tmp_path: Path) -> None:
    recipe = find(name)
    assert recipe is not None
    pipe = build(recipe)
    save_configs(pipe, tmp_path)
    built = build_folder(read(tmp_path), dtype=recipe.components[0].dtype)
    assert structure(built) == structure(pipe)
    if name == "sd15":
        assert built.feature_extractor.to_dict() == pipe.feature_extractor.to_dict()


def test_pipeline_runs_on_made_up_tokens() -> None:
    pipe = small_sd()
    pipe.set_progress_bar_config(disable=True)
    images = pipe("A cat, 3 m tall!", num_inference_steps=1, height=16, width=16, output_type="pt").images
    assert images.shape == (1, 3, 16, 16)
    assert bool(images.isfinite().all())


def test_tokenizer_is_made_up_without_any_file(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "copy", ignore=shutil.ignore_patterns("tokenizer*"))
    tokenizer = build_folder(read(tmp_path / "copy")).tokenizer
    assert tokenizer.model_max_length == 16  # the encoder's positions
    assert max(tokenizer("A cat!").input_ids) < 64


def test_endless_model_max_length_is_taken_as_none(spoil: Spoil) -> None:
    folder = spoil("tokenizer/tokenizer_config.json", {"model_max_length": 10**30})
    assert build_folder(read(folder)).tokenizer.model_max_length == 16


def test_index_of_older_pipelines_is_understood(spoil: Spoil) -> None:
    folder = spoil("model_index.json", {"feature_extractor": ["transformers", "CLIPFeatureExtractor"]})
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor" / "preprocessor_config.json").write_text('{"size": 224, "crop_size": 224}')
    assert build_folder(read(folder)).feature_extractor.crop_size["height"] == 224


def test_source_key_follows_the_content(plain: Path, spoil: Spoil) -> None:
    key = source_key(read(plain))
    assert key == source_key(read(str(plain)))
    folder = spoil("unet/config.json", {"sample_size": 64})
    assert source_key(read(folder)) != key
    shutil.rmtree(folder)
    folder = spoil("unet/config.json", {})
    assert source_key(read(folder)) == key


def test_reading_needs_no_torch(plain: Path) -> None:
    code = (
        "import sys; from autotune.zoo.sources import read, source_key; source_key(read(sys.argv[1])); "
        "print(sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(plain)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_snapshot_in_the_hubs_cache_may_link_to_its_blobs(plain: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0f1e"
    shutil.copytree(plain, snapshot)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    (snapshot / "unet" / "config.json").rename(blobs / "17")
    (snapshot / "unet" / "config.json").symlink_to("../../../blobs/17")
    assert source_key(read(snapshot)) == source_key(read(plain))


def test_no_folder() -> None:
    assert refusal(Path("no-such-folder")) == (
        "'no-such-folder' is not a folder; give one that holds model_index.json and the files it names"
    )


def test_folder_without_index(plain: Path) -> None:
    assert refusal(plain / "unet") == (
        f"'{plain / 'unet'}' holds no model_index.json; give the folder of a whole pipeline, not of one component"
    )


def test_missing_files_are_listed(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain, copy, ignore=shutil.ignore_patterns("unet", "scheduler_config.json"))
    assert refusal(copy) == (
        f"'{copy}' lacks scheduler/scheduler_config.json, unet/config.json, named by its model_index.json; "
        f"copy the JSON files of the whole pipeline"
    )


CODE = "only classes of diffusers and transformers are built, never code that comes with a model"
FOREIGN = "asks for code from outside the installed libraries, which is never run; remove the entry if the model works without it"  # noqa: E501
QUANTISED = (
    "says that the weights are quantised, and then their sizes are not in this file; "
    "give the folder of the model before quantisation"
)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"unet": ["os", "system"]}, f"'unet' asks for system of 'os'; {CODE}"),
        ({"unet": ["../evil", "Net"]}, f"'unet' asks for Net of '../evil'; {CODE}"),
        ({"unet": ["pipeline", "Net"]}, f"'unet' asks for Net of 'pipeline'; {CODE}"),
        ({"unet": ["diffusers"]}, "'unet' is ['diffusers']; it must be [library, class] or [null, null]"),
        ({"unet": ["diffusers", 3]}, "'unet' is ['diffusers', 3]; it must be [library, class] or [null, null]"),
        ({"unet": {"a": 1}}, "'unet' is {'a': 1}; it must be [library, class] or [null, null]"),
        ({"../unet": ["diffusers", "A"]}, "'../unet' cannot name a component; a plain name such as 'unet' can"),
        ({"/etc": ["diffusers", "A"]}, "'/etc' cannot name a component; a plain name such as 'unet' can"),
        (
            {"_class_name": ["my_pipeline", "Pipe"]},
            "'_class_name' is ['my_pipeline', 'Pipe']; it must name a pipeline class of diffusers",
        ),
        ({"_class_name": None}, "'_class_name' is None; it must name a pipeline class of diffusers"),
        ({"_module": "evil"}, f"'_module' {FOREIGN}"),
        ({"custom_pipeline": "evil"}, f"'custom_pipeline' {FOREIGN}"),
    ],
)
def test_refused_index(spoil: Spoil, entries: Json, message: str) -> None:
    assert refusal(spoil("model_index.json", entries)) == f"model_index.json: {message}"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, f"'auto_map' {FOREIGN}"),
        ({"text_config": {"auto_map": {}}}, f"'auto_map' {FOREIGN}"),
        ({"trust_remote_code": True}, f"'trust_remote_code' {FOREIGN}"),
        ({"_attn_implementation": "evil/kernel"}, f"'_attn_implementation' {FOREIGN}"),
        ({"quantization_config": {"bits": 4}}, f"'quantization_config' {QUANTISED}"),
        ({"num_hidden_layers": 10**9}, "'num_hidden_layers' is 1000000000; up to 1000 is built"),
        ({"layers": [[1, 1001]]}, "'layers' is 1001; up to 1000 is built"),
        ({"types": ["DownBlock2D"] * 4097}, "'types' lists 4097 values; up to 4096 are read"),
    ],
)
def test_refused_component_configuration(spoil: Spoil, entries: Json, message: str) -> None:
    assert refusal(spoil("text_encoder/config.json", entries)) == f"text_encoder/config.json: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('{"a": NaN}', "is not valid JSON: NaN is not a JSON number"),
        ("[1]", "holds a JSON list; a configuration is an object"),
        ('{"a": ' + "[" * 40 + "]" * 40 + "}", "is nested more than 32 deep; no configuration is"),
        ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "is nested more than 32 deep; no configuration is"),
        (" " * 4_000_001, "has 4000001 bytes; configurations of up to 4000000 are read"),
    ],
)
def test_refused_json(spoil: Spoil, text: str, message: str) -> None:
    folder = spoil("unet/config.json", {})
    (folder / "unet" / "config.json").write_text(text)
    assert refusal(folder) == f"unet/config.json {message}"


def test_bytes_that_are_no_text(spoil: Spoil) -> None:
    folder = spoil("unet/config.json", {})
    (folder / "unet" / "config.json").write_bytes(b'{"a": "\xff"}')
    assert refusal(folder).startswith("unet/config.json is not valid JSON: 'utf-8' codec can't decode byte 0xff")


@pytest.mark.parametrize("where", ["unet/config.json", "unet", "model_index.json"])
def test_links_out_of_the_folder(plain: Path, spoil: Spoil, where: str) -> None:
    folder = spoil("unet/config.json", {})
    target = folder / where
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    target.symlink_to(plain / where)
    file = "model_index.json" if where == "model_index.json" else "unet/config.json"
    assert refusal(folder) == f"{file} is a link to a place outside the folder; put the file itself there"


def test_vocabulary_that_links_out_of_the_folder(spoil: Spoil, tmp_path: Path) -> None:
    folder = spoil("unet/config.json", {})
    (tmp_path / "elsewhere").write_text("{}")
    (folder / "tokenizer" / "tokenizer.json").symlink_to(tmp_path / "elsewhere")
    assert build_refusal(read(folder)) == (
        "tokenizer/tokenizer.json is a link to a place outside the folder; put the file itself there"
    )


NO_PIPELINE = f"which is no pipeline class of diffusers {diffusers.__version__}; nearest: "
NO_PART = f"which is no model, scheduler, tokenizer or image processor of the installed version {diffusers.__version__}"
INCOMPLETE = "which StableDiffusionPipeline needs; give the folder of a whole pipeline"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (
            {"_class_name": "StableDifusionPipeline"},
            f": '_class_name' is 'StableDifusionPipeline', {NO_PIPELINE}StableDiffusionPipeline, ",
        ),
        ({"_class_name": "AutoencoderKL"}, f": '_class_name' is 'AutoencoderKL', {NO_PIPELINE}"),
        (
            {"vae": ["diffusers", "StableDiffusionPipeline"]},
            f": 'vae' asks for StableDiffusionPipeline of diffusers, {NO_PART}",
        ),
        ({"vae": ["diffusers", "logging"]}, f": 'vae' asks for logging of diffusers, {NO_PART}"),
        ({"vae": ["stable_diffusion", "NoSuchThing"]}, f": 'vae' asks for NoSuchThing of stable_diffusion, {NO_PART}"),
        ({"vae": ["deprecated", "NoSuchThing"]}, f": 'vae' asks for NoSuchThing of deprecated, {NO_PART}"),
        ({"unet": [None, None], "vae": 7}, f" names no unet, vae, {INCOMPLETE}"),
    ],
)
def test_refused_classes(spoil: Spoil, entries: Json, message: str) -> None:
    assert build_refusal(read(spoil("model_index.json", entries))).startswith(f"model_index.json{message}")


def test_configuration_that_does_not_fit_its_class(spoil: Spoil) -> None:
    folder = spoil("unet/config.json", {"down_block_types": ["NoSuchBlock", "DownBlock2D"]})
    assert build_refusal(read(folder)) == (
        "unet/config.json does not describe a UNet2DConditionModel: ValueError: NoSuchBlock does not exist."
    )


def test_unknown_precision(spoil: Spoil) -> None:
    folder = spoil("text_encoder/config.json", {"dtype": "int8"})
    assert build_refusal(read(folder)) == (
        "text_encoder/config.json: the dtype is 'int8'; float32, float16, bfloat16 can be built"
    )


def test_tokenizer_that_needs_its_files(spoil: Spoil) -> None:
    folder = spoil("model_index.json", {"tokenizer": ["transformers", "GPT2Tokenizer"]})
    assert build_refusal(read(folder)).startswith("GPT2Tokenizer cannot be made up without its files; put its ")


def test_tokenizer_without_text_encoder(spoil: Spoil) -> None:
    folder = spoil("model_index.json", {"text_encoder": [None, None]})
    assert build_refusal(read(folder)) == f"model_index.json names no text_encoder, {INCOMPLETE}"
