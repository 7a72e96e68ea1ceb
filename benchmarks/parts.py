"""What the documents' generated parts say: tables of levers and options, what commands print, and results as sentences."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args, get_origin, get_type_hints

from benchmarks.residuals import quantile_of

__all__ = [
    "ROOT",
    "bytes_known",
    "cards_listed",
    "first_result",
    "known_in_short",
    "lever_table",
    "models_listed",
    "on_a_card",
    "on_bytes",
    "on_times",
    "option_tables",
    "printed",
    "refusal",
    "this_cpu",
    "times_known",
    "value_table",
]

ROOT = Path(__file__).parents[1]
_COLUMNS = 100  # the width from which each line of an answer takes one row


def printed(command: str, *, language: str = "text", exit_code: int = 0) -> str:
    """A command line of autotune and its standard output, as who has just installed it sees it, in a block of that language.

    It runs outside of the checkout with a cache of its own: nobody's profiles answer but those that ship, none is left behind.

    Raises:
        RuntimeError: it ended otherwise than it should.
    """
    words = shlex.split(command)
    if words[0] != "autotune":
        raise ValueError(f"{command!r} is not a command of autotune")
    with TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "AUTOTUNE_CACHE_DIR": folder,
            "COLUMNS": str(_COLUMNS),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode != exit_code:
        raise RuntimeError(f"`{command}` ended with {done.returncode} and not {exit_code}: {done.stderr.strip()}")
    lines = [line.rstrip() for line in done.stdout.strip("\n").splitlines()]
    shown = [f"$ {command}", *lines] if language == "text" else lines
    return "\n".join([f"```{language}", *shown, "```"])


def first_result() -> str:
    """The README's first command."""
    return printed('autotune plan sd15 --gpu "RTX 3060 12GB" --max-vram 4GB')


def cards_listed() -> str:
    """Cards of one name."""
    return printed('autotune gpus "rtx 4060"')


def models_listed() -> str:
    """Models of one family."""
    return printed("autotune models flux2")


def refusal() -> str:
    """What a program reads where a name is that of two cards."""
    return printed('autotune plan sd15 --gpu "RTX 3060" --json', language="json", exit_code=1)


def lever_table() -> str:
    """One row a lever, in the order in which levers are applied."""
    from autotune.levers.engine import ORDER

    rows = ["| lever | what it does | gains | costs |", "|---|---|---|---|"]
    rows += [f"| `{lever.name}` | {' | '.join(lever.summary)} |" for lever in ORDER]
    return "\n".join(rows)


def value_table() -> str:
    """The values of each lever, in the words of its field."""
    from autotune.cli.levers import lever_descriptions

    rows = [f"| `{name}` | {described} |" for name, described in lever_descriptions().items()]
    return "\n".join(["| lever | values |", "|---|---|", *rows])


def option_tables() -> str:
    """The options of `autotune plan`, group by group."""
    import typer

    from autotune.cli.app import app
    from autotune.cli.call import CallOptions, SetupOptions
    from autotune.cli.options import PlaceOptions, SearchOptions

    hints: dict[str, Any] = {}
    for options in (PlaceOptions, CallOptions, SetupOptions, SearchOptions):
        hints |= get_type_hints(options)
    command: Any = typer.main.get_command(app)
    groups: dict[str, list[str]] = {}
    for option in command.commands["plan"].params:
        if option.param_type_name == "option":
            row = f"| {_usage(option, hints.get(option.name))} | {option.help} |"
            groups.setdefault(option.rich_help_panel or "The answer", []).append(row)
    return "\n\n".join(
        "\n".join([f"**{title}**", "", "| option | |", "|---|---|", *rows]) for title, rows in groups.items()
    )


def _usage(option: Any, hint: Any) -> str:
    """How the option is written: its flags, each with what follows it."""
    value = ""
    if not option.is_flag:
        choices = get_args(hint) if get_origin(hint) is Literal else ()
        number = {int, float} & {hint, *get_args(hint)}
        value = " " + (option.metavar or r"\|".join(choices) or ("N" if number else "TEXT"))
    flags = sorted([*option.opts, *option.secondary_opts], key=len)
    return ", ".join(f"`{flag}{value}`" for flag in flags)


def known_in_short() -> str:
    """The one sentence on errors that a reader of the README needs."""
    figures = _last("published")["figures"]
    return (
        f"Against {figures['memory_records_used']} published peaks and {figures['latency_records_used']} published times: what "
        f"tensors take is {_pct(figures['allocated_median_pct_all'])} off at the median, seconds "
        f"{_pct(figures['latency_median_pct'])}; of {figures['out_of_memory_records']} published runs that ran out of memory "
        f"{_were(figures['false_fits'])} said to fit."
    )


def bytes_known() -> str:
    """Errors of bytes, as sentences."""
    return "\n".join(f"- {sentence}" for sentence in on_bytes(_last("published")["figures"]))


def on_bytes(figures: dict[str, Any]) -> Iterator[str]:
    """A sentence for each thing that is known of bytes, from the figures of `benchmarks.published`."""
    yield (
        f"**Tensors.** The *allocated* peak is {_pct(figures['allocated_median_pct_all'])} off at the median of "
        f"{figures['allocated_clusters']} settings (repeats count once), and {_pct(figures['allocated_p90_pct_sm70'])} or less "
        f"for nine of ten on cards with tensor cores."
    )
    yield (
        f"**What torch holds.** The *reserved* peak, with what the allocator keeps beyond the tensors, is "
        f"{_pct(figures['reserved_median_pct'])} off at the median of {figures['reserved_clusters']} settings."
    )
    yield (
        f"**Does it fit?** Of {figures['out_of_memory_records']} runs that ran out of memory, "
        f"{_were(figures['false_fits'])} predicted to fit. Of those that went through, {_pct(figures['false_ooms_pct'])} "
        f"were predicted not to."
    )
    yield f"**The error bar** of a peak is {_pct(figures['margin_median_pct'])} of it at the median. A plan fits only with it."
    used, skipped = figures["memory_records_used"], _pct(figures["memory_records_skipped_pct"])
    yield f"{used} measurements were compared; {skipped} of all could not be."


def times_known() -> str:
    """Errors of seconds, as sentences."""
    return "\n".join(f"- {sentence}" for sentence in on_times(_last("published")["figures"]))


def on_times(figures: dict[str, Any]) -> Iterator[str]:
    """A sentence for each thing that is known of seconds, from the same figures."""
    yield (
        f"**A call or a step** is {_pct(figures['latency_median_pct'])} off at the median of {figures['latency_clusters']} "
        f"settings, and {_pct(figures['latency_p90_pct'])} or less for nine of ten; with offload "
        f"{_pct(figures['offload_latency_median_pct'])} at the median."
    )
    yield (
        f"**Which of two settings is faster, and by how much,** is what a plan is chosen by: the ratio of two on one card is "
        f"{_pct(figures['ratio_median_pct'])} off at the median, {_pct(figures['ratio_p90_pct'])} or less for nine of ten."
    )
    yield (
        f"**Choosing by prediction** among the published settings of a card took {_pct(figures['regret_median_pct'])} longer "
        f"than the fastest of them at the median, and {_pct(figures['regret_max_pct'])} at worst."
    )
    used, skipped = figures["latency_records_used"], _pct(figures["latency_records_skipped_pct"])
    yield f"{used} measurements were compared; {skipped} of all could not be."


def this_cpu() -> str:
    """What the last comparison with a calibrated CPU came to."""
    told = {row["figure"]: row for row in _last("cpu")["rows"]}
    middle, worst, step = (
        told[name] for name in ("cpu_latency_median_pct", "cpu_latency_worst_pct", "sd15_full_step_s")
    )
    how_many, _, which = worst["what"].removeprefix("largest error of ").partition(": ")
    return (
        f"The {how_many} are {_pct(middle['value'])} off at the median, {_pct(worst['value'])} at worst (`{which}`). A step of "
        f"full-size Stable Diffusion 1.5 took {step['value']:.1f} s ({step['what']})."
    )


def on_a_card() -> str:
    """What was predicted for a card that nobody had measured, beside what it counted then."""
    content = _last("h200")
    calls = [part for part in content["parts"] if "steady" in part.get("measured", {})]
    device = content["environment"]["device"]["name"]
    lines = ["| | median | 9 of 10 within | lowest | highest |", "| --- | --- | --- | --- | --- |"]
    for what, field in (("allocated", "allocated_bytes"), ("reserved", "reserved_bytes"), ("process", "process_bytes")):
        errors = [100 * (p["predicted"]["steady"][field] / p["measured"]["steady"][field] - 1) for p in calls]
        lines.append(_spread(f"{what} memory", errors))
    lines.append(_spread("seconds of a call", [part["seconds"]["call_error_pct"] for part in calls]))
    models = ", ".join(dict.fromkeys(part["model"] for part in calls))
    said = f"{len(calls)} plans of {models} on an {device}, torch {content['environment']['torch']}:"
    return "\n".join([said, "", *lines])


def _spread(what: str, errors: list[float]) -> str:
    away = [abs(error) for error in errors]
    figures = f"{_pct(median(away))} | {_pct(quantile_of(away, 0.9))} | {min(errors):+.1f} % | {max(errors):+.1f} %"
    return f"| {what} | {figures} |"


def _pct(value: float) -> str:
    """Two digits, and none where there is nothing."""
    digits = 2 if 0 < value < 0.995 else 1 if 0 < value < 9.95 else 0
    return f"{value:.{digits}f} %"


def _were(count: int) -> str:
    return "none was" if count == 0 else f"{count} {'was' if count == 1 else 'were'}"


def _last(name: str) -> dict[str, Any]:
    """The newest results of that benchmark."""
    path = sorted((ROOT / "benchmarks" / "results").glob(f"{name}_*.json"))[-1]
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
