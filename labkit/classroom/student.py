"""The students' version of a notebook: the story with its figures, and the exercises open.

Nothing of a solution or a hidden test is in it. The cells under *Then* call the student's own functions,
below `if solved(confusion):`, which says in one line that it waits while that exercise is open. A wrong
answer may raise there; the tag `raises-exception` keeps "Run All" going.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Mapping

from nbformat import NotebookNode

from labkit.classroom.cells import Exercise, Sheet, parse, read_sheet, tags
from labkit.classroom.grading.code import defined, used

__all__ = ["import_what_is_used", "indented", "opened", "student_version"]

NOTE = "exercises-note"  # The tag of the paragraph that says where solutions and tests are.
_NOTES = {
    True: (
        "*Run All* never stops here, whether a task is solved or not. Write your answer where `raise "
        "NotImplementedError` stands; the line `check(...)` below it runs its tests. The cells under *Then* "
        "call your functions, and wait until they are there. `labkit get --solutions` has all solutions."
    ),
    False: (
        "*Run All* never stops here, whether a task is solved or not. Write your answer where `raise "
        "NotImplementedError` stands; the example below it tells whether you have read the task right, and "
        "the tests run when your work is graded. The cells under *Then* call your functions, and wait until "
        "they are there."
    ),
}


def student_version(notebook: NotebookNode, *, checks: bool) -> NotebookNode:
    """A notebook as students get it; the one given stays as it is.

    Args:
        notebook: with tagged cells, see `labkit.classroom.cells`.
        checks: whether a line ``check("5.1", confusion)`` stands where the tests were. It runs those that
            come with the installed labkit; for a release it must not be there.

    Raises:
        ValueError: the notebook is malformed; the message says where.
    """
    sheet = read_sheet(notebook)
    result = opened(notebook, sheet, checks=checks)
    gone = {exercise.solution for exercise in sheet.exercises} | set(sheet.asides)
    for exercise in sheet.exercises:
        if exercise.tests is None:
            continue
        if checks:
            _check_line(result.cells[exercise.tests], exercise)
        else:
            gone.add(exercise.tests)
    left = [cell for place, cell in enumerate(result.cells) if place not in gone]
    import_what_is_used(result.cells[sheet.setup], left)
    result.cells = left
    return result


def opened(notebook: NotebookNode, sheet: Sheet, *, checks: bool) -> NotebookNode:
    """A copy, cell by cell, in which *Then* waits for the student's functions; solutions are still in.

    Args:
        notebook: with tagged cells.
        sheet: its exercises.
        checks: as `student_version` takes it.

    Returns:
        The copy.

    Raises:
        ValueError: a cell *Then* gives the name of a student's function to something else.
    """
    result = copy.deepcopy(notebook)
    _clean(result)
    waits = _waits(notebook, sheet)
    functions = {exercise.function for exercise in sheet.exercises if exercise.function}
    for place, cell in enumerate(result.cells):
        if NOTE in tags(cell):
            cell.source = _NOTES[checks]
        if place in sheet.then:
            tree = parse(notebook, place, f"then-{sheet.then[place]}")
            bound = _stored(tree) & functions
            if bound:
                raise ValueError(f"then-{sheet.then[place]} gives the name {bound.pop()} to something else")
            if waits[place]:
                cell.source = _waiting(cell.source, tree, waits[place])
                cell.metadata["tags"] = [*tags(cell), "raises-exception"]
            cell.source = re.sub(rf"\bsolution_({'|'.join(sorted(functions)) or '-'})\b", r"\1", cell.source)
        elif not any(re.match("(exercise|exercises|solution|tests)-", tag) for tag in tags(cell)):
            continue
        if cell.cell_type == "code":  # What was printed and drawn there belongs to the solutions.
            cell.outputs, cell.execution_count = [], None
    return result


def import_what_is_used(setup: NotebookNode, cells: list[NotebookNode]) -> None:
    """Has the setup import of labkit.classroom.exercises what these cells use, and no more."""
    imports = [
        node for node in ast.parse(setup.source).body
        if isinstance(node, ast.ImportFrom) and node.module == "labkit.classroom.exercises"
    ]  # fmt: skip
    names = {alias.asname or alias.name for node in imports for alias in node.names} | {"check", "solved"}
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "code" and cell is not setup)
    used = sorted(name for name in names if re.search(rf"\b{name}\(", text))
    lines = setup.source.split("\n")
    for node in imports[::-1]:
        lines[node.lineno - 1 : node.end_lineno] = []
    place = imports[0].lineno - 1 if imports else len(lines)
    if used:
        lines.insert(place, f"from labkit.classroom.exercises import {', '.join(used)}")
    setup.source = "\n".join(lines)


def indented(source: str, by: str = "    ") -> str:
    """Python source one level deeper; what stands inside a text of several lines stays where it is."""
    kept: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (is_text or isinstance(node, ast.JoinedStr)) and isinstance(node, ast.expr):
            kept |= set(range(node.lineno + 1, (node.end_lineno or node.lineno) + 1))
    lines = source.split("\n")
    return "\n".join(by + line if line and i not in kept else line for i, line in enumerate(lines, 1))


def _clean(notebook: NotebookNode) -> None:
    """Takes away what jupytext, widgets and our own records left behind."""
    for key in ("jupytext", "widgets", "labkit"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        hidden = {"jupyter"} if any(tag.startswith("tests-") for tag in tags(cell)) else set()
        for key in {"lines_to_next_cell", "lines_to_end_of_cell_marker", "execution", *hidden}:
            cell.metadata.pop(key, None)


def _check_line(cell: NotebookNode, exercise: Exercise) -> None:
    answers = "prediction, observed" if exercise.kind == "prediction" else exercise.function
    cell.source = f'check("{exercise.name}", {answers})'


def _stored(tree: ast.Module) -> set[str]:
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in names if isinstance(node.ctx, ast.Store)}


def _waiting(source: str, tree: ast.Module, functions: tuple[str, ...]) -> str:
    """The cell below `if solved(...):`, with the value of its last line displayed as it was outside."""
    last = tree.body[-1]
    if isinstance(last, ast.Expr):
        called = last.value.func if isinstance(last.value, ast.Call) else None
        shown = isinstance(called, ast.Name) and called.id in ("print", "display")
        if not shown and last.end_lineno is not None:
            lines = source.split("\n")
            end = lines[last.end_lineno - 1].encode()  # Columns count bytes.
            cut = last.end_col_offset or 0
            lines[last.end_lineno - 1] = (end[:cut] + b")" + end[cut:]).decode()
            lines[last.lineno - 1] = "display(" + lines[last.lineno - 1]
            source = "\n".join(lines)
    return f"if solved({', '.join(functions)}):\n{indented(source)}"


def _waits(notebook: NotebookNode, sheet: Sheet) -> Mapping[int, tuple[str, ...]]:
    """Cell under *Then* -> the functions that it calls, or that the cells call on which it builds."""
    of_solution = {f"solution_{exercise.function}": exercise.function for exercise in sheet.exercises}
    order = [exercise.function for exercise in sheet.exercises]
    waits: dict[int, tuple[str, ...]] = {}
    origin: dict[str, int] = {}  # name -> the last cell under Then that gave it a value
    for place in sorted(sheet.then):
        source = notebook.cells[place].source
        own = defined(source)
        read = used(source) - own
        needed = {of_solution[name] for name in read if name in of_solution}
        for name in read & set(origin):
            needed |= set(waits[origin[name]])
        waits[place] = tuple(sorted(needed, key=order.index))
        origin |= dict.fromkeys(own, place)
    return waits
