"""Downloads of configuration, without a network: what is asked for, and what each failure says."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from autotune.errors import PipelineError
from autotune.zoo.hub import download

WITHOUT = "without the hub, a zoo name such as sd15 or a local folder of its configuration files works"


ANSWER: Any = SimpleNamespace(headers={}, request=None, status_code=403, url="https://huggingface.co/api/models/a/b")


def failing(error: Exception) -> Callable[..., str]:
    def fetch(*args: Any, **options: Any) -> str:
        raise error

    return fetch


def test_only_configuration_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    asked: dict[str, Any] = {}

    def fetch(hub_id: str, *, allow_patterns: list[str]) -> str:
        asked.update(hub_id=hub_id, patterns=allow_patterns)
        return str(tmp_path)

    assert download("owner/Some_model-1.0", fetch=fetch) == tmp_path
    assert asked["hub_id"] == "owner/Some_model-1.0"
    repository = [
        "model_index.json",
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/tokenizer.json",
        "feature_extractor/preprocessor_config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "pipeline.py",
        "unet/model.py",
        "v1-5-pruned.ckpt",
        "text_encoder/pytorch_model.bin",
    ]
    taken = [file for file in repository if any(fnmatch.fnmatch(file, one) for one in asked["patterns"])]
    assert taken == repository[:6]


@pytest.mark.parametrize("name", ["sdxl2", "a/b/c", "../etc", "a b/c", "/abs/path", "owner/"])
def test_no_hub_id(name: str) -> None:
    with pytest.raises(PipelineError) as error:
        download(name, fetch=failing(AssertionError("asked")))
    assert str(error.value) == f"'{name}' is not a hub id, which reads 'owner/name'; {WITHOUT}"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            GatedRepoError("403", response=ANSWER),
            "is gated: accept its terms on its page on the hub, then log in with 'hf auth login'",
        ),
        (
            RepositoryNotFoundError("404", response=ANSWER),
            "is not on the Hugging Face hub, or is private and you are not logged in",
        ),
        (
            LocalEntryNotFoundError("Got: ConnectError: no route\nAn error happened"),
            "could not be downloaded from the Hugging Face hub (LocalEntryNotFoundError: Got: ConnectError: no route)",
        ),
        (
            PermissionError("cache is read-only"),
            "could not be downloaded from the Hugging Face hub (PermissionError: cache is read-only)",
        ),
    ],
)
def test_failures_say_what_works(error: Exception, reason: str) -> None:
    with pytest.raises(PipelineError) as found:
        download("a/b", fetch=failing(error))
    assert str(found.value) == f"'a/b' {reason}; {WITHOUT}"
    assert found.value.__cause__ is error


def test_repository_without_index(tmp_path: Path) -> None:
    with pytest.raises(PipelineError) as error:
        download("a/b", fetch=lambda *args, **options: str(tmp_path))
    assert str(error.value) == f"'a/b' holds no model_index.json, so it is no diffusers pipeline; {WITHOUT}"


def test_offline(tmp_path: Path) -> None:
    code = """
from autotune.errors import PipelineError
from autotune.zoo.hub import download
try:
    download("a/b")
except PipelineError as error:
    print(error)
"""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(filter(None, sys.path))}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout == f"'a/b' is not in the hub's cache, and HF_HUB_OFFLINE forbids to download it; {WITHOUT}\n"
    assert found.stderr == ""
