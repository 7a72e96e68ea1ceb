"""The notebooks run from first cell to last, and show what they promise."""

from __future__ import annotations

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook extra is not installed")
nbclient = pytest.importorskip("nbclient", reason="the notebook extra is not installed")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
TIMEOUT_S = 120


def has_points(trace):
    x = trace.get("x")
    return bool(x["bdata"] if isinstance(x, dict) else x)  # plotly packs arrays as base64


def test_there_are_notebooks():
    assert [path.name for path in NOTEBOOKS] == ["pareto_fronts.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_without_outputs(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_first_cell_says_simulated(path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert "simulated" in first.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_draws(path):
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=TIMEOUT_S, kernel_name="python3", resources=where).execute()
    figures = [
        output.data[PLOTLY]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if PLOTLY in output.get("data", {})
    ]
    assert len(figures) >= 4
    for figure in figures:
        assert any(has_points(trace) for trace in figure["data"]), figure["layout"].get("title")


def test_fronts_come_from_autotune():
    """Figures are asked of `autotune.explore`; a cell that holds a size or a time of its own would go stale."""
    notebook = nbformat.read(ROOT / "notebooks" / "pareto_fronts.ipynb", as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert "autotune.explore(" in source
    assert "front.best(" in source
    assert "to_study(" in source
