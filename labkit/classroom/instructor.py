"""The instructor's version of a notebook, as nbgrader takes it: solutions and hidden tests between marks.

    exercise-5.1   solution cell `exercise-5-1`: the body of the solution between BEGIN and END SOLUTION
    tests-5.1      autograded cell `tests-5-1`, locked: all of it between BEGIN and END HIDDEN TESTS
    exercise-5.6   cell graded by hand, `exercise-5-6`: rubric and answer between BEGIN and END SOLUTION
    setup          locked, `setup`; all other code is tagged "story", and grading skips it

What nbgrader takes out of it leaves the stubs exactly as they are in the notebook.
"""

from __future__ import annotations

import ast
from typing import Any

from nbformat import NotebookNode

from labkit.classroom.cells import OPEN_ANSWER, Exercise, Sheet, parse, read_sheet, stub, tags
from labkit.classroom.hidden import function_name, tests_function
from labkit.classroom.student import import_what_is_used, opened

__all__ = ["STORY", "STUB", "instructor_version"]

STORY = "story"
STUB = "raise NotImplementedError"
_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def instructor_version(notebook: NotebookNode, name: str) -> NotebookNode:
    """A notebook for nbgrader's `source` folder; the one given stays as it is.

    Args:
        notebook: with tagged cells, see `labkit.classroom.cells`.
        name: of the assignment; it is written into the notebook, so that a stray file can be told.

    Raises:
        ValueError: the notebook is malformed; the message says where.
    """
    sheet = read_sheet(notebook)
    result = opened(notebook, sheet, checks=False)
    result.metadata.setdefault("kernelspec", NotebookNode(_KERNEL))
    result.metadata["labkit"] = NotebookNode(assignment=name)
    for cell in result.cells:
        cell.metadata.pop("nbgrader", None)
        if cell.cell_type == "code" and _is_story(cell):
            cell.metadata["tags"] = [*tags(cell), STORY]
    for exercise in sheet.exercises:
        cell = result.cells[exercise.cell]
        if exercise.kind == "open":
            cell.source = _with_rubric(notebook, exercise)
            _mark(cell, f"exercise-{exercise.id}", grade=True, solution=True, points=exercise.points)
            continue
        if exercise.kind == "code":
            cell.source = _with_solution(notebook, sheet, exercise)
        _mark(cell, f"exercise-{exercise.id}", solution=True)
        assert exercise.tests is not None
        tests = result.cells[exercise.tests]
        tests.source = _hidden_tests(notebook, sheet, exercise)
        _mark(tests, f"tests-{exercise.id}", grade=True, locked=True, points=exercise.points)
    _mark(result.cells[sheet.setup], "setup", locked=True)
    gone = {exercise.solution for exercise in sheet.exercises} | set(sheet.asides)
    left = [cell for place, cell in enumerate(result.cells) if place not in gone]
    seen = [cell for cell in left if not any(tag.startswith("tests-") for tag in tags(cell))]
    import_what_is_used(result.cells[sheet.setup], seen)
    result.cells = left
    return result


def _is_story(cell: NotebookNode) -> bool:
    roles = ("exercises-setup", "exercise-", "solution-", "tests-")
    return not any(tag.startswith(roles) for tag in tags(cell))


def _mark(cell: NotebookNode, grade_id: str, points: int | None = None, **kinds: bool) -> None:
    known: dict[str, Any] = {"grade": False, "locked": False, "solution": False, "task": False}
    if points is not None:
        known["points"] = points
    cell.metadata["nbgrader"] = NotebookNode({**known, **kinds, "grade_id": grade_id, "schema_version": 3})


def _with_solution(notebook: NotebookNode, sheet: Sheet, exercise: Exercise) -> str:
    """The stub with the body of the solution in the place of its `raise`."""
    assert exercise.solution is not None
    function = stub(parse(notebook, exercise.cell, f"exercise-{exercise.name}"))
    assert function is not None
    place = function.body[-1].lineno
    lines = notebook.cells[exercise.cell].source.split("\n")
    indent = " " * function.body[-1].col_offset
    body = [f"{indent}### BEGIN SOLUTION", *_body(notebook, sheet, exercise), f"{indent}### END SOLUTION"]
    return "\n".join([*lines[: place - 1], *body, *lines[place:]])


def _body(notebook: NotebookNode, sheet: Sheet, exercise: Exercise) -> list[str]:
    """The lines of a solution below its signature and docstring, comments included."""
    tag = f"solution-{exercise.name}"
    source = notebook.cells[exercise.solution].source
    (function,) = parse(notebook, exercise.solution or 0, tag).body
    assert isinstance(function, ast.FunctionDef)
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not statements:
        raise ValueError(f"{tag} has a docstring and no code")
    lines = source.split("\n")
    start = statements[0].lineno - 1
    while lines[start - 1].strip().startswith("#") or not lines[start - 1].strip():
        start -= 1
    text = "\n".join(lines[start:]).strip("\n")
    for other in sheet.exercises:
        if other.function:
            text = text.replace(f"solution_{other.function}(", f"{other.function}(")
    return text.split("\n")


def _hidden_tests(notebook: NotebookNode, sheet: Sheet, exercise: Exercise) -> str:
    answers = '"prediction", "observed"' if exercise.kind == "prediction" else f'"{exercise.function}"'
    call = f'award("{exercise.name}", {function_name(exercise)}, {answers}, points={exercise.points})'
    plural = "s" * (exercise.points != 1)
    return "\n".join(
        [
            f"# The tests of {exercise.name} ({exercise.points} point{plural}) run when your work is graded.",
            "### BEGIN HIDDEN TESTS",
            tests_function(notebook, sheet, exercise),
            "\n\nfrom labkit.classroom.exercises import award\n",
            call,
            "### END HIDDEN TESTS",
        ]
    )


def _with_rubric(notebook: NotebookNode, exercise: Exercise) -> str:
    rubric = notebook.cells[exercise.solution].source
    region = f"### BEGIN SOLUTION\n{rubric}\n### END SOLUTION"
    return notebook.cells[exercise.cell].source.replace(OPEN_ANSWER, region)
