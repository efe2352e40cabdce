"""Answers are found where students write them, and nothing of theirs is lost on the way to the marker."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given as generated
from hypothesis import settings
from hypothesis import strategies as st
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell

from labkit.classroom.grading.book import Book
from labkit.classroom.grading.cells import Given, read_handed
from labkit.classroom.grading.match import Matched, match
from labkit.classroom.grading.restored import restored

NAME = "07_means"
OPEN, CODE, TESTS = "exercise-7-4", "exercise-7-1", "tests-7-1"
TEXT = "The outlier pulls the mean; a median would stay."
MEAN = "def mean(values):\n    return math.fsum(values) / len(values)"
PICTURE = {"pasted.png": {"image/png": "iVBORw0KGgo="}}


@pytest.fixture(scope="module")
def given(released: Path) -> Given:
    return Book(released).load(NAME)


@pytest.fixture
def notebook(released: Path) -> NotebookNode:
    return nbformat.read(released / "release" / NAME / f"{NAME}.ipynb", as_version=4)


def grade_id(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def at(notebook: NotebookNode, name: str) -> int:
    return next(i for i, cell in enumerate(notebook.cells) if grade_id(cell) == name)


def laid(notebook: Any, given: Given, tmp_path: Path) -> Matched:
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return match(read_handed(path), given)


def fill(notebook: NotebookNode, name: str, source: str) -> None:
    notebook.cells[at(notebook, name)].source = source


def beside(notebook: NotebookNode, name: str, cell: NotebookNode, above: bool = False) -> None:
    notebook.cells.insert(at(notebook, name) + (not above), cell)


def turned(notebook: NotebookNode, name: str, kind: str) -> None:
    old = notebook.cells[at(notebook, name)]
    new = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}[kind](old.source)
    new.metadata, new["id"] = old.metadata, old.id
    notebook.cells[at(notebook, name)] = new


def split(notebook: NotebookNode, name: str, first: str, second: str, which: str) -> None:
    """As JupyterLab does, with the metadata in both halves, or in one."""
    place = at(notebook, name)
    old = notebook.cells[place]
    halves = [copy.deepcopy(old), copy.deepcopy(old)]
    for half, source, keeps in zip(halves, (first, second), ("first", "second"), strict=True):
        half.source = source
        if which not in (keeps, "both"):
            half.metadata, half["id"] = NotebookNode(), f"{keeps}-half"
    notebook.cells[place : place + 1] = halves


def stripped(notebook: NotebookNode) -> None:
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell["id"] = NotebookNode(), f"new{number}"


def question(notebook: NotebookNode) -> None:
    notebook.cells[at(notebook, OPEN) - 1].source += f"\n\n{TEXT}"


WRITTEN: dict[str, Callable[[NotebookNode], Any]] = {
    "in its cell": lambda n: fill(n, OPEN, TEXT),
    "in a cell below": lambda n: beside(n, OPEN, new_markdown_cell(TEXT)),
    "in a cell above": lambda n: beside(n, OPEN, new_markdown_cell(TEXT), above=True),
    "in a raw cell below": lambda n: beside(n, OPEN, new_raw_cell(TEXT)),
    "as a comment in a code cell below": lambda n: beside(n, OPEN, new_code_cell(f"# {TEXT}")),
    "as prose in a code cell below": lambda n: beside(n, OPEN, new_code_cell(TEXT)),
    "under the question": question,
    "in the first half": lambda n: split(n, OPEN, TEXT, "*Your answer.*", "both"),
    "in the second half": lambda n: split(n, OPEN, "*Your answer.*", TEXT, "both"),
    "in the half that lost its mark": lambda n: split(n, OPEN, TEXT, "*Your answer.*", "second"),
    "in the new half": lambda n: split(n, OPEN, "*Your answer.*", TEXT, "first"),
    "in a cell turned to code": lambda n: (fill(n, OPEN, TEXT), turned(n, OPEN, "code")),
    "in a cell turned to raw": lambda n: (fill(n, OPEN, TEXT), turned(n, OPEN, "raw")),
    "at the top of the notebook": lambda n: n.cells.insert(0, new_markdown_cell(TEXT)),
    "under another exercise": lambda n: beside(n, CODE, new_markdown_cell(TEXT)),
    "in a locked cell": lambda n: fill(n, TESTS, f"# {TEXT}"),
    "with its cell deleted": lambda n: n.cells.__setitem__(at(n, OPEN), new_markdown_cell(TEXT)),
}


@pytest.mark.parametrize("strip", [False, True], ids=["", "stripped"])
@pytest.mark.parametrize("where", WRITTEN)
def test_a_written_answer_is_to_be_marked_wherever_it_stands(
    notebook: NotebookNode, given: Given, tmp_path: Path, where: str, strip: bool
) -> None:
    """It got 0 points, *complete*, "not answered", and nobody read it."""
    WRITTEN[where](notebook)
    if strip:
        stripped(notebook)
    matched = laid(notebook, given, tmp_path)
    assert matched.is_written(OPEN) != matched.in_doubt(OPEN)
    assert TEXT in (matched.source(OPEN) or "")


def test_a_picture_alone_is_an_answer(notebook: NotebookNode, given: Given, tmp_path: Path) -> None:
    """A photograph of a page written by hand, pasted below the placeholder: it was "not answered"."""
    notebook.cells[at(notebook, OPEN)]["attachments"] = PICTURE
    assert laid(notebook, given, tmp_path).is_written(OPEN)


NOTHING: dict[str, Callable[[NotebookNode], Any]] = {
    "as given out": lambda n: None,
    "its cell deleted": lambda n: n.cells.pop(at(n, OPEN)),
    "its cell emptied": lambda n: fill(n, OPEN, "  \n"),
    "an empty cell below": lambda n: beside(n, OPEN, new_markdown_cell("")),
    "blanks at the end of lines": lambda n: fill(n, OPEN, "*Your answer.*  \n"),
    "code for another exercise": lambda n: (fill(n, CODE, MEAN), beside(n, CODE, new_code_cell("mean([1])"))),
    "cells in another order": lambda n: n.cells.insert(0, n.cells.pop(3)),
}


@pytest.mark.parametrize("strip", [False, True], ids=["", "stripped"])
@pytest.mark.parametrize("what", NOTHING)
def test_where_nothing_is_written_nobody_is_asked_to_read(
    notebook: NotebookNode, given: Given, tmp_path: Path, what: str, strip: bool
) -> None:
    """A doubt about every notebook would be no help."""
    NOTHING[what](notebook)
    if strip:
        stripped(notebook)
    matched = laid(notebook, given, tmp_path)
    assert not matched.is_written(OPEN) and not matched.in_doubt(OPEN)


@pytest.mark.parametrize("which", ["both", "first", "second"])
@pytest.mark.parametrize("name", [CODE, OPEN])
def test_all_halves_of_a_split_cell_are_shown_and_run(
    notebook: NotebookNode, given: Given, tmp_path: Path, name: str, which: str
) -> None:
    """Feedback showed one, and said that it alone counts."""
    first, second = (
        ("total = math.fsum", MEAN.replace("math.fsum", "total")) if name == CODE else ("A.", "B.")
    )
    split(notebook, name, first, second, which)
    matched = laid(notebook, given, tmp_path)
    assert matched.source(name) == f"{first}\n\n{second}"
    assert any("all of them count" in note for note in matched.notes)
    task = next(task for task in given.tasks if task.id == TESTS)
    ran = [matched.cells[i].source for i in matched.program(task)]
    assert name == OPEN or ran == [first, second]


@pytest.mark.parametrize(
    ("change", "ran"),
    [
        (lambda n: beside(n, TESTS, new_code_cell(MEAN)), True),  # below the tests, its own cell as given out
        (lambda n: fill(n, TESTS, MEAN), True),
        (lambda n: (fill(n, CODE, MEAN), turned(n, CODE, "markdown")), True),
        (lambda n: (fill(n, CODE, MEAN), stripped(n)), True),
        (lambda n: (fill(n, CODE, f"%%time\n{MEAN}"), stripped(n)), True),
        (lambda n: (fill(n, CODE, MEAN), n.cells.insert(0, n.cells.pop(at(n, TESTS)))), True),
        (lambda n: (fill(n, CODE, MEAN), n.cells.pop(at(n, TESTS))), True),
        (lambda n: (fill(n, CODE, "x = 1"), beside(n, TESTS, new_code_cell(MEAN))), False),
    ],
)  # fmt: skip
def test_an_answer_in_code_runs_before_its_tests(
    notebook: NotebookNode, given: Given, tmp_path: Path, change: Callable[[NotebookNode], Any], ran: bool
) -> None:
    """A right function that stands elsewhere was told to have another name."""
    change(notebook)
    matched = laid(notebook, given, tmp_path)
    task = next(task for task in given.tasks if task.id == TESTS)
    index = matched.program(task)
    assert any("math.fsum" in matched.cells[i].source for i in index) == ran
    assert bool(matched.elsewhere("mean", index)) != ran


def test_what_an_answer_needs_from_the_story_runs_and_nothing_else_of_it(
    notebook: NotebookNode, given: Given, tmp_path: Path
) -> None:
    """Story cells take minutes; a helper that a student put into one is needed all the same."""
    fill(notebook, CODE, "def mean(values):\n    story = 1\n    return helper(values)")
    notebook.cells[1].source += "\ndef helper(values):\n    return total(values) / len(values)"
    assert "sum(range(5))" in notebook.cells[1].source
    for source in ("import math as m\ntotal = m.fsum", "unused = 3"):
        story = new_code_cell(source, metadata={"tags": ["story"]})
        notebook.cells.insert(1, story)
    matched = laid(notebook, given, tmp_path)
    task = next(task for task in given.tasks if task.id == TESTS)
    ran = [matched.cells[i].source.splitlines()[0] for i in matched.program(task)]
    assert ran == ["import math as m", "story = sum(range(5)) / 5", "def mean(values):"]


def test_a_story_cell_that_imports_everything_runs_for_a_name_that_stands_nowhere(
    notebook: NotebookNode, given: Given, tmp_path: Path
) -> None:
    """`from math import *` above the story gave a NameError, which the student never saw."""
    notebook.cells[1].source = f"from math import *\n{notebook.cells[1].source}"
    task = next(task for task in given.tasks if task.id == TESTS)
    for name, ran in (("fsum", 2), ("sum", 1)):
        fill(notebook, CODE, MEAN.replace("math.fsum", name))
        assert len(laid(notebook, given, tmp_path).program(task)) == ran


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        (new_code_cell(MEAN), "another cell that sets `mean` stands below the tests"),
        (new_code_cell("squares = 1\nmean([1])"), ""),
        (new_markdown_cell(f"```python\n{MEAN}\n```"), "another cell that defines `mean` is a text cell"),
        (new_markdown_cell("mean = sum / number"), ""),
    ],
)
def test_a_second_try_that_does_not_run_is_told(
    notebook: NotebookNode, given: Given, tmp_path: Path, cell: NotebookNode, told: str
) -> None:
    """A student who wrote the right answer below the tests read that it is wrong."""
    fill(notebook, CODE, "def mean(values):\n    return 0")
    beside(notebook, TESTS, cell)
    matched = laid(notebook, given, tmp_path)
    task = next(task for task in given.tasks if task.id == TESTS)
    again = matched.again(task.names, matched.program(task))
    assert again.startswith(told) and bool(again) == bool(told)


def test_an_edited_setup_is_put_back_and_what_it_held_runs_behind_it(
    notebook: NotebookNode, given: Given, tmp_path: Path
) -> None:
    """`import numpy as np` in the locked cell cost all exercises that use it."""
    fill(notebook, "setup", f"{notebook.cells[at(notebook, 'setup')].source}\nimport numpy as np")
    matched = laid(notebook, given, tmp_path)
    setup = [cell for cell in matched.cells if cell.source.startswith("import math")]
    assert [cell.role for cell in setup] == ["setup", "own"], setup
    assert "numpy" not in setup[0].source
    task = next(task for task in given.tasks if task.id == TESTS)
    assert any("numpy" in matched.cells[i].source for i in matched.program(task))
    assert any(note.startswith("setup: the locked cell was edited, and put back") for note in matched.notes)


def test_the_marker_opens_the_students_notebook(notebook: NotebookNode, given: Given, tmp_path: Path) -> None:
    """Pictures, outputs and the second half of an answer were gone from it."""
    fill(notebook, OPEN, "![](attachment:pasted.png)")
    notebook.cells[at(notebook, OPEN)]["attachments"] = PICTURE
    fill(notebook, CODE, MEAN)
    chart = new_output("display_data", {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"})
    script = new_output("display_data", {"text/html": "<b>2</b><script>alert(1)</script>", "text/plain": "2"})
    notebook.cells[at(notebook, CODE)].outputs = [chart, script]
    split(notebook, "exercise-7-2a", "first = 1", "second = 2", "both")
    fill(notebook, TESTS, "100")
    notebook.cells.pop(at(notebook, "tests-7-2b"))
    before = [cell.source for cell in notebook.cells]
    made = restored(laid(notebook, given, tmp_path), {TESTS: (3.0, "7.1: 3 of 3 points\n")})
    nbformat.validate(made)
    names = [grade_id(cell) for cell in made.cells if grade_id(cell)]
    assert sorted(names) == sorted(cell.id for cell in given.cells)  # each of them, and once
    assert made.cells[at(made, OPEN)].attachments == PICTURE
    code = made.cells[at(made, CODE)]
    assert code.outputs[0].data["image/png"] == chart.data["image/png"]
    assert "<b>2</b>" in str(code.outputs) and "<script" not in str(code.outputs)
    ours = {source for cell in given.cells for source in (cell.source, cell.visible)}
    kept = [cell.source for cell in made.cells]
    assert [source for source in kept if source not in ours] == [s for s in before if s not in ours]
    tests = made.cells[at(made, TESTS)]
    assert "award(" in tests.source and tests.outputs[-1].data["text/plain"] == "3.0"


SCALARS = st.none() | st.integers() | st.text(max_size=5)
BROKEN = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(st.text(max_size=5), SCALARS, max_size=2)
PARTS = st.sampled_from(["metadata", "outputs", "attachments", "id", "execution_count"])


@settings(max_examples=40, deadline=None)
@generated(part=PARTS, value=BROKEN)
def test_what_is_broken_in_a_cell_costs_that_part_alone(
    given: Given, tmp_path_factory: pytest.TempPathFactory, part: str, value: Any
) -> None:
    """A notebook that is not valid could not be recorded at all."""
    cells = [
        {"cell_type": kind, "source": TEXT, "metadata": {}, part: value} for kind in ("code", "markdown")
    ]
    handed = {"cells": cells, "metadata": value, "nbformat": 4, "nbformat_minor": 5}
    made = restored(laid(handed, given, tmp_path_factory.mktemp("broken")), {})
    nbformat.validate(made)
    assert [cell.source for cell in made.cells].count(TEXT) == 2


def test_the_gradebook_asks_for_a_mark_where_the_answers_own_cell_is_untouched(
    notebook: NotebookNode, released: Path, tmp_path: Path
) -> None:
    """nbgrader gives 0 to a cell that is as it was given out, whatever stands below it."""
    shutil.copytree(released, tmp_path / "course")
    book = Book(tmp_path / "course")
    given = book.load(NAME)
    points = {task.id: (0.0, "0\n") for task in given.tasks if not task.by_hand}
    book.record("none", given, laid(notebook, given, tmp_path), points)
    beside(notebook, OPEN, new_markdown_cell(TEXT))
    book.record("below", given, laid(notebook, given, tmp_path), points)
    notebook.cells.pop(at(notebook, OPEN) + 1)
    fill(notebook, OPEN, "")
    book.record("emptied", given, laid(notebook, given, tmp_path), points)
    marks = {name: (book.marks(name, given) or {})[OPEN] for name in ("none", "below", "emptied")}
    for name in ("none", "emptied"):
        assert (marks[name].open, marks[name].score) == (False, 0.0)
    assert (marks["below"].open, marks["below"].score) == (True, None)
    made = nbformat.read(tmp_path / "course" / "autograded" / "below" / NAME / f"{NAME}.ipynb", as_version=4)
    assert TEXT in [cell.source for cell in made.cells]
