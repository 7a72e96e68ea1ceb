"""`autotune probe`: what this machine is, as autotune sees it, and what its device sustains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autotune.cli.options import AsJson

if TYPE_CHECKING:
    from autotune.records.device import Device
    from autotune.records.host import Host
    from autotune.records.speed import Speed

__all__ = ["probe"]

_NOT_COMPILED = (
    "the allocator in C was not built when autotune was installed (is there a C compiler?): memory is replayed in Python, "
    "with the same answers, and planning takes many times as long"
)

Calibrate = Annotated[
    bool,
    typer.Option(
        "--calibrate",
        help="Measure what the device that is used here sustains, some 15 seconds, and remember it for later predictions.",
    ),
]


def probe(*, calibrate: Calibrate = False, as_json: AsJson = False) -> None:
    """Devices, memory and packages of this machine."""
    from autotune import __version__
    from autotune.cli.payload import print_json
    from autotune.flow.speeds import with_speed
    from autotune.probe.gpu import devices, local_device, unsupported
    from autotune.probe.host import host, name_clash
    from autotune.simulate.heap import IS_COMPILED

    cards, here, machine, clash, others = devices(), local_device(), host(), name_clash(), unsupported()
    here = _calibrated(here, silent=as_json) if calibrate else with_speed(here)
    if not as_json:
        slow = () if IS_COMPILED else (_NOT_COMPILED,)
        _show(cards, here, machine, [*([clash] if clash else []), *others, *slow])
        if calibrate:
            _show_speed(here)
        return
    answer: dict[str, Any] = {
        "autotune": __version__,
        "devices": [card.model_dump(mode="json") for card in cards],
        "used": here.model_dump(mode="json"),
        "host": machine.model_dump(mode="json"),
        "name_clash": clash,
        "unsupported": others,
        "compiled_allocator": IS_COMPILED,
    }
    if calibrate:
        answer["believed"] = _believed(here).model_dump(mode="json")
    print_json(answer)


def _calibrated(device: Device, *, silent: bool) -> Device:
    """Measured and remembered. Standard error says what is measured, for where there is no card it is the CPU."""
    from autotune.flow.speeds import calibrated
    from autotune.report.progress import watched

    if device.kind == "cpu" and not silent:
        typer.echo(f"no CUDA device can be used here ({'; '.join(device.notes[1:])}): measuring the CPU", err=True)
    with watched(f"measuring {device.name}", silent=silent) as report:
        return calibrated(device, progress=report)


def _believed(device: Device) -> Speed:
    from autotune.simulate.speed import sustained

    return sustained(device.model_copy(update={"speed": None}))


def _show_speed(device: Device) -> None:
    from autotune.cli.show import page, show_table
    from autotune.report.speeds import speed_rows

    if device.speed is None:
        typer.echo("nothing could be measured; predictions go by the architecture, as before", err=True)
        return
    columns = ("what it sustains", ">by its architecture", ">measured", ">ratio")
    show_table(page(), f"{device.name}, measured", columns, speed_rows(device.speed, _believed(device)))


def _show(cards: list[Device], here: Device, machine: Host, sentences: list[str]) -> None:
    from autotune.cli.show import page, say, show_table
    from autotune.units import size

    console = page()
    show_table(
        console,
        "Devices; > is the one that is used here",
        ("", "device", "name", "compute", ">memory", ">free", "formats", "link", ">power", "driver", "facts"),
        (_row(device, here) for device in (cards if here.kind == "cuda" else [*cards, here])),
        bold=here.torch_device,
    )
    say(
        console,
        f"host: {machine.os}{' (WSL)' if machine.wsl else ''}, {machine.cores} cores, "
        f"RAM {size(machine.ram_available_bytes)} of {size(machine.ram_total_bytes)} free"
        + (" (container limit)" if machine.cgroup_limit_bytes is not None else ""),
    )
    say(console, "packages: " + ", ".join(f"{name} {version}" for name, version in machine.packages.items()))
    notes = {note: None for device in (*cards, here) for note in device.notes}
    for note in dict.fromkeys([*notes, *sentences]):
        say(console, f"note: {note}")


def _row(device: Device, here: Device) -> tuple[str, ...]:
    from autotune.units import size

    formats = {"tf32": device.supports_tf32, "bf16": device.supports_bf16, "fp8": device.fp8}
    capability = device.compute_capability
    return (
        ">" if device.torch_device == here.torch_device else "",
        device.torch_device,
        device.name,
        "" if capability is None else ".".join(map(str, capability)),
        size(device.total_bytes),
        "" if device.free_bytes is None else size(device.free_bytes),
        " ".join(name for name, supported in formats.items() if supported),
        "" if device.pcie_generation is None else f"PCIe {device.pcie_generation} x{device.pcie_width}",
        "" if device.power_limit_w is None else f"{device.power_limit_w:.0f} W",
        device.driver or "",
        device.source,
    )
