"""Originals that files hold: they leave RAM while a plan is applied, and come back bit for bit; all others stay."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from autotune.guard import applying
from autotune.levers.files import files_of
from autotune.probe.gpu import cpu_device
from autotune.records.plan import Plan
from autotune.records.workload import Workload
from autotune.upstream import port
from benchmarks.tiny import sd


@pytest.fixture
def loaded(tmp_path):
    sd().save_pretrained(tmp_path / "model")
    return StableDiffusionPipeline.from_pretrained(tmp_path / "model")


def weights(pipe):
    parts = port.networks(pipe)
    return {(name, path): tensor for name, part in parts.items() for path, tensor in part.named_parameters()}


def waiting_bytes(objects):
    return sum(tensor.numel() * tensor.itemsize for tensor in objects.values())


def test_what_files_hold_does_not_wait_in_ram_and_comes_back(loaded):
    objects = weights(loaded)
    bits = {key: tensor.detach().clone() for key, tensor in objects.items()}
    applying.apply(loaded, Plan(dtype="bf16"), device=cpu_device(), workload=Workload(), reload=True)
    assert waiting_bytes(objects) == 0
    assert {tensor.dtype for tensor in weights(loaded).values()} == {torch.bfloat16}
    applying.restore(loaded)
    assert all(tensor is objects[key] and torch.equal(tensor, bits[key]) for key, tensor in weights(loaded).items())


def test_what_was_changed_since_stays_in_ram(loaded):
    with torch.no_grad():
        loaded.unet.conv_in.weight += 1
    changed = loaded.unet.conv_in.weight
    bits = changed.detach().clone()
    objects = weights(loaded)
    applying.apply(loaded, Plan(dtype="bf16"), device=cpu_device(), workload=Workload(), reload=True)
    assert waiting_bytes(objects) == changed.numel() * changed.itemsize
    applying.restore(loaded)
    assert torch.equal(loaded.unet.conv_in.weight, bits)


def test_a_pipeline_that_was_made_has_no_files(loaded, tmp_path):
    assert files_of(sd()) is None
    files = files_of(loaded)
    assert files.hold(loaded.unet, "conv_in.weight", loaded.unet.conv_in.weight)
    assert not files.hold(loaded.unet, "conv_in.weight", loaded.unet.conv_in.weight.half())
    assert not files.name(loaded.unet, "no.such.weight")
    next((tmp_path / "model" / "unet").glob("*.safetensors")).write_bytes(b"half a download")
    assert not files_of(loaded).name(loaded.unet, "conv_in.weight")
