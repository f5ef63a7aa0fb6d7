"""The notebook of the site runs from top to bottom, offline, and shows what its text says."""

import nbformat
import pytest
from documents import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "tutorials" / "notebook.ipynb"


def printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def test_the_notebook_is_committed_as_it_ran():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert NOTEBOOK.stat().st_size < 1_500_000
    assert str(ROOT) not in NOTEBOOK.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) == 3
    (table,) = [printed(cell) for cell in notebook.cells if "before   after" in printed(cell)]
    before, after = (float(word) for word in table.splitlines()[-1].split()[-2:])
    assert after > before + 0.1
