"""The notebooks are stored with what they show, and a run from first cell to last shows the same."""

from __future__ import annotations

import copy
import re

import pytest

nbformat = pytest.importorskip("nbformat", reason="the notebook extra is not installed")
pytest.importorskip("nbclient", reason="the notebook extra is not installed")

from benchmarks import notebooks  # noqa: E402 - it needs both

TIMEOUT_S = 120
STORED = {path.stem: notebooks.read(path) for path in notebooks.NOTEBOOKS}
PATHS = {path.stem: path for path in notebooks.NOTEBOOKS}
ANY_PATH = re.compile(r"""(?:^|[\s"'(])(?:/(?:home|tmp|root|usr|var|opt|mnt|work|Users)/|[A-Z]:\\\\)""")


def figures_of(notebook):
    return [output.data[notebooks.PLOTLY] for output in outputs_of(notebook) if notebooks.PLOTLY in output.data]


def outputs_of(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_there_are_notebooks():
    assert [path.name for path in notebooks.NOTEBOOKS] == ["pareto_fronts.ipynb"]


@pytest.mark.parametrize("name", STORED)
def test_stored_with_outputs_in_the_order_of_a_fresh_run(name):
    cells = [cell for cell in STORED[name].cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert outputs_of(STORED[name])
    assert {output.output_type for output in outputs_of(STORED[name])} <= {"execute_result", "display_data"}


@pytest.mark.parametrize("name", STORED)
def test_stored_without_what_drifts_or_names_a_machine(name):
    text = PATHS[name].read_text(encoding="utf-8")
    assert ANY_PATH.search(text) is None
    assert set(STORED[name].metadata) == {"kernelspec", "language_info"}
    assert all("execution" not in cell.metadata for cell in STORED[name].cells)


def test_a_path_would_be_found():
    for text in ('"/home/me/x"', "in /tmp/cache", '"C:\\\\\\\\Users"'):
        assert ANY_PATH.search(text), text


@pytest.mark.parametrize("name", STORED)
def test_first_cell_says_simulated(name):
    first = STORED[name].cells[0]
    assert first.cell_type == "markdown"
    assert "simulated" in first.source


@pytest.mark.parametrize("name", STORED)
def test_a_run_shows_what_is_stored(name):
    notebook = notebooks.executed(PATHS[name], timeout_s=TIMEOUT_S)
    assert len(figures_of(notebook)) >= 4
    assert notebooks.shown(notebook) == notebooks.shown(STORED[name]), "run `python -m benchmarks.notebooks`"


@pytest.mark.parametrize("name", STORED)
def test_a_picture_and_figures_with_points_are_stored(name):
    assert any("image/png" in output.data for output in outputs_of(STORED[name]))  # what GitHub can show
    for cell in notebooks.shown(STORED[name]):
        for output in cell:
            assert output if isinstance(output, str) else any(x and y for _, x, y in output)


@pytest.mark.parametrize("name", STORED)
def test_another_figure_is_noticed(name):
    other = copy.deepcopy(STORED[name])
    figures_of(other)[0]["data"][0]["name"] = "another card"
    assert notebooks.shown(other) != notebooks.shown(STORED[name])


def test_fronts_come_from_autotune():
    """Figures are asked of `autotune.explore`; a cell that holds a size or a time of its own would go stale."""
    source = "\n".join(cell.source for cell in STORED["pareto_fronts"].cells if cell.cell_type == "code")
    assert "autotune.explore(" in source
    assert "front.best(" in source
    assert "to_study(" in source
