"""What a device sustains, in words."""

from __future__ import annotations

from autotune.report.speeds import figures, speed_rows
from autotune.simulate.speed import sustained
from tests.unit.handmade import CARD

BASE = sustained(CARD)


def test_every_figure_of_a_speed_has_a_name_of_its_own():
    numbers = BASE.model_dump(exclude={"source"}).values()
    names = [what for what, _, _ in figures(BASE)]
    assert len(names) == len(set(names)) == sum(len(each) if isinstance(each, dict) else 1 for each in numbers)


def test_rows_set_measured_beside_believed():
    products = {**BASE.products_flops_per_s, "float32": 5e12, "new": 1e9}
    changes = {"products_flops_per_s": products, "copy_bytes_per_s": 100e9, "kernel_s": 0.0}
    rows = {
        row[0]: row[1:]
        for row in speed_rows(BASE.model_copy(update=changes), BASE.model_copy(update={"kernel_s": 0.0}))
    }
    believed = BASE.products_flops_per_s["float32"]
    assert rows["matrix products, float32"] == (
        f"{believed / 1e12:.3g} TFLOP/s",
        "5 TFLOP/s",
        f"{5e12 / believed:.2f}x",
    )
    assert rows["matrix products, new"] == ("", "1 GFLOP/s", "")
    assert rows["copies on the device"][1] == "100 GB/s"
    assert rows["a kernel, beside its work"] == ("0 us", "as believed", "")
