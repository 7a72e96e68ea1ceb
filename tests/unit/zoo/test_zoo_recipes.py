"""The zoo's data: names, keys, and agreement with the signatures of the installed pipelines."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from autotune.zoo.recipes import Recipe, content_key, find, names, recipes


def test_names_are_the_three_models() -> None:
    assert names() == ["flux1-dev", "sd15", "sdxl-base-1.0"]


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
    ],
)
def test_find_knows_aliases_and_hub_ids(name: str, expected: str) -> None:
    recipe = find(name)
    assert recipe is not None
    assert recipe.name == expected


@pytest.mark.parametrize("name", ["", "sd", "black-forest-labs/FLUX.1-schnell"])
def test_find_answers_none_for_others(name: str) -> None:
    assert find(name) is None


def test_no_name_leads_to_two_models() -> None:
    known = [n.casefold() for r in recipes().values() for n in (r.name, r.hub_id, *r.aliases)]
    assert len(known) == len(set(known))


def test_source_keys_differ_by_content_only() -> None:
    keys = {recipe.source_key for recipe in recipes().values()}
    assert len(keys) == 3
    recipe = recipes()["sd15"]
    assert recipe.model_copy(update={"name": "x", "hub_id": "a/b", "aliases": ("y",)}).source_key == recipe.source_key
    slower = recipe.defaults.model_copy(update={"steps": 51})
    assert recipe.model_copy(update={"defaults": slower}).source_key != recipe.source_key


def test_source_key_survives_a_round_trip() -> None:
    for recipe in recipes().values():
        assert Recipe.model_validate_json(recipe.model_dump_json()).source_key == recipe.source_key


def test_content_key_is_sha256_of_canonical_json() -> None:
    assert content_key({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert content_key({"a": [1, 2]}) != content_key({"a": [2, 1]})


def test_defaults_are_those_of_the_installed_pipelines() -> None:
    import diffusers

    for recipe in recipes().values():
        call = inspect.signature(getattr(diffusers, recipe.pipeline_class).__call__).parameters
        assert call["num_inference_steps"].default == recipe.defaults.steps
        assert call["guidance_scale"].default == recipe.defaults.guidance_scale
        assert recipe.defaults.guidance is (recipe.defaults.guidance_scale > 1)


def test_reading_recipes_imports_no_torch() -> None:
    code = (
        "import sys; from autotune.zoo import build, folder, hub, recipes, tokenizers; "
        "recipes.find('sdxl').source_key; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
