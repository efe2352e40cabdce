"""The notebook that a marker opens: the student's, with the assignment's cells and the results in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nbconvert.preprocessors.sanitize import SanitizeHTML
from nbformat import NotebookNode, ValidationError, from_dict, validate
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from labkit.classroom.grading.match import Matched, Placed

_NEW = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}
_FIELDS = {"code": ("outputs", "execution_count", "metadata")}
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def restored(matched: Matched, outputs: Mapping[str, tuple[float, str]]) -> NotebookNode:
    """The notebook as it was handed in, attachments and outputs included.

    Args:
        matched: the submission.
        outputs: grade id of tests -> points, and the line that they print.
    """
    ours = {cell.id: cell for cell in matched.given.cells}
    last = {cell.role: index for index, cell in enumerate(matched.cells)}
    cells = []
    for index, placed in enumerate(matched.cells):
        cell = _as_handed(placed)
        if placed.role in ours and last[placed.role] == index:  # nbgrader takes a grade id once.
            cell.metadata["nbgrader"] = from_dict(dict(ours[placed.role].metadata))
        if placed.role in outputs:
            points, line = outputs[placed.role]
            data = {"text/plain": repr(float(points))}
            cell.outputs = [
                new_output("stream", name="stdout", text=line),
                new_output("execute_result", data, execution_count=1),
            ]
            cell.execution_count = 1
        cells.append(cell)
    made = new_notebook(cells=cells)
    _add(made, "metadata", {"kernelspec": _KERNEL, **matched.metadata}, made)
    return made


def _as_handed(placed: Placed) -> NotebookNode:
    """A cell with whatever of its parts is valid; scripts in its outputs are taken out."""
    cell = _NEW[placed.kind](placed.source)
    alone = new_notebook(cells=[cell])
    if placed.raw.get("cell_type") == placed.kind:
        for name in _FIELDS.get(placed.kind, ("attachments", "metadata")):
            if placed.raw.get(name):
                _add(cell, name, placed.raw[name], alone)
    cell.metadata.pop("nbgrader", None)
    if "outputs" in cell:
        cell.outputs = SanitizeHTML().sanitize_code_outputs(cell.outputs)
    return cell


def _add(part: NotebookNode, name: str, value: Any, notebook: NotebookNode) -> None:
    before = dict(part)
    part[name] = from_dict(value)
    try:
        validate(notebook)
    except (ValidationError, TypeError, ValueError, AttributeError, RecursionError):
        part.clear()
        part.update(before)
