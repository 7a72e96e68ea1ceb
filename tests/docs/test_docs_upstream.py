"""What docs/upstream.md says of other libraries is still so; where it is not, what we do instead can go."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "upstream.md"
MOST_LINES = 10
SECTIONS = {
    section.partition("\n")[0]: section
    for section in re.split(r"^### ", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
}
THEIRS = r"`(?:diffusers|accelerate|transformers|torch|aten)/[\w/]+\.\w+"
OURS = r"`((?:levers|trace|records|guard|simulate|flow|upstream)/\w+\.py)"


def block(title):
    """The section's only repro."""
    (source,) = re.findall(r"^```python\n(.*?)^```", SECTIONS[title], re.MULTILINE | re.DOTALL)
    return source


def words(title):
    """What the section says under its repro, on one line."""
    return " ".join(SECTIONS[title].rpartition("```\n")[2].partition("\n## ")[0].split())


@contextmanager
def named(title):
    """A repro that finds the defect gone, or cannot be made any more, fails with the section's title and advice."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        pytest.fail(f'upstream changed: "{title}" ({type(error).__name__}: {error}). What to look at: {words(title)}')


def process_wide():
    """State of the process that a repro might leave changed."""
    return {
        "attention backend": _AttentionBackendRegistry._active_backend,
        "matmul precision": torch.get_float32_matmul_precision(),
        "fp32 precision": torch.backends.cuda.matmul.fp32_precision,
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "swaps": torch.__future__.get_swap_module_params_on_conversion(),
    }


@pytest.mark.parametrize("title", SECTIONS, ids=lambda title: title[:80])
def test_the_defect_is_still_there(title):
    before = process_wide()
    with named(title), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(block(title), f"docs/upstream.md, {title}", "exec"), {"__name__": "upstream"})
    assert process_wide() == before


@pytest.mark.parametrize("title", SECTIONS, ids=lambda title: title[:80])
def test_a_repro_is_short(title):
    assert sum(bool(line.strip()) for line in block(title).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("title", SECTIONS, ids=lambda title: title[:80])
def test_a_section_says_where_it_is_and_what_is_done_instead(title):
    assert re.search(THEIRS, words(title))
    instead = re.findall(OURS, words(title))
    assert instead or re.search(r"There is no such lever\.|No plan offloads to disk\.", words(title))
    for path in instead:
        assert (ROOT / "autotune" / path).exists(), path


@pytest.mark.parametrize("title", SECTIONS, ids=lambda title: title[:80])
def test_what_is_named_in_our_files_is_there(title):
    for path, name in re.findall(OURS + r": (\w+)`", words(title)):
        assert re.search(rf"\b(def|class) {name}\b|^{name}\b", (ROOT / "autotune" / path).read_text(), re.MULTILINE), (
            name
        )


def test_there_are_sections():
    assert len(SECTIONS) >= 25


def test_a_mended_defect_names_its_section():
    title = next(iter(SECTIONS))
    with pytest.raises(pytest.fail.Exception, match=re.escape(title)), named(title):
        raise AssertionError


def test_files_of_ours_that_point_here_exist():
    sources = (ROOT / "autotune").rglob("*.py")
    assert any("docs/upstream.md" in path.read_text(encoding="utf-8") for path in sources)
