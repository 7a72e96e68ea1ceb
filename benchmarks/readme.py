"""Writes the generated parts of README.md: `python -m benchmarks.readme`, or `--check` to fail where they are stale.

A part stands between `<!-- name:start -->` and `<!-- name:end -->`. The lever table comes from the levers' own summaries, the
first result from the command that is printed above it.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["PARTS", "README", "filled", "stale"]

README = Path(__file__).parents[1] / "README.md"
_COMMAND = 'autotune plan sd15 --gpu "NVIDIA GeForce RTX 3060 12GB" --max-vram 4GB'


def lever_table() -> str:
    """One row a lever, in the order in which levers are applied."""
    from autotune.levers.engine import ORDER

    rows = ["| lever | what it does | gains | costs |", "|---|---|---|---|"]
    rows += [f"| `{lever.name}` | {' | '.join(lever.summary)} |" for lever in ORDER]
    return "\n".join(rows)


def first_result() -> str:
    """The command and what it prints."""
    command = [sys.executable, "-m", *shlex.split(_COMMAND)]
    printed = subprocess.run(command, cwd=README.parent, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line.rstrip() for line in printed.splitlines()]
    return "\n".join(["```text", f"$ {_COMMAND}", *lines, "```"])


def claims() -> str:
    """What diffusers' guide says, and what is predicted."""
    from benchmarks.claims import claims_table

    return claims_table()


def seconds() -> str:
    """The seconds of diffusers' guide, and what is predicted."""
    from benchmarks.guide import guide_tables

    return guide_tables()


def errors() -> str:
    """The figures of the last comparison with published measurements."""
    figures = _last("published")["figures"]
    rows = ["| figure | value |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{name}` | {value:g} |" for name, value in figures.items())])


def this_cpu() -> str:
    """What the last comparison with a calibrated CPU came to."""
    told = [row for row in _last("cpu")["rows"] if row["figure"].startswith(("cpu_latency", "sd15_full"))]
    return "\n".join(
        ["| figure | value | |", "|---|---|---|", *("| `{figure}` | {value:.1f} | {what} |".format(**r) for r in told)]
    )


def _last(name: str) -> dict[str, Any]:
    """The newest results of that benchmark."""
    path = sorted((README.parent / "benchmarks" / "results").glob(f"{name}_*.json"))[-1]
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


PARTS: dict[str, Callable[[], str]] = {
    "plan": first_result, "levers": lever_table, "claims": claims, "seconds": seconds, "cpu": this_cpu, "errors": errors,
}  # fmt: skip
"""What makes each part, by its name in the markers."""


def filled(text: str, name: str) -> str:
    """The text with that part made anew."""
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    made = f"{start}\n{PARTS[name]()}\n{end}"
    text, found = pattern.subn(lambda _: made, text)
    if found != 1:
        raise ValueError(f"README.md has {found} parts {start} ... {end}; it should have one")
    return text


def stale(text: str) -> list[str]:
    """The names of parts that would come out otherwise now."""
    return [name for name in PARTS if filled(text, name) != text]


def main() -> int:
    """Writes or checks the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a part is stale")
    text = README.read_text(encoding="utf-8")
    if parser.parse_args().check:
        old = stale(text)
        if old:
            print(f"README.md is stale in {', '.join(old)}; run `python -m benchmarks.readme`")
        return int(bool(old))
    for name in PARTS:
        text = filled(text, name)
    README.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
