"""Names as people type and paste them: what resolves, what is refused with the family's members, what is nearest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.errors import PipelineError
from autotune.zoo.locate import locate
from autotune.zoo.names import compact, hub_name
from autotune.zoo.recipes import find, matching, nearest_to, pipelines, recipes

RESOLVED = {
    "FLUX.1 dev": "flux1-dev",
    "flux.1-dev": "flux1-dev",
    "FLUX.1 [dev]": "flux1-dev",
    "flux 2 klein 4b": "flux2-klein-4b",
    "kontext": "flux1-kontext-dev",
    "flux-kontext": "flux1-kontext-dev",
    "sd 1.5": "sd15",
    "SD1.5": "sd15",
    "stable diffusion 1.5": "sd15",
    "Stable-Diffusion-v1-5": "sd15",
    "SDXL": "sdxl-base-1.0",
    "sdxl base": "sdxl-base-1.0",
    "sdxl 1.0": "sdxl-base-1.0",
    "stable-diffusion-xl": "sdxl-base-1.0",
    "refiner": "sdxl-refiner-1.0",
    "sd3.5 large": "sd3.5-large",
    "SD 3.5 Large Turbo": "sd3.5-large-turbo",
    "z image turbo": "z-image-turbo",
    "Z-Image": "z-image",
    "Qwen Image": "qwen-image",
    "qwen-edit": "qwen-image-edit",
    "wan 2.2 5b": "wan2.2-ti2v-5b",
    "Wan2.2 TI2V 5B": "wan2.2-ti2v-5b",
    "ltx 2": "ltx-2",
    "if": "deepfloyd-if-i-xl",
    "upscaler": "sd-x4-upscaler",
    "zai-org/CogVideoX1.5-5B": "cogvideox1.5-5b",
    "https://huggingface.co/black-forest-labs/FLUX.1-dev": "flux1-dev",
    "https://huggingface.co/black-forest-labs/FLUX.1-dev/": "flux1-dev",
    "http://www.huggingface.co/Qwen/Qwen-Image/tree/main": "qwen-image",
    "huggingface.co/Qwen/Qwen-Image/blob/main/README.md": "qwen-image",
    "hf.co/Tongyi-MAI/Z-Image-Turbo?library=diffusers": "z-image-turbo",
    "HF.co/Tongyi-MAI/Z-Image-Turbo#usage": "z-image-turbo",
    "Tongyi-MAI/Z-Image-Turbo@main": "z-image-turbo",
    "Tongyi-MAI/Z-Image-Turbo/": "z-image-turbo",
}
FAMILIES = {
    "wan": ("wan2.2-ti2v-5b", 9),
    "Wan 2.2": ("wan2.2-ti2v-5b", 3),
    "flux": ("flux1-dev", 9),
    "flux 2": ("flux2-klein-4b", 3),
    "flux 2 klein": ("flux2-klein-4b", 2),
    "sd": ("sdxl-base-1.0", 10),
    "stable diffusion": ("sdxl-base-1.0", 10),
    "SD 3.5": ("sd3.5-large", 3),
    "qwen": ("qwen-image", 5),
    "hunyuan": ("hunyuanvideo-1.5-480p-t2v", 4),
    "ltx": ("ltx-2", 6),
    "sana": ("sana-1600m-1024", 5),
    "pixart": ("pixart-alpha-1024", 3),
    "cascade": ("stable-cascade-decoder", 2),
    "wan 14b": ("wan2.2-t2v-a14b", 6),
}


@pytest.mark.parametrize("said", RESOLVED)
def test_a_name_however_it_is_spelled(said: str) -> None:
    found = find(said)
    assert found is not None
    assert found.name == RESOLVED[said]


@pytest.mark.parametrize("said", FAMILIES)
def test_a_family_is_refused_with_its_members_best_known_first(said: str) -> None:
    first, least = FAMILIES[said]
    members = [recipe.name for recipe in matching(said)]
    assert find(said) is None
    assert members[0] == first
    assert len(members) >= least
    with pytest.raises(PipelineError) as error:
        locate(said)
    shown, more = ", ".join(members[:6]), f" and {len(members) - 6} more" if len(members) > 6 else ""
    assert str(error.value) == f"{said!r} is several models; name one of {shown}{more}"


def test_members_of_a_family_are_of_that_family() -> None:
    assert all(recipe.name.startswith("wan") for recipe in matching("wan"))
    assert all(recipe.name.startswith("flux") for recipe in matching("flux"))
    assert {recipe.name for recipe in matching("edit")} == {name for name in recipes() if "edit" in name}
    assert matching() == pipelines()


@pytest.mark.parametrize(
    ("said", "first"),
    [
        ("flux pro", "flux1-dev"),
        ("wan 3", "wan2.2-ti2v-5b"),
        ("flx1-dev", "flux1-dev"),
        ("hunyan video", "hunyuanvideo"),
        ("hunyuan image", "hunyuanvideo-1.5-480p-t2v"),
        ("kandinsky 5", "kandinsky-2.2-decoder"),
        ("sdx turbo", "sdxl-turbo"),
        ("sdlx", "sdxl-base-1.0"),
        ("qwen image layered", "qwen-image"),
        ("xyzzy", "flux1-dev"),
    ],
)
def test_the_nearest_name_is_by_word_before_it_is_by_letters(said: str, first: str) -> None:
    assert nearest_to(said)[0] == first
    with pytest.raises(PipelineError) as error:
        locate(said)
    assert str(error.value) == (
        f"no model {said!r}: it is no folder here and no name in the zoo; nearest: {', '.join(nearest_to(said))}; "
        "a hub id has the form owner/name"
    )


def test_a_revision_is_kept() -> None:
    for said in ("a/b@refs/pr/3", "https://huggingface.co/a/b/tree/fp16", "hf.co/a/b/resolve/fp16/unet/config.json"):
        found = hub_name(said)
        assert found is not None
        assert (found.hub_id, found.revision) == ("a/b", "refs/pr/3" if "pr" in said else "fp16")
    assert find("Tongyi-MAI/Z-Image-Turbo@fp16") is None  # those files may be others


@pytest.mark.parametrize(
    "said", ["https://civitai.com/models/101055", "http://localhost/a/b", "file:///etc/passwd", "ftp://huggingface.co"]
)
def test_other_addresses_are_refused(said: str) -> None:
    with pytest.raises(PipelineError) as error:
        locate(said)
    assert str(error.value) == (
        f"{said!r} is not an address of a model on the Hugging Face hub; "
        "those read https://huggingface.co/owner/name, or owner/name for short"
    )


@pytest.mark.parametrize("said", ["https://huggingface.co/datasets/a/b", "hf.co/spaces/a/b", "huggingface.co/Qwen"])
def test_pages_that_are_no_models_are_refused(said: str) -> None:
    with pytest.raises(PipelineError, match="is a page of the hub, but not of a model; give owner/name"):
        locate(said)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_no_text_breaks_the_lookup(text: str) -> None:
    try:
        found = find(text)
    except PipelineError:  # a part of a pipeline
        return
    assert found is None or compact(text) in {compact(known) for known in found.known_names}
    assert set(nearest_to(text)) <= set(recipes())


@settings(deadline=None)
@given(st.sampled_from([(recipe.name, known) for recipe in pipelines() for known in recipe.known_names]), st.data())
def test_spaces_dashes_dots_and_case_do_not_count(named: tuple[str, str], data: st.DataObject) -> None:
    name, known = named
    choices = [st.sampled_from(" -_." if char in " -_." else (char, char.upper())) for char in known]
    found = find("".join(data.draw(choice) for choice in choices))
    assert found is not None
    assert found.name == name
