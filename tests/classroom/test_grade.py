"""`labkit assignment grade` on the small course: right, half right and hostile submissions, and mishaps."""

from __future__ import annotations

import copy
import csv
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from labkit.classroom.grading.book import Book, Mark
from labkit.classroom.grading.cells import read_handed
from labkit.classroom.grading.feedback import _cell, page
from labkit.classroom.grading.grade import Graded, Limits, grade, memory_size
from labkit.classroom.grading.match import match
from labkit.classroom.grading.one import Grader
from labkit.classroom.grading.results import Result, TaskResult
from labkit.cli import main

NAME = "07_means"
RIGHT = {
    "exercise-7-1": "import math\ndef mean(values):\n    return math.fsum(values) / len(values)",
    "exercise-7-2a": "def variance(v):\n    m = mean(v)\n    return mean([(x - m) ** 2 for x in v])",
    "exercise-7-2b": "def deviation(v):\n    return variance(v) ** 0.5",
    "exercise-7-3": "prediction = {'mean': 3.0, 'feels': 'large'}\nobserved = dict(prediction)",
    "exercise-7-4": "The outlier. <script>alert('x')</script>",
}
MEAN = "def mean(values):\n    return TOTAL / len(values)"
FLOAT = MEAN.replace("TOTAL", "np.float64(math.fsum(values))")
HELPER = "import math as m\ndef add(values):\n    return m.fsum(values)"
LOOP = """def mean(values):
    while True:
        try:
            while True: pass
        except BaseException: pass"""


def grade_id(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def submission(course: Path, answers: Mapping[str, str]) -> NotebookNode:
    notebook = nbformat.read(course / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = answers.get(grade_id(cell), cell.source)
    return notebook


def place(folder: Path, student: str) -> Path:
    """nbgrader's, with its folder."""
    path = folder / student / NAME / f"{NAME}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def without(notebook: NotebookNode, *ids: str) -> NotebookNode:
    notebook.cells = [cell for cell in notebook.cells if grade_id(cell) not in ids]
    return notebook


def stripped(notebook: NotebookNode, ids: bool) -> NotebookNode:
    """As a platform leaves it that knows no nbgrader."""
    for number, cell in enumerate(notebook.cells):
        cell.metadata = NotebookNode({"id": cell.id} if ids else {})
        cell["id"] = f"new{number}"
    return notebook


def twice(notebook: NotebookNode) -> NotebookNode:
    """Copies of an exercise (the first one wrong) and of its tests."""
    wrong = copy.deepcopy(next(cell for cell in notebook.cells if grade_id(cell) == "exercise-7-1"))
    wrong["id"], wrong.source = "copy1", "def mean(values):\n    return 0"
    tests = copy.deepcopy(next(cell for cell in notebook.cells if grade_id(cell) == "tests-7-1"))
    tests["id"] = "copy2"
    notebook.cells = [wrong, tests, *notebook.cells]
    return notebook


def edited(notebook: NotebookNode) -> NotebookNode:
    for cell in notebook.cells:
        if grade_id(cell).startswith("tests-"):
            cell.source, cell.metadata.nbgrader["points"] = "100", 100
    return notebook


def changed(notebook: NotebookNode, place: int, source: str) -> NotebookNode:
    notebook.cells[place].source += f"\n{source}"
    return notebook


def halved(notebook: NotebookNode, place: int, first: str) -> NotebookNode:
    half = copy.deepcopy(notebook.cells[place])
    half["id"], half.source = "half", first
    notebook.cells.insert(place, half)
    return notebook


def below(notebook: NotebookNode, source: str) -> NotebookNode:
    """A copy of the cell of 7.1 below it, with all that marks it as that cell, and another text."""
    place = next(i for i, cell in enumerate(notebook.cells) if grade_id(cell) == "exercise-7-1")
    cell = copy.deepcopy(notebook.cells[place])
    cell["id"], cell.source = "below", source
    notebook.cells.insert(place + 1, cell)
    return notebook


def added(notebook: NotebookNode, source: str) -> NotebookNode:
    notebook.cells.append(new_code_cell(source))
    return notebook


def old(notebook: NotebookNode) -> dict[str, Any]:
    """As nbformat 3 has it."""
    cells = [{"cell_type": c.cell_type, "input": c.source, "metadata": c.metadata} for c in notebook.cells]
    return {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": cells}]}


# What each student hands in -> the points of 7.1 (3), 7.2a (1), 7.2b (3) and 7.3 (2).
SCORES = {
    "anna": (3, 1, 3, 2),  # right
    "half": (3, 0, 0, 1),
    "released": (0, 0, 0, 0),
    "loops": (0, 1, 3, 2),  # in 7.1; the others do not need it
    "toploop": (3, 1, 3, 2),  # below a right function, and in a cell of its own
    "dies": (0, 1, 3, 2),
    "raises": (3, 1, 0, 2),
    "tampers": (0, 0, 3, 2),
    "renames": (0, 1, 3, 2),
    "syntax": (0, 1, 3, 2),
    "untested": (3, 1, 3, 2),  # all locked cells deleted
    "gone": (0, 0, 0, 0),  # all cells deleted
    "edited": (0, 1, 3, 2),
    "twice": (3, 1, 3, 2),
    "bare": (3, 1, 3, 2),  # no metadata
    "colab": (3, 1, 3, 2),
    "old": (3, 1, 3, 2),
    "timed": (3, 1, 3, 2),  # %%time above a right answer
    "numpy": (3, 1, 3, 2),  # imported in the locked setup
    "halves": (3, 1, 3, 2),  # a cell split in two
    "helped": (3, 1, 3, 2),  # by a function in a cell of the story
    "helpless": (0, 1, 3, 2),  # by a function below the tests
    "spare": (3, 1, 3, 2),  # a copy of the cell, as it was given out, below the answer
    "written": (0, 1, 3, 2),  # to a file, by a magic
    "imported": (3, 1, 3, 2),  # from that file
    "called": (3, 1, 3, 2),  # an object, which is called like a function
    "pasted": (3, 1, 3, 2),  # with the prompts of a terminal, or indented
    "later": (0, 1, 3, 1),  # below the tests: a second try, and what was observed
    "commented": (0, 1, 3, 2),
    "asked": (0, 1, 3, 2),  # what nobody is there to answer
}
OWN = {  # Answers that do not call each other.
    **RIGHT,
    "exercise-7-2a": "def variance(v):\n    return sum((x - sum(v) / len(v)) ** 2 for x in v) / len(v)",
    "exercise-7-2b": "def deviation(v):\n    return (sum((x - sum(v) / 3) ** 2 for x in v) / 3) ** .5",
}
BROKEN = {"html": "<html>Log in</html>", "empty": "", "cut": '{"cells": [{"cell_type": "co', "list": "[1]"}


def hand_in(course: Path, folder: Path) -> None:
    def made(**changed: str) -> NotebookNode:
        return submission(
            course, {**OWN, **{f"exercise-7-{key[1:]}": value for key, value in changed.items()}}
        )

    toploop = made(_1=RIGHT["exercise-7-1"] + "\nwhile True: pass")
    locked = [grade_id(cell) for cell in toploop.cells if grade_id(cell).startswith(("tests", "setup"))]
    ids = [grade_id(cell) for cell in toploop.cells]
    at = ids.index
    patch = (
        "import labkit.classroom.exercises as e, labkit.classroom.answers as a, builtins, math\n"
        "e.award = a.same = e.same = math.isfinite = lambda *_, **__: 9\n"
        "builtins.print = builtins.len = None\n"
    )
    notebooks: dict[str, Any] = {
        "anna": submission(course, RIGHT),
        "half": submission(course, {
            "exercise-7-1": RIGHT["exercise-7-1"],
            "exercise-7-2a": "def variance(v):\n    return 7.0",
            "exercise-7-3": "prediction = {'mean': 3.0}\nobserved = {}",
        }),
        "released": submission(course, {}),
        "loops": made(_1=LOOP),
        "toploop": toploop,
        "dies": made(_1="import os\ndef mean(values):\n    os._exit(0)"),
        "raises": made(_2b="def deviation(v):\n    raise SystemExit(1)\nraise KeyboardInterrupt"),
        "tampers": made(
            _1=patch + "same = grade = award = math = None\ndef mean(values):\n    return 0.0",
            _2a="import os\ntry:\n    os.kill(os.getppid(), 9)\nexcept OSError: pass\nprint('x' * 10**8)",
        ),
        "renames": made(_1="def Mean(values):\n    return sum(values) / len(values)"),
        "syntax": made(_1="def mean(values)\n    return"),
        "untested": without(made(), *locked),
        "gone": without(made(), *ids),
        "edited": edited(made(_1="def mean(values):\n    return 100")),
        "twice": twice(made()),
        "bare": stripped(made(), ids=False),
        "colab": stripped(made(), ids=True),
        "old": old(made()),
        "timed": made(_1="%%time\n" + RIGHT["exercise-7-1"]),
        "numpy": changed(made(_1=FLOAT), at("setup"), "import numpy as np"),
        "halves": halved(made(_1=MEAN.replace("TOTAL", "add(values)")), at("exercise-7-1"), HELPER),
        "helped": changed(made(_1=MEAN.replace("TOTAL", "add(values)")), 1, HELPER),
        "spare": below(made(), submission(course, {}).cells[at("exercise-7-1")].source),
        "written": made(_1=f"%%writefile own.py\n{RIGHT['exercise-7-1']}"),
        "imported": below(made(_1=f"%%writefile own.py\n{RIGHT['exercise-7-1']}"), "from own import mean"),
        "called": made(_1="class Mean:\n    def __call__(self, v):\n        return math.fsum(v) / len(v)\n"
                          "mean = Mean()"),
        "pasted": made(_1=">>> " + RIGHT["exercise-7-1"].replace("\n", "\n... "),
                       _2a="    " + OWN["exercise-7-2a"].replace("\n", "\n    ")),
        "later": added(made(_1="def mean(values):\n    return 0",
                            _3="prediction = {'mean': 3.0, 'feels': 'large'}\nobserved = {}"),
                       f"{RIGHT['exercise-7-1']}\nobserved = dict(prediction)"),
        "commented": made(_1="# def mean(values):\n#     return 0"),
        "asked": made(_1="n = input('how many? ')\n" + RIGHT["exercise-7-1"]),
        "helpless": changed(made(_1=MEAN.replace("TOTAL", "add(values)")), at("exercise-7-2b"), HELPER),
    }  # fmt: skip
    assert notebooks.keys() == SCORES.keys()
    for student, notebook in notebooks.items():
        place(folder, student).write_text(json.dumps(notebook), encoding="utf-8")
    for student, text in BROKEN.items():
        place(folder, student).write_text(text)


@pytest.fixture(scope="module")
def course(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course with a class's submissions beside it."""
    folder = tmp_path_factory.mktemp("graded") / "course"
    shutil.copytree(released, folder)
    (folder / "in").mkdir()
    hand_in(folder, folder / "in")
    return folder


@pytest.fixture(scope="module")
def graded(course: Path) -> Iterator[tuple[Graded, dict[str, dict[str, str]]]]:
    """All of it, graded once. An exercise has 3 s, where the right ones take hundredths."""
    before = {path: path.read_bytes() for path in (course / "in").rglob("*.ipynb")}
    result = grade(course / "in", limits=Limits(15, 2**29))
    assert {path: path.read_bytes() for path in (course / "in").rglob("*.ipynb")} == before
    yield result, scores(course)


def scores(course: Path) -> dict[str, dict[str, str]]:
    with (course / "grades" / NAME / "scores.csv").open(encoding="utf-8", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def feedback(course: Path, student: str) -> str:
    return (course / "grades" / NAME / "feedback" / f"{student}.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("student", SCORES)
def test_each_submission_gets_the_points_of_what_is_right_in_it(
    graded: tuple[Graded, dict[str, dict[str, str]]], student: str
) -> None:
    """One exercise that misbehaves must not cost those of another, nor give what it has not earned."""
    row = graded[1][student]
    assert tuple(float(row[label]) for label in ("7.1", "7.2a", "7.2b", "7.3")) == SCORES[student], row[
        "reason"
    ]
    assert float(row["total"]) == sum(SCORES[student]) and row["of"] == "12"


@pytest.mark.parametrize(
    ("student", "reason"),
    [
        ("half", "7.2b: is not solved yet"),
        ("half", "7.2a: fails: the variance of 1, 2, 6: got 7, should be 4.66667, ratio 1.5"),
        ("loops", "7.1: runs longer than 3 s"),
        ("toploop", "the cell `import math` runs longer than 3 s"),
        ("dies", "7.1: ends Python (exit code 0)"),
        ("raises", "7.2b: fails: SystemExit: 1"),
        ("tampers", "7.2a: there is no `variance`; no cell defines it"),
        ("renames", "7.1: there is no `mean`; no cell defines it"),
        ("syntax", "7.1: there is no `mean`; its cell ends in SyntaxError"),
        ("untested", "tests of 7.1: the cell was missing, and put back"),
        ("helpless", "NameError: name 'add' is not defined, at `return add(values) / len(values)`"),
        ("helpless", "; the cell that defines `add` stands below the tests"),
        ("written", "7.1: there is no `mean`; its cell begins with `%%writefile`, which keeps no names"),
        ("later", "7.1: fails: the mean of [5.0]: got 0, should be 5, ratio 0; another cell that sets `mean` "
                  "stands below the tests"),
        ("later", "2 of 2 still to fill: mean, feels; another cell that sets `observed` stands below"),
        ("commented", "7.1: there is no `mean`; no cell defines it"),
        ("asked", "its cell ends in EOFError: nobody is there to answer while work is graded, at `n ="),
        ("numpy", "setup: the locked cell was edited, and put back"),
        ("edited", "tests of 7.1: the locked cell was edited, and put back"),
        ("twice", "7.1: the answer stands in several cells; all of them count, in their order"),
        ("html", "is a web page"), ("empty", "is empty"), ("cut", "broken"), ("list", "no cells"),
    ],
)  # fmt: skip
def test_the_reason_says_what_happened(
    graded: tuple[Graded, dict[str, dict[str, str]]], student: str, reason: str
) -> None:
    """Points without a reason come back as questions."""
    assert reason in graded[1][student]["reason"]


def test_what_cannot_be_read_stands_in_the_table_without_points(
    graded: tuple[Graded, dict[str, dict[str, str]]], course: Path
) -> None:
    """A nought would pass for a mark."""
    for student in BROKEN:
        row = graded[1][student]
        assert (row["state"], row["total"]) == ("not graded", "")
        assert "Not graded" in feedback(course, student)


def test_marks_by_hand_are_asked_for_where_something_was_written(
    graded: tuple[Graded, dict[str, dict[str, str]]],
) -> None:
    """An untouched answer is worth nothing without anybody reading it."""
    assert (graded[1]["anna"]["state"], graded[1]["anna"]["by_hand"]) == ("to mark", "7.4")
    assert (graded[1]["released"]["state"], graded[1]["released"]["7.4"]) == ("complete", "0")


def test_the_gradebook_has_the_same_marks(
    graded: tuple[Graded, dict[str, dict[str, str]]], course: Path
) -> None:
    """Formgrader reads the gradebook, and shows the autograded notebook."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        for student in SCORES:
            assert book.find_submission(NAME, student).score == float(graded[1][student]["total"])
    notebook = nbformat.read(course / "autograded" / "edited" / NAME / f"{NAME}.ipynb", as_version=4)
    tests = next(cell for cell in notebook.cells if grade_id(cell) == "tests-7-1")
    assert "award(" in tests.source and tests.metadata.nbgrader.points == 3
    assert tests.outputs[-1].data["text/plain"] == "0.0"


def test_feedback_runs_nothing_and_shows_neither_tests_nor_solutions(
    graded: tuple[Graded, dict[str, dict[str, str]]], course: Path
) -> None:
    """It is opened in the browsers of instructors and fellow students."""
    hidden = ["def check_", "tests_7_1", "fsum(numbers)", "1e16", "same(", "award(", "BEGIN", "unchanged"]
    for student in (*SCORES, *BROKEN):
        page = feedback(course, student)
        assert "<script" not in page and "default-src 'none'" in page and "viewport" in page
        assert not any(word in page for word in hidden if student != "tampers"), student
    anna = feedback(course, "anna")
    assert "&lt;script&gt;alert" in anna and "9 of 12" in anna and "Is marked by hand" in anna
    assert "100,000,001 bytes in all" in feedback(course, "tampers")


@pytest.mark.slow
def test_a_second_run_keeps_marks_by_hand_and_runs_what_has_changed(
    graded: tuple[Graded, dict[str, dict[str, str]]], course: Path
) -> None:
    """A mark takes a person minutes; a run that forgets it costs a class's worth of them."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        for task, mark in (("exercise-7-4", 2.5), ("tests-7-1", 1.0)):
            given = book.find_grade(task, NAME, NAME, "anna")
            given.manual_score, given.needs_manual_grade = mark, False
        book.find_comment("exercise-7-4", NAME, NAME, "anna").manual_comment = "Well <b>said</b>"
        book.db.commit()
    changed = submission(course, {**RIGHT, "exercise-7-2b": "def deviation(v):\n    return 0.0"})
    nbformat.write(changed, place(course / "in", "half"))
    lines: list[str] = []
    grade(course / "in", limits=Limits(15, 2**29), tell=lines.append)
    rows = scores(course)
    assert (rows["anna"]["7.4"], rows["anna"]["7.1"], rows["anna"]["total"]) == ("2.5", "1", "9.5")
    assert rows["anna"]["state"] == "complete"
    assert "Well &lt;b&gt;said&lt;/b&gt;" in feedback(course, "anna")
    assert (rows["half"]["7.1"], rows["half"]["7.2b"]) == ("3", "0")
    ran = [line for line in lines if line.startswith("[") and "unchanged" not in line]
    run_again = {line.split("] ")[1].split(":")[0] for line in ran}
    assert run_again == {"half", *BROKEN}

    with_note = submission(course, {**RIGHT, "exercise-7-1": LOOP.replace("while True", "while False")})
    nbformat.write(with_note, place(course / "in", "anna"))
    grade(course / "in", limits=Limits(15, 2**29))
    row = scores(course)["anna"]
    assert (row["7.4"], row["7.1"], row["by_hand"]) == ("2.5", "0", "7.1")
    assert "7.1: An earlier answer had 1 of 3 points" in row["reason"]


def marked(folder: Path, score: float | None = None, comment: str = "") -> tuple[Any, ...]:
    """What the gradebook has for Anna's open question; with a score, marks it as the formgrader does."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{folder / 'gradebook.db'}") as book:
        found = book.find_grade("exercise-7-4", NAME, NAME, "anna")
        said = book.find_comment("exercise-7-4", NAME, NAME, "anna")
        if score is not None:
            found.manual_score, found.needs_manual_grade, said.manual_comment = score, False, comment
            book.db.commit()
        return found.manual_score, found.needs_manual_grade, said.manual_comment, said.comment


def test_a_mark_by_hand_belongs_to_the_text_that_it_was_given_for(released: Path, tmp_path: Path) -> None:
    """Three points and the praise stood under a new text, as if it had been read."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    book = Book(folder)
    given = book.load(NAME)

    def hand_in(text: str, **more: str) -> tuple[Mark, str]:
        """The mark of the open question after a submission, and the page of feedback."""
        answers = {"exercise-7-4": text} | {f"exercise-7-{key}": value for key, value in more.items()}
        path = place(folder / "submitted", "anna")
        nbformat.write(submission(folder, answers), path)
        book.record("anna", given, match(read_handed(path), given), {})
        marks = book.marks("anna", given)
        assert marks is not None
        result = Result("anna", NAME, "x", {task.id: TaskResult(None) for task in given.tasks})
        return marks["exercise-7-4"], page(result, given, marks)

    assert hand_in("The outlier.")[0] == Mark(None, False, True)
    marked(folder, 3.0, "Very <b>good</b>")
    mark, told = hand_in("  The outlier.\n", **{"1": RIGHT["exercise-7-1"]})  # Another answer changes.
    assert mark == Mark(3.0, True, False, "Very <b>good</b>") and "Very &lt;b&gt;" in told

    old = "An earlier answer had 3 of 3 points: Very <b>good</b>"
    for text in ("Something else.", "Something else.", "The median."):
        mark, told = hand_in(text)
        assert mark == Mark(None, False, True, "", old)
        assert marked(folder) == (None, True, None, old)  # In the formgrader, too.
        assert "<b>Comment." not in told and "An earlier answer had 3 of 3 points: Very &lt;b" in told
    marked(folder, 1.0, "Less so")
    mark, told = hand_in("The median.")
    assert mark == Mark(1.0, True, False, "Less so") and "earlier" not in told
    assert hand_in("*Your answer.*")[0].open  # Perhaps the wrong file.


def test_a_mark_that_nbgrader_wants_to_be_looked_at_is_told_as_old(released: Path, tmp_path: Path) -> None:
    """Its own autograde keeps a mark under whatever text comes next, and says so in a flag alone."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    book = Book(folder)
    given = book.load(NAME)
    path = place(folder / "submitted", "anna")
    nbformat.write(submission(folder, RIGHT), path)
    book.record("anna", given, match(read_handed(path), given), {})
    marked(folder, 2.0, "Good")
    with sqlite3.connect(folder / "gradebook.db") as database:
        database.execute("update grade set needs_manual_grade = 1 where manual_score is not null")
    marks = book.marks("anna", given)
    assert marks is not None
    assert marks["exercise-7-4"] == Mark(None, True, True, "", "An earlier answer had 2 of 3 points: Good")
    assert marked(folder)[0] == 2.0


@pytest.mark.slow
def test_an_interrupted_run_leaves_what_is_finished_and_a_later_one_goes_on(
    released: Path, tmp_path: Path
) -> None:
    """Ctrl-C at submission 150 of 200 must cost nothing."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    handed_in = folder / "submitted"
    for student in ("a", "b", "Jörg M"):
        nbformat.write(submission(folder, RIGHT), place(handed_in, student))

    def stop(line: str) -> None:
        if line.startswith("[2/3]"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        grade(handed_in, tell=stop)
    assert [row["total"] for row in scores(folder).values()] == ["9", "9"]
    assert sqlite3.connect(folder / "gradebook.db").execute("pragma integrity_check").fetchone() == ("ok",)
    lines: list[str] = []
    grade(handed_in, tell=lines.append, jobs=2)
    assert {name: row["total"] for name, row in scores(folder).items()} == {"a": "9", "b": "9", "Jörg M": "9"}
    assert sum("unchanged" in line for line in lines) == 2
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_whatever_goes_wrong_with_one_submission_stops_no_other(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw, in the third of two hundred."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    (folder / "in").mkdir()
    for student in ("a", "b", "c"):
        nbformat.write(submission(folder, RIGHT), place(folder / "in", student))
    usual = Grader.run

    def run(self: Grader, one: Any, *more: Any) -> Any:
        if one.student == "b":
            raise RecursionError("too deep \udcf6")
        return usual(self, one, *more)

    monkeypatch.setattr(Grader, "run", run)
    grade(folder / "in")
    found = scores(folder)
    assert [found[name]["total"] for name in "abc"] == ["9", "", "9"]
    assert "could not be graded: RecursionError: too deep ?" in found["b"]["reason"]
    monkeypatch.undo()
    lines: list[str] = []
    grade(folder / "in", tell=lines.append)
    assert scores(folder)["b"]["total"] == "9"
    assert sum("unchanged" in line for line in lines) == 2


def test_an_unanswered_question_and_a_broken_resubmission_are_told(released: Path, tmp_path: Path) -> None:
    """A row that looks complete, or empty, while the gradebook says something else."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    (folder / "in").mkdir()
    path = place(folder / "in", "a")
    nbformat.write(submission(folder, RIGHT | {"exercise-7-4": "*Your answer.*"}), path)
    grade(folder / "in")
    assert "not answered" in scores(folder)["a"]["reason"]
    path.write_text("no notebook")
    grade(folder / "in")
    assert "the gradebook keeps the marks of an earlier file" in scores(folder)["a"]["reason"]


def test_nothing_is_graded_while_it_is_not_stated_who_somebody_is(
    released: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, and a student without marks."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    moodle = folder / "in" / "Student A_1001_assignsubmission_file_" / "x.ipynb"
    for path, answers in ((moodle, RIGHT), (folder / "in" / "hw6" / "bob" / "x.ipynb", {})):
        path.parent.mkdir(parents=True)
        nbformat.write(submission(folder, answers), path)
    before = (folder / "gradebook.db").read_bytes()
    words = ["assignment", "grade", str(folder / "in")]
    assert main([*words, "--dry-run"]) == 2
    table = capsys.readouterr().out
    assert "1 to grade, 0 left out, 1 refused" in table
    assert "Student A_1001  07_means  Student A_1001_" in table
    assert main(words) == 2
    assert "refused: hw6/bob/x.ipynb: nothing states whose it is" in capsys.readouterr().out
    assert not (folder / "grades").exists() and (folder / "gradebook.db").read_bytes() == before
    assert main([*words, "--skip-refused"]) == 1
    assert [row["total"] for row in scores(folder).values()] == ["9"]
    pattern = r"(?:.*/)?(?P<student_id>[^/]+?)(_\d+_assignsubmission_file_)?/x.ipynb"
    assert main([*words, "--pattern", pattern]) == 0
    assert {name: row["total"] for name, row in scores(folder).items()} == {
        "Student A_1001": "9", "Student A": "9", "bob": "0",
    }  # fmt: skip
    with (folder / "grades" / "files.csv").open(encoding="utf-8", newline="") as file:
        assert {row["student"]: row["what"] for row in csv.DictReader(file)} == {
            "Student A": "counts", "bob": "counts"
        }  # fmt: skip


def test_solutions_that_fail_here_stop_the_run_before_anyone_is_graded(
    released: Path, tmp_path: Path
) -> None:
    """A broken environment would give a whole class nought."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    path = folder / "source" / NAME / f"{NAME}.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("math.fsum(values)", "0 * math.fsum(values)"))
    (folder / "in").mkdir()
    nbformat.write(submission(folder, RIGHT), place(folder / "in", "a"))
    with pytest.raises(ValueError, match=r"its own solution of 7.1 gets 0 of 3 points here: fails"):
        grade(folder / "in")
    with sqlite3.connect(folder / "gradebook.db") as book:
        book.execute("update source_cell set source = 'import no_such_package' where name = 'setup'")
    with pytest.raises(ValueError, match="its setup fails here: ModuleNotFoundError"):
        grade(folder / "in")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"submissions": c / "none"}, "SUBMISSIONS: there is no"),
        (lambda c: {"submissions": c / "release", "course": c / "release"}, "--course: .* has no nbgrader"),
        (lambda c: {"submissions": c / "source" / NAME, "limits": Limits(0)}, "--seconds takes"),
        (lambda c: {"submissions": c / "release", "jobs": 0}, "--jobs takes"),
        (lambda c: {"submissions": c / "replaced"}, "holds no notebook"),
    ],
)  # fmt: skip
def test_bad_input_is_told_in_one_line(
    released: Path, tmp_path: Path, change: Callable[[Path], dict[str, Any]], message: str
) -> None:
    """What is wrong, and what to do instead."""
    folder = tmp_path / "course"
    shutil.copytree(released, folder)
    (folder / "replaced").mkdir()
    with pytest.raises(ValueError, match=message):
        grade(**change(folder))


def test_without_nbgrader_one_line_says_what_to_install(
    released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra is optional."""
    monkeypatch.setattr("labkit.classroom.grading.book.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'labkit\[course\]'"):
        grade(released / "release", course=released)


@pytest.mark.parametrize(("text", "size"), [("2G", 2**31), ("1.5 GB", 3 * 2**29), ("500MiB", 500 * 2**20)])
def test_memory_is_given_with_its_unit(text: str, size: int) -> None:
    """2 read as two bytes would stop everyone."""
    assert memory_size(text) == size
    for wrong in ("2", "much", "-1G", ""):
        with pytest.raises(ValueError, match="--memory takes"):
            memory_size(wrong)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "  =1", "＝1+1"])
def test_a_name_is_no_formula(text: str) -> None:
    """Spreadsheets run what begins so."""
    assert _cell(text).startswith("'") and _cell("plain") == "plain"
    assert _cell(f"x; {text};1") == f"x; '{text.strip()};1"
