"""Runs the notebooks and stores them with what they show: `python -m benchmarks.notebooks`.

With `--check` it writes nothing, and fails where a notebook is stale. What differs from run to run is left out: times of
execution, versions of the kernel, and standard error with its progress.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbclient import NotebookClient

from benchmarks.parts import ROOT

__all__ = ["NOTEBOOKS", "PLOTLY", "executed", "read", "shown"]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
_KEPT = ("text/plain", "text/html", "image/png", PLOTLY)  # of what a cell shows
_DIGITS = 6  # of figures that are compared


def read(path: Path) -> Any:
    """A notebook as it is stored."""
    return nbformat.read(path, as_version=4)


def executed(path: Path, *, timeout_s: int = 600) -> Any:
    """The notebook after a run from its first cell to its last, as it is to be stored.

    Args:
        path: the notebook.
        timeout_s: seconds that a cell may take.
    """
    notebook = read(path)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=timeout_s, kernel_name="python3", resources=where, record_timing=False).execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_stored(output) for output in cell.outputs if output.output_type != "stream"]
    return notebook


def _stored(output: Any) -> Any:
    """An output without what nobody looks at: a figure's text is its address in memory."""
    figure = PLOTLY in output.data
    kept = [kind for kind in _KEPT if kind in output.data and (kind == PLOTLY or not figure)]
    return nbformat.from_dict({**output, "data": {kind: output.data[kind] for kind in kept}, "metadata": {}})


def shown(notebook: Any) -> list[list[Any]]:
    """What each code cell shows, to be compared: text as it is, figures by the name and the points of each of their traces."""
    return [
        [
            _points(output.data[PLOTLY]) if PLOTLY in output.data else output.data.get("text/plain")
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _points(figure: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [(trace.get("name"), _numbers(trace.get("x")), _numbers(trace.get("y"))) for trace in figure["data"]]


def _numbers(axis: Any) -> list[Any]:
    """The values along an axis, which plotly may have packed."""
    if isinstance(axis, Mapping):
        axis = np.frombuffer(base64.b64decode(axis["bdata"]), dtype=axis["dtype"]).tolist()
    return [float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value for value in axis or ()]


def main() -> int:
    """Writes or checks the notebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a notebook is stale")
    check, stale = parser.parse_args().check, False
    for path in NOTEBOOKS:
        new = executed(path)
        if shown(new) != shown(read(path)):
            stale = True
            print(f"{path.name} is stale; run `python -m benchmarks.notebooks`" if check else f"wrote {path.name}")
        if not check:
            nbformat.write(new, path)
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main())
