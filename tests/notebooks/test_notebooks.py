"""Every notebook in the tree: paired, executed since its code changed, small, without widget state or errors.

That their cells still print what is stored is checked by nbval, which plain `pytest` runs on the same files.
"""

from __future__ import annotations

import ast
import base64
import io

import nbformat
import PIL.Image
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


def experiments(path, of):
    """The experiments, as `lab.NAME`, in the code of a notebook: all, or those whose run a panel shows."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    nodes = list(ast.walk(ast.parse("\n".join(cells))))
    calls = {ast.unparse(node): node for node in nodes if isinstance(node, ast.Call) and node.args}
    runs = {
        node.targets[0].id: ast.unparse(node.value.args[0])
        for node in nodes
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in calls
        and isinstance(node.targets[0], ast.Name)
    }  # fmt: skip
    if of == "all":
        return {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)
                and ast.unparse(node.value) == "lab" and node.attr.isupper()}  # fmt: skip
    panels = [node.args[0] for node in calls.values() if ast.unparse(node.func) == "labkit.Panel"]
    return {runs.get(ast.unparse(one)) or ast.unparse(one.args[0]) for one in panels
            if ast.unparse(one) in runs or isinstance(one, ast.Call)}  # fmt: skip


def test_each_experiment_stands_once_under_the_hand_with_a_finished_run(path):
    """A figure that nobody can move; or a panel that shows dashes to who reads without a kernel."""
    if path is not None:
        assert experiments(path, "all") - {"lab.LAB"} == experiments(path, "panel")


def test_code_that_is_shown_fits_the_window(path):
    """A line of which the end is behind the edge, in a window of 1,200 pixels beside the file browser."""
    cells = nbformat.read(path, as_version=4).cells
    shown = [
        cell.source.splitlines()
        for cell in cells
        if cell.cell_type == "code" and not cell.metadata.get("jupyter", {}).get("source_hidden")
    ]
    assert [line for lines in shown for line in lines if len(line) > 96] == []


def test_every_figure_says_in_a_sentence_what_it_shows(path):
    """Settings without a word on what they were set for, or nothing below a picture at all."""
    silent = []
    for place, cell in enumerate(nbformat.read(path, as_version=4).cells):
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                picture = PIL.Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
                says = picture.info.get("Description", "").partition("\n")[0]
                if not says.endswith(".") or says.count(" ") < 3:
                    silent.append((place, says))
    assert silent == []
