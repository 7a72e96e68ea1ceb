"""Calibrating: once for real on this CPU with next to no time, and with clocks that are made up for all that must hold."""

from __future__ import annotations

import pytest
import torch

from autotune.measure import calibrate as module
from autotune.measure import overheads, work
from autotune.measure.calibrate import calibrate, climbed
from autotune.measure.micro import Clock
from autotune.probe.gpu import cpu_device
from autotune.simulate.speed import sustained
from tests.unit.handmade import CARD, CPU, card

FULL = card((8, 9), fp8_flops_per_s=80e12)


class Ticking(Clock):
    """Calls nothing and says that each call takes a millisecond."""

    def device_s(self, run):
        return 1e-3

    wall_s = device_s


def numbers(value):
    return [each for one in value.values() for each in numbers(one)] if isinstance(value, dict) else [value]


@pytest.fixture(scope="module")
def measured():
    """This CPU, in about two seconds; with what was told of the progress."""
    device, told = cpu_device(), []
    speed = calibrate(device, base=sustained(device), budget_s=0.5, progress=lambda *words: told.append(words))
    return speed, sustained(device), told


def test_a_real_calibration_gives_figures_that_a_device_can_have(measured):
    speed, base, _ = measured
    assert speed.source == "calibrated"
    found = speed.model_dump(exclude={"source", "tensor_s", "hook_s", "release_s"})
    assert min(numbers(found)) > 0
    assert max(numbers(found)) < float("inf")
    assert speed.products_flops_per_s.keys() == base.products_flops_per_s.keys()
    for name in ("products_flops_per_s", "convolutions_flops_per_s", "attention_flops_per_s"):
        assert all(getattr(speed, name)[key] != rate for key, rate in getattr(base, name).items())


def test_the_cpu_has_no_link(measured):
    speed, base, _ = measured
    for name in (
        "pinned_bytes_per_s",
        "pageable_bytes_per_s",
        "back_bytes_per_s",
        "reused_bytes_per_s",
        "tensor_s",
        "hook_s",
        "release_s",
    ):
        assert getattr(speed, name) == getattr(base, name)


def test_progress_counts_the_stages(measured):
    told = measured[2]
    assert [done for _, done, _ in told] == list(range(len(told)))
    assert {total for _, _, total in told} == {len(told)}


def test_random_numbers_are_as_they_were():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    calibrate(CPU, base=sustained(CPU), budget_s=1e-3)
    assert torch.equal(torch.rand(3), expected)


def test_what_fails_stays_as_believed(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no kernel of that name\nand a stack")

    monkeypatch.setattr(module, "Clock", Ticking)
    monkeypatch.setattr(work, "_attention", fails)
    monkeypatch.setitem(module._COSTS, "blocks", fails)
    base = sustained(CPU)
    speed = calibrate(CPU, base=base)
    assert speed.attention_flops_per_s == base.attention_flops_per_s
    assert speed.host_s == base.host_s
    assert speed.products_flops_per_s != base.products_flops_per_s


def test_where_everything_fails_the_speed_is_the_one_before(monkeypatch):
    monkeypatch.setattr(module, "climbed", lambda *_: 1 / 0)
    for name in module._COSTS:
        monkeypatch.setitem(module._COSTS, name, lambda _: 1 / 0)
    base = sustained(CPU)
    assert calibrate(CPU, base=base) is base


@pytest.mark.parametrize(
    ("device", "modes"),
    [
        (CPU, {"float32", "float16", "bfloat16"}),
        (card((6, 1)), {"float32", "float16"}),
        (card((7, 5)), {"float32", "float16"}),
        (CARD, {"float32", "tf32", "float16", "bfloat16"}),
        (FULL, {"float32", "tf32", "float16", "bfloat16", "float8"}),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else "",
)
def test_products_are_timed_in_what_the_device_has(device, modes):
    names = [name for name, _ in module._works(device)]
    assert {name.split()[1] for name in names if name.startswith("products ")} == modes
    assert {name.split()[1] for name in names if name.startswith("convolutions ")} == modes - {"float8"}


def test_a_card_is_timed_in_everything_its_speed_is_made_of():
    names = [name for name, _ in module._works(FULL)]
    assert {name.split()[1] for name in names if name.startswith("attention ")} == {
        "flash", "efficient", "math", "efficient_float32",
    }  # fmt: skip
    assert set(names[-7:]) == {"pointwise", "norm", "copy", "pinned", "pageable", "back", "reused"}


@module.undisturbed("cpu")
def test_sizes_that_take_too_long_or_too_much_are_left_out():
    clock = Ticking("cpu", budget_s=1.0)
    works = [
        work.Work(amount, needed_bytes, lambda: None) for amount, needed_bytes in ((1, 1), (100, 1), (1e6, 1), (1, 1))
    ]
    assert [timed.amount for timed in climbed(clock, works, CPU, "products float32")] == [1, 100]
    small = CPU.model_copy(update={"free_bytes": 40})
    works = [work.Work(1, needed_bytes, lambda: None) for needed_bytes in (10, 11, 1)]
    assert len(climbed(clock, works, small, "products float32")) == 1


@pytest.mark.parametrize(("name", "precision"), [("products tf32", "tf32"), ("products float32", "ieee")])
@module.undisturbed("cpu")
def test_tf32_is_set_for_what_is_to_use_it(name, precision):
    seen = []
    one = work.Work(1, 1, lambda: seen.append(torch.backends.cuda.matmul.fp32_precision))
    climbed(Ticking("cpu", budget_s=1.0), [one], CPU, name)
    assert seen == [precision]


@pytest.mark.parametrize(
    ("works", "size"),
    [
        (work.products("cpu", "float32"), 64 * 64),
        (work.convolutions("cpu", "bfloat16", channels_last=True), 64 * 16 * 16),
        (work.convolutions("cpu", "float32", channels_last=False), 64 * 16 * 16),
        (work.attentions("cpu", "float32", "cpu"), 2 * 8 * 1024 * 64),
        (work.attentions("cpu", "float32", "math"), 2 * 8 * 1024 * 64),
        (work.pointwise("cpu", "float32"), 2 * 320 * 64 * 64),
        (work.norms("cpu", "float32"), 2 * 320 * 64 * 64),
        (work.copies("cpu", "float32"), 2 * 320 * 64 * 64),
        (work.moves("cpu", "back"), 64 * 2**20),
        (work.moves("cpu", "pageable"), 64 * 2**20),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_work_is_what_it_says(works, size):
    first = next(works)
    assert first.make()().numel() == size
    assert first.amount > 0 < first.needed_bytes


def test_bytes_are_those_that_are_read_and_written():
    moved = [one.amount / (2 * 320 * 64 * 64 * 4) for one in work.copies("cpu", "float32")]
    assert moved == [2, 4]
    assert next(work.pointwise("cuda:0", "float16")).amount == 2 * (2 * 320 * 64 * 64 * 2)


def test_layers_are_counted_that_are_moved_and_hooked():
    clock = Ticking("cpu", budget_s=1.0)
    moved, hooked = overheads.moved(clock), overheads.hooked(clock)
    assert moved.tensors == 2 * hooked.tensors == 4 * hooked.modules
    assert hooked.call_s == 0  # a clock that always says the same


def test_views_are_no_operators():
    with overheads._counted() as counts:
        image = torch.ones(2, 4)
        (image.view(4, 2).transpose(0, 1) + 1).unsqueeze(0)
        image.add_(1)
        image @ image.mT
    assert counts == {"operators": 4, "products": 1, "convolutions": 0}
