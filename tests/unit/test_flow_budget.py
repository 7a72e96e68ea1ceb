"""Caps: what was asked, what is there, and the line that says which counts."""

from __future__ import annotations

import pytest
import torch

from autotune.errors import BadSizeError
from autotune.flow.budget import Held, assumed_host, budget_for, held_by
from autotune.probe.catalog import card
from autotune.records.host import Host
from benchmarks.tiny import sd
from tests.unit.handmade import CARD, CPU

BUSY = CARD.model_copy(update={"free_bytes": 7 * 10**9})
HOST = Host(ram_total_bytes=32 * 10**9, ram_available_bytes=10 * 10**9, cores=8, os="Linux")
ASSUMED = assumed_host(CARD, None)


@pytest.mark.parametrize(
    ("device", "asked", "vram", "note"),
    [
        (CARD, None, 12 * 10**9, ""),
        (CARD, "4GB", 4 * 10**9, ""),
        (CARD, 12 * 10**9, 12 * 10**9, ""),
        (CARD, "16GB", 12 * 10**9, "max_vram=16.00 GB is more than a card has (12.00 GB): planned for 12.00 GB"),
        (BUSY, None, 7 * 10**9, ""),
        (BUSY, "6GB", 6 * 10**9, ""),
        (BUSY, "8GB", 7 * 10**9, "max_vram=8.00 GB is more than a card has free (7.00 GB): planned for 7.00 GB"),
        (CPU, "8GB", 8 * 10**9, ""),
    ],
)
def test_vram(device, asked, vram, note):
    budget = budget_for(device, HOST, max_vram=asked, max_ram=None)
    assert (budget.vram_bytes, budget.note, budget.ram_bytes) == (vram, note, 10 * 10**9)


def test_free_memory_is_never_more_than_the_card():
    odd = CARD.model_copy(update={"free_bytes": 13 * 10**9})
    assert budget_for(odd, HOST, max_vram=None, max_ram=None).vram_bytes == 12 * 10**9


@pytest.mark.parametrize(
    ("host", "asked", "ram", "option"),
    [
        (HOST, None, 10, "max_ram"),
        (HOST, "6GB", 6, "max_ram"),
        (HOST, "20GB", 10, "max_ram"),  # no more than is free here
        (ASSUMED, None, 32, "ram"),
        (ASSUMED, "6GB", 6, "max_ram"),
        (ASSUMED, "64GB", 64, "max_ram"),  # all that is known of that machine
        (assumed_host(CARD, "16GB"), None, 16, "ram"),
        (assumed_host(CARD, "16GB"), "64GB", 16, "max_ram"),
    ],
)
def test_ram(host, asked, ram, option):
    budget = budget_for(CARD, host, max_vram=None, max_ram=asked)
    assert (budget.ram_bytes, budget.ram_option) == (ram * 10**9, option)


@pytest.mark.parametrize(
    ("name", "ram_gb"),
    [("RTX 4060", 32), ("RTX 4090 Laptop", 32), ("L4", 48), ("Tesla T4", 32), ("NVIDIA A100-SXM4-80GB", 168)],
)
def test_ram_that_is_assumed_beside_a_card(name, ram_gb):
    host = assumed_host(card(name), None)
    assert host.assumed
    assert abs(host.ram_available_bytes / 1e9 - ram_gb) < 5


def test_where_memory_is_shared_no_more_is_assumed_than_there_is():
    spark = card("DGX Spark")
    assert assumed_host(spark, None).ram_available_bytes == spark.total_bytes
    assert assumed_host(spark, "500GB").ram_available_bytes == spark.total_bytes


def test_what_the_pipeline_holds_may_be_used():
    budget = budget_for(BUSY, HOST, max_vram="9GB", max_ram="11GB", held=Held(10**9, 2 * 10**9))
    assert (budget.vram_bytes, budget.ram_bytes) == (8 * 10**9, 11 * 10**9)
    assert budget.note == "max_vram=9.00 GB is more than a card has free (8.00 GB): planned for 8.00 GB"


def test_weights_are_held_once_and_where_they_lie():
    pipe = sd()
    nothing = held_by("sd15", CARD)
    size = sum(t.numel() * t.itemsize for n in ("unet", "vae", "text_encoder") for t in tensors(getattr(pipe, n)))
    assert nothing == Held(0, 0)
    assert held_by(pipe, CARD) == Held(0, size)
    assert held_by(pipe, CPU) == Held(size, size)
    pipe.unet.to(torch.device("meta"))
    assert held_by(pipe, CPU).ram_bytes < size


def tensors(part):
    return {*part.parameters(), *part.buffers()}


@pytest.mark.parametrize(
    ("name", "cap", "message"),
    [
        ("max_vram", "4Gb", "max_vram='4Gb' reads as bits; write max_vram='4GB' if you mean bytes"),
        ("max_vram", "-1GB", "max_vram='-1GB' is not a positive size; write for example max_vram='4GB'"),
        ("max_ram", "0", "max_ram='0' is not a positive number of bytes; write for example max_ram='4GB'"),
        ("max_ram", 0, "max_ram=0 is not a positive number of bytes; write for example max_ram='4GB'"),
    ],
)
def test_a_cap_that_is_no_size(name, cap, message):
    with pytest.raises(BadSizeError) as caught:
        budget_for(CARD, HOST, **{"max_vram": None, "max_ram": None, name: cap})
    assert str(caught.value) == message


def test_other_tensors_of_the_process_come_off_the_cap():
    card = CARD.model_copy(update={"free_bytes": 10 * 10**9})
    budget = budget_for(card, HOST, max_vram="4GB", max_ram=None, held=Held(0, 0, others_bytes=3 * 10**9))
    assert budget.vram_bytes == 1 * 10**9
    unasked = budget_for(card, HOST, max_vram=None, max_ram=None, held=Held(0, 0, others_bytes=3 * 10**9))
    assert unasked.vram_bytes == 10 * 10**9
