"""Full-size pipelines on the meta device: sizes, precision, ties, tokenizers, silence, and nothing left behind."""

from __future__ import annotations

import gc
import logging
import random
import subprocess
import sys
import warnings
from importlib.util import find_spec
from typing import Any

import diffusers
import numpy
import pytest
import torch
import transformers
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, Qwen2Model, T5Config, T5EncoderModel

from autotune.errors import PipelineError
from autotune.zoo.build import build, class_of, component, network
from autotune.zoo.precisions import common
from autotune.zoo.recipe import Recipe
from autotune.zoo.recipes import find, pipelines, recipes
from autotune.zoo.tokenizers import stand_in


def recipe_of(name: str) -> Recipe:
    recipe = find(name)
    assert recipe is not None
    return recipe


class Pipes(dict[str, Any]):
    """Pipelines by zoo name, each built when it is first asked for."""

    def __missing__(self, name: str) -> Any:
        self[name] = build(recipe_of(name))
        return self[name]


@pytest.fixture(scope="module")
def pipes() -> Pipes:
    return Pipes()


# Published counts: the checkpoints' file sizes and indexes.
PARAMETERS = {
    "sd15": {"unet": 859520964, "vae": 83653863, "text_encoder": 123060480, "safety_checker": 303981588},
    "sdxl-base-1.0": {
        "unet": 2567463684,
        "vae": 83653863,
        "text_encoder": 123060480,
        "text_encoder_2": 694659840,
    },
    "flux1-dev": {
        "transformer": 11901408320,
        "vae": 83819683,
        "text_encoder": 123060480,
        "text_encoder_2": 4762310656,
    },
}
DTYPES = {"sd15": torch.float32, "sdxl-base-1.0": torch.float32, "flux1-dev": torch.bfloat16}


@pytest.mark.parametrize("name", PARAMETERS)
def test_built_pipeline_has_the_published_weights(pipes: dict[str, Any], name: str) -> None:
    networks = {part: m for part, m in pipes[name].components.items() if isinstance(m, torch.nn.Module)}
    assert {part: sum(p.numel() for p in m.parameters()) for part, m in networks.items()} == PARAMETERS[name]
    for module in networks.values():
        assert {p.device.type for p in module.parameters()} == {"meta"}
        assert {b.device.type for b in module.buffers()} <= {"meta"}
        assert {p.dtype for p in module.parameters()} == {DTYPES[name]}
        assert not any(part.training for part in module.modules())


# Elements of buffers that the published checkpoints hold beside the parameters: positions, running means, VQ counts.
SAVED_BUFFERS = {
    ("sd3-medium", "transformer"): 192 * 192 * 1536,
    ("sd3.5-medium", "transformer"): 384 * 384 * 1536,
    ("sd3.5-large", "transformer"): 192 * 192 * 2432,
    ("ltx-video-0.9.0", "vae"): 256,
    ("ltx-video-0.9.1", "vae"): 256,
    ("ltx-video-0.9.5", "vae"): 256,
    ("ltx-video-0.9.7-13b", "vae"): 256,
    ("flux2-dev", "vae"): 257,
    ("flux2-klein-4b", "vae"): 257,
    ("flux2-klein-9b", "vae"): 257,
    ("animatediff-v1-5-2", "motion_adapter"): 604160,
    ("animatediff-v1-5-2", "unet"): 604160,
    ("animatediff-v1-5-3", "motion_adapter"): 563200,
    ("animatediff-v1-5-3", "unet"): 563200,
    ("stable-cascade-decoder", "vqgan"): 9,
    ("sd3.5-large-turbo", "transformer"): 192 * 192 * 2432,
    ("ltx-2", "vae"): 256,
    ("ltx-2", "audio_vae"): 256,
    ("ltx-2.3", "vae"): 256,
    ("ltx-2.3", "audio_vae"): 256,
    ("ltx-2.3", "vocoder"): 547584,
    ("ernie-image", "vae"): 257,
    ("kolors", "text_encoder"): 32,
}


def test_every_network_of_the_zoo_has_the_published_size() -> None:
    """Equal ones are built once."""
    seen: dict[str, int] = {}
    found = {}
    for name, recipe in recipes().items():
        for part in recipe.components:
            key = part.model_copy(update={"name": "", "dtype": "float32"}).model_dump_json()
            if key not in seen:
                module = network(class_of(part), part.arguments, dtype="float32", **part.init_arguments)
                tensors = [*module.parameters(), *module.buffers()]
                assert {tensor.device.type for tensor in tensors} == {"meta"}, (name, part.name)
                assert sum(p.numel() for p in module.parameters()) == part.parameters, (name, part.name)
                saved = module.state_dict()
                seen[key] = sum(buffer.numel() for path, buffer in module.named_buffers() if path in saved)
            if seen[key]:
                found[name, part.name] = seen[key]
    assert found == SAVED_BUFFERS
    assert len(seen) > 130


def test_a_missing_package_is_named() -> None:
    recipe = recipe_of("sd15").model_copy(update={"requires": ("no_such_package",)})
    with pytest.raises(PipelineError) as error:
        build(recipe)
    assert str(error.value) == (
        "sd15 needs the package no_such_package, which is not installed; pip install no_such_package"
    )


@pytest.mark.slow
def test_pipelines_are_built_as_loaded(pipes: dict[str, Any]) -> None:
    for name in (recipe.name for recipe in pipelines() if all(map(find_spec, recipe.requires))):
        pipe = pipes[name]
        recipe = recipe_of(name)
        wanted = recipe.precisions(recipe.as_loaded)
        for part in recipe.components:
            weights: dict[Any, int] = {}
            for weight in getattr(pipe, part.name).parameters():
                weights[weight.dtype] = weights.get(weight.dtype, 0) + weight.numel()
            assert max(weights, key=weights.__getitem__) is getattr(torch, wanted[part.name]), (name, part.name)
    assert [common(dtypes) for dtypes in ({"float32"}, {"float32", "float16"}, {"bfloat16", "float16"})] == [
        "float32",
        "float16",
        "bfloat16",
    ]


def test_objects_without_weights_are_made(pipes: dict[str, Any]) -> None:
    assert pipes["hunyuanvideo-1.5-480p-t2v"].guider.guidance_scale == 6.0
    assert type(pipes["sd-x4-upscaler"].low_res_scheduler).__name__ == "DDPMScheduler"
    assert pipes["hunyuanvideo-1.5-720p-i2v"].feature_extractor.size["height"] == 384
    assert pipes["wan2.2-t2v-a14b"].config.boundary_ratio == 0.875


def test_a_picture_becomes_as_many_tokens_as_the_language_model_expects(pipes: dict[str, Any]) -> None:
    pipe = pipes["qwen-image-edit"]
    text = pipe.prompt_template_encode.format("a cat")
    inputs = pipe.processor(text=[text], images=Image.new("RGB", (1024, 1024)), padding=True, return_tensors="pt")
    pads = int((inputs.input_ids == pipe.text_encoder.config.image_token_id).sum())
    merged = pipe.processor.image_processor.merge_size**2
    assert inputs.image_grid_thw.tolist() == [[1, 74, 74]]  # 1024 is 73.1 patches of 14 pixels, in pairs
    assert inputs.pixel_values.shape[0] == 74 * 74 == pads * merged


def test_bytes_are_tokens_of_byt5(pipes: dict[str, Any]) -> None:
    assert pipes["hunyuanvideo-1.5-480p-t2v"].tokenizer_2("cat").input_ids == [102, 100, 119, 1]


def test_positions_are_handed_to_chatglm() -> None:
    tokenizer = stand_in("ChatGLMTokenizer", None, Qwen2Model.config_class())
    tokens = tokenizer("a cat", padding="max_length", max_length=5, truncation=True, return_tensors="pt")
    assert tokens.attention_mask.tolist() == [[0, 0, 1, 1, 1]]
    assert tokens.position_ids.tolist() == [[0, 0, 0, 1, 2]]


def test_a_network_by_itself() -> None:
    vae = component(recipes()["sdxl-vae-fp16-fix"], "vae", dtype="float16")
    assert (vae.dtype, vae.config.force_upcast) == (torch.float16, False)
    with pytest.raises(PipelineError) as error:
        build(recipes()["taef1"])
    assert str(error.value) == "taef1 is a vae (AutoencoderTiny) and no pipeline; load a pipeline and set its vae"


def test_t5_embeddings_stay_tied(pipes: dict[str, Any]) -> None:
    encoder = pipes["flux1-dev"].text_encoder_2
    assert encoder.encoder.embed_tokens.weight is encoder.shared.weight


def test_schedulers_are_real(pipes: dict[str, Any]) -> None:
    pipe = pipes["sd15"]
    pipe.scheduler.set_timesteps(4)
    assert pipe.scheduler.timesteps.tolist() == [751, 501, 501, 251, 1]
    assert pipe.scheduler.betas.device.type == "cpu"


def test_feature_extractor_of_the_safety_checker_works(pipes: dict[str, Any]) -> None:
    images = [Image.new("RGB", (512, 512), "red"), Image.new("RGB", (512, 640))]
    assert pipes["sd15"].feature_extractor(images, return_tensors="pt").pixel_values.shape == (2, 3, 224, 224)


def test_progress_bars_are_off(pipes: dict[str, Any]) -> None:
    assert all(
        pipes[name]._progress_bar_config == {"disable": True} for name in ("sd15", "flux1-dev", "wan2.1-t2v-1.3b")
    )


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("prompt", ["", "a photo of a cat", "Ein Käfer, größer als 10 €! 猫", "long " * 200])
def test_tokens_are_ids_of_the_text_encoder(pipes: dict[str, Any], name: str, prompt: str) -> None:
    for part in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipes[name], part, None)
        if tokenizer is None:
            continue
        config = getattr(pipes[name], part.replace("tokenizer", "text_encoder")).config
        ids = tokenizer(prompt, padding="max_length", truncation=True, return_tensors="pt").input_ids
        assert ids.shape == (1, 512 if config.model_type == "t5" else 77)
        assert 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size


def test_clip_tokens_are_where_the_encoder_looks_for_them(pipes: dict[str, Any]) -> None:
    first, second = pipes["sdxl-base-1.0"].tokenizer, pipes["sdxl-base-1.0"].tokenizer_2
    assert (first.bos_token_id, first.eos_token_id, first.pad_token_id) == (49406, 49407, 49407)
    assert (second.pad_token, second.pad_token_id) == ("!", 0)
    ids = first("cat").input_ids
    assert ids == [49406, *first.convert_tokens_to_ids(["c", "a", "t</w>"]), 49407]


@pytest.mark.parametrize("vocabulary", [64, 600])
def test_stand_ins_feed_small_real_encoders(vocabulary: int) -> None:
    size: dict[str, Any] = {"vocab_size": vocabulary, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = CLIPTextConfig(
        **size, hidden_size=8, intermediate_size=8, max_position_embeddings=16, bos_token_id=0, eos_token_id=1
    )
    t5 = T5Config(vocab_size=vocabulary, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    for name, encoder in (("CLIPTokenizer", CLIPTextModel(clip)), ("T5TokenizerFast", T5EncoderModel(t5))):
        tokenizer = stand_in(name, 16, encoder.config)
        tokens = tokenizer("A small cat, 3 €", padding="max_length", truncation=True, return_tensors="pt")
        assert encoder(tokens.input_ids).last_hidden_state.shape == (1, 16, 8)


def test_unknown_tokenizer_is_refused() -> None:
    with pytest.raises(PipelineError) as error:
        stand_in("GPT2Tokenizer", 77, CLIPTextConfig())
    assert str(error.value) == (
        "GPT2Tokenizer cannot be made up without its files; put its tokenizer.json into the folder (made up without files: "
        "CLIPTokenizer, CLIPTokenizerFast, T5Tokenizer, T5TokenizerFast, GemmaTokenizer, GemmaTokenizerFast, LlamaTokenizer, "
        "LlamaTokenizerFast, Qwen2Tokenizer, Qwen2TokenizerFast, PreTrainedTokenizerFast, TokenizersBackend, BertTokenizer, "
        "ByT5Tokenizer, ChatGLMTokenizer, Qwen2VLProcessor, PixtralProcessor)"
    )


def test_a_word_is_a_token_of_a_language_model(pipes: dict[str, Any]) -> None:
    pipe = pipes["qwen-image"]
    template = pipe.prompt_template_encode
    before = template[: template.index("{}")]
    assert len(pipe.tokenizer(before).input_ids) == pipe.prompt_template_encode_start_idx == 34
    assert len(pipe.tokenizer("an old cat, asleep").input_ids) == 5
    assert pipe.tokenizer("").input_ids == []
    assert len(pipes["cogview4"].tokenizer("").input_ids) == 1  # GLM begins every text with a token


@pytest.mark.parametrize(
    "name", ["auraflow", "cogview4", "flux2-dev", "flux2-klein-4b", "hidream-i1", "hunyuanvideo", "sana-1600m-1024"]
)
def test_words_are_ids_of_the_language_model(pipes: dict[str, Any], name: str) -> None:
    part = "tokenizer_4" if name == "hidream-i1" else "tokenizer"
    tokenizer = getattr(pipes[name], part)
    config = getattr(pipes[name], part.replace("tokenizer", "text_encoder")).config.get_text_config()
    for prompt in ("", "a cat", "<|im_start|>user\nÄ 猫 10 €!"):
        ids = tokenizer(prompt, padding="max_length", max_length=40, truncation=True, return_tensors="pt").input_ids
        assert ids.shape == (1, 40)
        assert 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size
    assert tokenizer.model_max_length > 512


def test_chats_are_written_out(pipes: dict[str, Any]) -> None:
    chat = [{"role": "user", "content": "a cat"}]
    written = pipes["z-image-turbo"].tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert written == "<|im_start|>user\na cat<|im_end|>\n<|im_start|>assistant\n"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a cat"}]}]
    written = pipes["flux2-dev"].tokenizer.apply_chat_template(parts, tokenize=False)
    assert written == "<|im_start|>user\na cat<|im_end|>\n"


def test_wrong_parameter_count_is_refused() -> None:
    recipe = recipe_of("sd15")
    vae = recipe.component("vae").model_copy(update={"parameters": 83653864})
    with pytest.raises(PipelineError) as error:
        build(recipe.model_copy(update={"components": (vae,)}))
    assert str(error.value) == (
        "sd15 vae: AutoencoderKL should have 83653864 parameters, but "
        f"diffusers {diffusers.__version__} builds it with 83653863; load the pipeline itself and pass that instead"
    )


def test_nested_configuration_is_not_edited() -> None:
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config: dict[str, Any] = {**size, "num_key_value_heads": 2, "rope_scaling": {"type": "linear", "factor": 2.0}}
    network(Qwen2Model, config, dtype="float32")
    assert config["rope_scaling"] == {"type": "linear", "factor": 2.0}


def test_half_precision_keeps_what_from_pretrained_keeps() -> None:
    config = T5Config(vocab_size=64, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).to_dict()
    kept = {n for n, p in network(T5EncoderModel, config, dtype="float16").named_parameters() if p.dtype.itemsize == 4}
    assert kept == {"encoder.block.0.layer.1.DenseReluDense.wo.weight"}
    module = network(T5EncoderModel, config, dtype="bfloat16")
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}


def test_parameters_made_off_the_default_device_end_on_meta() -> None:
    from diffusers import UNetSpatioTemporalConditionModel

    config = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        "num_attention_heads": (2, 4),
        "cross_attention_dim": 32,
        "projection_class_embeddings_input_dim": 96,
    }
    with torch.device("meta"):
        plain = UNetSpatioTemporalConditionModel(**config)
    assert {p.device.type for p in plain.parameters()} == {"meta", "cpu"}  # else this test shows nothing
    module = network(UNetSpatioTemporalConditionModel, config, dtype="float32")
    assert {p.device.type for p in module.parameters()} == {"meta"}


def state() -> dict[str, Any]:
    loggers = {name: logging.getLogger(name) for name in ("", "diffusers", "transformers", "torch", "huggingface_hub")}
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "rng": torch.random.get_rng_state().tolist(),
        "numpy": numpy.random.get_state()[1].tolist(),
        "python": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "gc": gc.isenabled(),
        "warnings": list(warnings.filters),
        "levels": {name: (logger.level, list(logger.filters), logger.disabled) for name, logger in loggers.items()},
        "verbosity": transformers.logging.get_verbosity(),
        "init": torch.nn.init.kaiming_uniform_,
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_building_leaves_no_trace(name: str) -> None:
    logging.getLogger("transformers").setLevel(logging.INFO)
    try:
        before = state()
        build(recipe_of(name))
        assert state() == before
    finally:
        transformers.logging.set_verbosity_warning()


def test_failing_to_build_leaves_no_trace() -> None:
    before = state()
    with pytest.raises(KeyError, match="no such function"):
        network(CLIPTextModel, {"hidden_act": "no such function"}, dtype="bfloat16")
    flux = recipe_of("flux1-dev")
    wrong = flux.components[0].model_copy(update={"parameters": 1})
    with pytest.raises(PipelineError):
        build(flux.model_copy(update={"components": (wrong,)}))
    assert state() == before


def test_building_is_silent() -> None:
    sample = ("sd15", "flux1-dev", "flux2-dev", "kandinsky-2.2-prior", "stable-cascade-decoder", "svd-xt")
    code = f"from autotune.zoo import build, recipes\nfor name in {sample}: build.build(recipes.find(name))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("", "")
