"""The notebook of the repository runs from top to bottom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "scripts" / "questions.ipynb"


def cells_of(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_the_notebook_executes(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    options = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=options).execute()
    shown = [output for cell in cells_of(notebook) for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    kinds = {kind for output in shown if "data" in output for kind in output.data}
    assert {"text/html", "image/png", "text/plain"} <= kinds


def test_the_notebook_is_kept_without_outputs() -> None:
    """So that it changes only where its text or its code does."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in cells_of(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None)
