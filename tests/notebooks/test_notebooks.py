"""Every notebook in the tree: paired, executed since its code changed, small, without widget state or errors.

That their cells still print what is stored is checked by nbval, which plain `pytest` runs on the same files.
"""

from __future__ import annotations

import nbformat
import pytest

from labkit.notebooks import MAX_BYTES, code_hash, find_folder, notebook_paths, problems

try:
    NOTEBOOKS = notebook_paths(find_folder())
except ValueError:
    NOTEBOOKS = []


@pytest.fixture(params=NOTEBOOKS or [None], ids=lambda path: path.stem if path else "none")
def path(request):
    if request.param is None:
        pytest.skip("there is no notebook in notebooks/ yet")
    return request.param


def test_notebook_is_paired_and_without_error_or_warning(path):
    """A half that lags, an error or a warning in an output is published with the notebook."""
    assert [problem for problem in problems(path) if not problem.startswith("stale")] == []


def test_notebook_was_executed_since_its_code_changed(path):
    """nbval does not compare pictures: a stale figure passes it."""
    notebook = nbformat.read(path, as_version=4)
    command = f"python -m labkit.notebooks execute {path.name}"
    assert notebook.metadata.get("labkit", {}).get("executed") == code_hash(notebook), command


def test_notebook_stores_no_widget_state_and_stays_small(path):
    """Stored widget state shows as an error on GitHub; a large file does not show at all."""
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size <= MAX_BYTES


def test_notebook_was_run_from_top_to_bottom(path):
    """Cells run out of order can show results that no reader can repeat."""
    cells = [
        cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code" and cell.source
    ]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1))
