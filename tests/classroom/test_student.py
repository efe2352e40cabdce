"""The students' version: exercises open, the story as it was, nothing of a solution or a hidden test."""

from __future__ import annotations

import copy
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from labkit.classroom import hidden
from labkit.classroom.cells import Sheet, read_sheet, stub, tags
from labkit.classroom.exercises import award, check, solved
from labkit.classroom.instructor import instructor_version
from labkit.classroom.leaks import find_leaks, secrets
from labkit.classroom.release import read_notebook
from labkit.classroom.student import indented, student_version
from labkit.notebooks import find_notebook
from tests.classroom.conftest import LESSON, read

FIVE = range(1, 6)


@cache
def real(number: int) -> tuple[NotebookNode, Sheet]:
    notebook = read_notebook(find_notebook(str(number)))
    return notebook, read_sheet(notebook)


def by_tag(notebook: NotebookNode, tag: str) -> Any:
    return next(cell for cell in notebook.cells if tag in tags(cell))


def run(cells: list[NotebookNode], namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> str:
    """What cells print; a value displayed is printed as well."""
    namespace.setdefault("display", lambda value: sys.stdout.write(f"<{type(value).__name__}>\n"))
    capsys.readouterr()
    for cell in cells:
        exec(compile(cell.source, "<cell>", "exec"), namespace)
    return capsys.readouterr().out


def exercise_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code of a students' version that is not the story's."""
    kept = re.compile("exercises-setup|(exercise|tests|then)-")
    return [c for c in notebook.cells if c.cell_type == "code" and any(kept.match(tag) for tag in tags(c))]


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("number", FIVE)
def test_no_line_of_a_solution_or_hidden_test_is_left(number: int, checks: bool) -> None:
    """The solutions, handed out with the exercises."""
    notebook, sheet = real(number)
    known = secrets(notebook, sheet)
    assert len(known) > 100
    version = student_version(notebook, checks=checks)
    assert find_leaks(version, known) == []
    text = nbformat.writes(version)
    assert "solution_" not in text and "jupytext" not in text and "solution-" not in text


@pytest.mark.parametrize("number", FIVE)
def test_the_story_and_its_figures_are_kept_and_exercises_have_no_output(number: int) -> None:
    """A release without figures, or one that shows what the solutions printed."""
    notebook, sheet = real(number)
    before = copy.deepcopy(notebook)
    version = student_version(notebook, checks=False)
    assert notebook == before
    story = [c for c in notebook.cells if not any("-" in tag for tag in tags(c))]
    kept = [c for c in version.cells if not any("-" in tag for tag in tags(c))]
    assert [(c.source, c.get("outputs")) for c in story] == [(c.source, c.get("outputs")) for c in kept]
    assert sum(len(c.get("outputs", [])) for c in kept) > 10
    assert all(c.outputs == [] for c in exercise_cells(version))
    stubs = [(f"exercise-{e.name}", notebook.cells[e.cell].source) for e in sheet.exercises]
    assert [by_tag(version, tag).source for tag, _ in stubs] == [source for _, source in stubs]


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("number", FIVE)
def test_with_all_exercises_open_it_runs_through_and_says_so_calmly(
    number: int, checks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A red traceback below an exercise that nobody has begun, or a "Run All" that stops there."""
    notebook, sheet = real(number)
    version = student_version(notebook, checks=checks)
    for cell in version.cells:
        if cell.cell_type == "code":
            compile(cell.source, "<cell>", "exec")
    cells = exercise_cells(version)
    if number == 4:  # Its cells under Then use labkit's own functions, and draw: minutes in all.
        cells = [cell for cell in cells if not any(tag.startswith("then-") for tag in tags(cell))]
    said = run(cells, {}, capsys)
    code = [exercise.name for exercise in sheet.exercises if exercise.kind == "code"]
    unsolved = ["{}: not solved yet", "{}: your answer is not solved yet"][: 1 + checks]
    assert [line for line in said.splitlines() if line.endswith("not solved yet")] == [
        line.format(name) for name in code for line in unsolved
    ]
    waiting = 0 if number == 4 else len(sheet.then)
    assert said.count("this cell waits for your ") == waiting
    assert "fails" not in said and "no tests here" not in said


def test_then_cells_wait_for_all_they_build_on(
    lesson: NotebookNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """A NameError, in red, or a figure of nothing, because an earlier cell is still waiting."""
    version = student_version(lesson, checks=False)
    first, second = by_tag(version, "then-7.1"), by_tag(version, "then-7.2")
    assert first.source.splitlines()[0] == "if solved(mean):"
    assert "    display(squares)" in first.source
    assert second.source.splitlines()[0] == "if solved(mean, deviation):"
    assert "raises-exception" in tags(first) and "raises-exception" in tags(second)
    setup = by_tag(version, "exercises-setup")
    assert "from labkit.classroom.exercises import attempt, solved" in setup.source.splitlines()
    namespace: dict[str, Any] = {"deviation": lambda values: 1.0}
    said = run([setup, by_tag(version, "exercise-7.1"), first, second], namespace, capsys)
    assert said.splitlines() == [
        "7.1: not solved yet",
        "this cell waits for your mean",
        "this cell waits for your mean",
    ]
    namespace["mean"] = lambda values: 2.0
    assert run([first, second], namespace, capsys) == "<list>\nlargest square 2.00, deviation 1.00\n"


def test_only_the_untouched_stub_counts_as_open(capsys: pytest.CaptureFixture[str]) -> None:
    """An answer whose figure never comes, or a stub that is called."""

    def untouched(a, b):  # type: ignore[no-untyped-def]
        """What it should do."""
        raise NotImplementedError

    def begun(a, b):  # type: ignore[no-untyped-def]
        if len(a) > 3:
            raise NotImplementedError
        return b

    def short(x):  # type: ignore[no-untyped-def]
        return x + x

    assert not solved(short, untouched)
    assert capsys.readouterr().out == "this cell waits for your untouched\n"
    assert solved(short, begun, len, lambda: 3)
    assert capsys.readouterr().out == ""


def test_then_must_not_use_the_name_of_an_answer_for_something_else() -> None:
    """A cell that overwrites the student's function."""
    text = LESSON.replace("squares = [solution_mean", "mean = squares = [solution_mean")
    with pytest.raises(ValueError, match="then-7.1 gives the name mean to something else"):
        student_version(read(text), checks=False)


def test_solved_exercises_pass_their_checks_and_what_follows_them_runs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A check that rejects the solution, or a cell under Then that only ever worked with the solutions."""
    notebook, sheet = real(3)
    version = student_version(notebook, checks=True)
    cells = []
    for cell in exercise_cells(version):
        cells.append(cell)
        solved = [e for e in sheet.exercises if e.kind == "code" and f"exercise-{e.name}" in tags(cell)]
        for exercise in solved:
            assert exercise.solution is not None
            solution = notebook.cells[exercise.solution].source
            cells.append(NotebookNode(source=solution.replace("solution_", "", 1)))
    said = run(cells, {}, capsys)
    assert [line for line in said.splitlines() if "passes" in line] == [
        f"{e.name}: your answer passes its tests" for e in sheet.exercises if e.kind == "code"
    ]
    assert said.count("<Chart>") == len(sheet.then) == 4
    assert "waits" not in said and "fails:" not in said


def test_check_finds_the_tests_that_come_with_labkit(capsys: pytest.CaptureFixture[str]) -> None:
    """A self-learner who is told nothing, or is stopped by an exercise that is not there."""
    check("5.3", lambda *arguments: 3)
    check("5.2a", lambda G: G.nonsense)
    check("5.5", {"can rise": "no"}, {})
    check("5.9", abs)
    check("77.1", abs)
    check("5.5", 3, 4)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "5.3: your answer fails: T = 0, N = 2, NLα = 1.0: got a int, should be a tensor"
    assert "AttributeError: 'Tensor' object has no attribute 'nonsense'" in said[1]
    assert said[2] == "5.5: prediction: 3 of 4 still to fill: floor, cosine with width, η with width"
    assert "5.9 is no exercise with tests; there is 5.1, 5.2a" in said[5]
    assert said[6] == "77.1: no tests here: no notebook 77 comes with labkit"
    assert said[7] == "5.5: give the two dicts, prediction and observed"


# --- the instructor's version -------------------------------------------------


@pytest.mark.parametrize("number", FIVE)
def test_solutions_get_all_points_in_the_instructors_version(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hidden tests that lack an import or a helper once they stand alone: everybody gets 0 points."""
    notebook, sheet = real(number)
    version = instructor_version(notebook, "name")
    namespace: dict[str, Any] = {}
    run([by_tag(version, "exercises-setup")], namespace, capsys)
    for exercise in sheet.exercises:
        if exercise.kind != "open":
            pair = [by_tag(version, f"{role}-{exercise.name}") for role in ("exercise", "tests")]
            said = run(pair, namespace, capsys)
            gained = exercise.points if exercise.kind == "code" else 0
            assert f"{exercise.name}: {gained} of {exercise.points} points" in said


def test_cells_are_what_nbgrader_and_the_grading_take_them_for(lesson: NotebookNode) -> None:
    """A hidden test that students can edit, or a story that is run for every submission."""
    version = instructor_version(lesson, "07_means")
    found = {
        cell.metadata.nbgrader.grade_id: (
            cell.cell_type,
            *(cell.metadata.nbgrader[kind] for kind in ("grade", "solution", "locked")),
            cell.metadata.nbgrader.get("points"),
        )
        for cell in version.cells
        if "nbgrader" in cell.metadata
    }
    assert found == {
        "setup": ("code", False, False, True, None),
        "exercise-7-1": ("code", False, True, False, None),
        "tests-7-1": ("code", True, False, True, 3),
        "exercise-7-2a": ("code", False, True, False, None),
        "tests-7-2a": ("code", True, False, True, 1),
        "exercise-7-2b": ("code", False, True, False, None),
        "tests-7-2b": ("code", True, False, True, 3),
        "exercise-7-3": ("code", False, True, False, None),
        "tests-7-3": ("code", True, False, True, 2),
        "exercise-7-4": ("markdown", True, True, False, 3),
    }
    story = [cell for cell in version.cells if "story" in tags(cell)]
    assert ["panel" in cell.source for cell in story].count(True) == 1
    assert len(story) == 4 and not any("nbgrader" in cell.metadata for cell in story)
    assert version.metadata["labkit"] == {"assignment": "07_means"}
    shown = by_tag(version, "exercise-7.2a").source
    assert "### BEGIN SOLUTION\n    center = mean(values)\n    return mean([" in shown  # without the prefix
    assert "    # math.fsum loses nothing\n" in by_tag(version, "exercise-7.1").source


@pytest.mark.parametrize(
    "damage",
    [
        "len = sum = max = print = 3",
        "from math import floor as same, ceil as unchanged, pi as math",
        "def grade(*arguments): pass\naward = check_mean = tests_7_1 = grade",
        "import warnings\n\n\ndef mean(values, first=mean):\n    print('x' * 10**5)\n    warnings.warn('!')\n"
        "    return first(values)",
    ],
)
def test_what_a_student_does_to_names_does_not_reach_the_hidden_tests(
    damage: str, lesson: NotebookNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """A right answer that gets 0 points for a variable called `sum` three cells above."""
    version = instructor_version(lesson, "name")
    namespace: dict[str, Any] = {}
    run([by_tag(version, "exercises-setup"), by_tag(version, "exercise-7.1")], namespace, capsys)
    if "math" in damage.split(" ")[:2]:
        namespace["mean"].__globals__.update(math=__import__("math"))
    exec("import math as kept", namespace)
    namespace["mean"] = eval("lambda values, kept=kept: kept.fsum(values) / values.__len__()", namespace)
    exec(damage, namespace)
    said = run([by_tag(version, "tests-7.1")], namespace, capsys)
    assert said == "7.1: 3 of 3 points\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "there is no mean"),
        ("raise NotImplementedError", "is not solved yet"),
        ("return 1.0", "fails: the mean of [5.0]: got 1, should be 5, ratio 0.2"),
        ("return values.nothing", "AttributeError: 'list' object has no attribute 'nothing'"),
        ("raise SystemExit", "fails: it ends the program"),
        ("values[0] = 5.0; return sum(values) / len(values)", "the input numbers is overwritten"),
    ],
)
def test_a_wrong_answer_gets_no_points_and_its_reason(
    answer: str | None, reason: str, lesson: NotebookNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback where a student looks for what to mend."""
    namespace: dict[str, Any] = {}
    if answer is not None:
        exec(f"def mean(values):\n    {answer}", namespace)
    said = run([by_tag(instructor_version(lesson, "name"), "tests-7.1")], namespace, capsys)
    assert said.startswith("7.1: 0 of 3 points: ") and reason in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("prediction", "observed", "points", "reason"),
    [
        ({"mean": 3, "feels": "small"}, {"mean": 9.0, "feels": "large"}, 2, ""),
        ({"mean": 3}, {}, 1, "prediction: 1 of 2 still to fill: feels; observed: 2 of 2 still to fill"),
        ({"mean": 4, "feels": "small"}, {"mean": 9.0, "feels": "large"}, 1, "not right: mean"),
        ({}, {}, 0, "2 of 2 still to fill"),
        ([], None, 0, "should be dicts"),
    ],
)
def test_a_prediction_gets_half_for_filling_in_and_half_for_what_is_provable(
    prediction: Any, observed: Any, points: int, reason: str, lesson: NotebookNode,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Points for a dict that a student has emptied: the items asked for are the stub's."""
    namespace = {"prediction": prediction, "observed": observed}
    said = run([by_tag(instructor_version(lesson, "name"), "tests-7.3")], namespace, capsys)
    assert said.startswith(f"7.3: {points} of 2 points") and reason in said


def test_the_value_of_the_graded_cell_is_the_points() -> None:
    """nbgrader reads the points off the cell's value."""
    mean = lambda values: 3.0  # noqa: E731

    def tests() -> Any:
        def check(answer: Any) -> None:
            assert answer is not None

        return check

    globals()["answer_of_a_student"] = mean
    assert award("7.1", tests, "answer_of_a_student", points=3) == 3.0
    assert award("7.1", tests, "nobody", points=3) == 0.0


def test_tests_in_a_function_keep_texts_of_several_lines_and_refuse_what_cannot_stand_there() -> None:
    """A text with other blanks in it than the lecturer wrote."""
    notebook = read(LESSON)
    sheet = read_sheet(notebook)
    part = next(exercise for exercise in sheet.exercises if exercise.name == "7.2b")
    source = hidden.tests_function(notebook, sheet, part)
    assert '    text = """kept\nas it is"""' in source and "import math" in source
    assert "attempt" not in source
    assert indented("if x:\n    y = f'''a\n{b}\n'''") == "    if x:\n        y = f'''a\n{b}\n'''"
    starred = read(LESSON.replace("import math\n", "from math import *\n", 1))
    with pytest.raises(ValueError, match="tests-7.1 cannot stand in a function"):
        hidden.tests_function(starred, read_sheet(starred), sheet.exercises[0])
    assert callable(hidden.carried_tests("5.1")()) and stub is not None


def test_the_carried_tests_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A student works in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    assert callable(hidden.carried_tests("1.2")())
