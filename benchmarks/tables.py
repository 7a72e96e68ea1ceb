"""What every benchmark shares: one row for each measurement, a table for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from autotune.cli.show import page, show_table

__all__ = ["Row", "json_argument", "publish"]


class Row(NamedTuple):
    """One measurement, made several times."""

    figure: str
    """Its name, which ends in the unit: `_s` seconds, `_mb` 10^6 bytes."""
    repeats: tuple[float, ...]
    """Every measured value, in the order of measuring."""
    what: str
    """How it was measured."""
    headline: bool = True
    """Whether it is one of the benchmark's figures, or only backs one."""

    @property
    def value(self) -> float:
        """The median."""
        return median(self.repeats)


def json_argument(description: str) -> Path | None:
    """The path given with `--json`, a benchmark's only option."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write figures and rows to this file")
    path: Path | None = parser.parse_args().json
    return path


def publish(title: str, rows: Sequence[Row], json_path: Path | None) -> None:
    """Prints the rows as a table and writes them as `{"figures": {...}, "rows": [...]}` where a path is given."""
    cells = (
        (row.figure, f"{row.value:.3f}", " ".join(f"{value:.3f}" for value in row.repeats), row.what) for row in rows
    )
    show_table(page(), title, ("figure", ">median", ">repeats", "how"), cells)
    if json_path is not None:
        figures = {row.figure: row.value for row in rows if row.headline}
        listed = [{**row._asdict(), "value": row.value} for row in rows]
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps({"figures": figures, "rows": listed}, indent=2) + "\n", encoding="utf-8")
